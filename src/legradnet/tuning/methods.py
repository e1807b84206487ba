"""Optuna's samplers and pruners by name."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from legradnet.errors import UserError

SAMPLERS = ("tpe", "gp", "random", "grid", "nsgaii")
PRUNERS = ("none", "median", "hyperband", "successive_halving", "wilcoxon")
_SAMPLER_CLASSES = {"tpe": "TPESampler", "gp": "GPSampler", "random": "RandomSampler", "nsgaii": "NSGAIISampler"}
_PRUNER_CLASSES = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "hyperband": "HyperbandPruner",
    "successive_halving": "SuccessiveHalvingPruner",
    "wilcoxon": "WilcoxonPruner",
}


def make_pruner(settings: Mapping[str, Any]) -> BasePruner:
    """The pruner of `name` with the other values as keyword arguments.

    Raises:
        UserError: Optuna refuses the arguments.
    """
    return _made("pruner", getattr(optuna.pruners, _PRUNER_CLASSES[settings["name"]]), settings)


def make_sampler(settings: Mapping[str, Any], seed: int | None) -> BaseSampler:
    """The sampler of `name`, the other values as keyword arguments; a grid's points are enqueued, not sampled.

    Raises:
        UserError: Optuna refuses the arguments.
    """
    if settings["name"] == "grid":
        return RandomSampler(seed=seed)
    return _SampledByNumber(getattr(optuna.samplers, _SAMPLER_CLASSES[settings["name"]]), settings, seed)


def _made(what: str, kind: Any, settings: Mapping[str, Any], **more: Any) -> Any:
    arguments = {key: value for key, value in settings.items() if key != "name"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the user has chosen it
            return kind(**{**arguments, **more})
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"hydra.sweeper.{what} {settings['name']}: {error}") from error


class _SampledByNumber(BaseSampler):
    """A sampler made anew for each trial, seeded by (seed, the trial's number).

    So a resumed study goes on as if it had never stopped, and neither resuming nor a second worker with the same
    seed repeats points, which one stream of random numbers started again would.
    """

    def __init__(self, kind: Any, settings: Mapping[str, Any], seed: int | None) -> None:
        self._kind, self._settings = kind, settings
        self._seed = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._sampler: BaseSampler = self._make(0)

    def _make(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        return _made("sampler", self._kind, self._settings, seed=seed)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._make(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
