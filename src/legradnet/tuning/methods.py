"""Optuna's samplers and pruners by name."""

import importlib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import optuna
from optuna import pruners, samplers
from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from legradnet.errors import UserError, how_to_install

SamplerName = Literal["tpe", "gp", "cmaes", "botorch", "random", "grid", "nsgaii"]
PrunerName = Literal["none", "median", "hyperband", "successive_halving", "wilcoxon"]
_SAMPLERS: dict[SamplerName, type[BaseSampler]] = {
    "tpe": samplers.TPESampler,
    "gp": samplers.GPSampler,
    "cmaes": samplers.CmaEsSampler,
    "random": samplers.RandomSampler,
    "nsgaii": samplers.NSGAIISampler,
}
_PRUNERS: dict[PrunerName, type[BasePruner]] = {
    "none": pruners.NopPruner,
    "median": pruners.MedianPruner,
    "hyperband": pruners.HyperbandPruner,
    "successive_halving": pruners.SuccessiveHalvingPruner,
    "wilcoxon": pruners.WilcoxonPruner,
}


def make_pruner(name: PrunerName, arguments: Mapping[str, Any]) -> BasePruner:
    """The pruner of `name` with keyword arguments.

    Raises:
        UserError: Optuna refuses the arguments.
    """
    return _made(f"pruner {name}", _PRUNERS[name], arguments)


def make_sampler(name: SamplerName, arguments: Mapping[str, Any], seed: int | None) -> BaseSampler:
    """The sampler of `name` with keyword arguments; a grid's points are enqueued, not sampled.

    Raises:
        UserError: Optuna refuses the arguments, or a package is missing.
    """
    if name == "grid":
        return RandomSampler(seed=seed)
    try:
        if name == "botorch":
            importlib.import_module("botorch")
            kind = importlib.import_module("optuna_integration.botorch").BoTorchSampler
        else:
            if name == "cmaes":
                importlib.import_module("cmaes")  # Optuna itself would miss it in the middle of the search
            kind = _SAMPLERS[name]
    except ImportError as error:
        hint = how_to_install("samplers")
        raise UserError(f"hydra.sweeper.sampler {name} needs a package that isn't installed: {hint}") from error
    return _SampledByNumber(partial(_made, f"sampler {name}", kind, arguments), seed)


def _made(what: str, kind: Any, arguments: Mapping[str, Any], **ours: Any) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the user has chosen it
            return kind(**{**arguments, **ours})
    except (TypeError, ValueError, ImportError) as error:
        raise UserError(f"hydra.sweeper.{what}: {error}") from error


class _SampledByNumber(BaseSampler):
    """A sampler made anew for each trial, seeded by (seed, the trial's number).

    So a resumed study goes on as if it had never stopped, and neither resuming nor a second worker with the same
    seed repeats points, which one stream of random numbers started again would.
    """

    def __init__(self, make: Callable[..., BaseSampler], seed: int | None) -> None:
        self._make = make
        self._seed = seed if seed is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._sampler = self._made_for(0)

    def _made_for(self, number: int) -> BaseSampler:
        return self._make(seed=int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0]))

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        self._sampler = self._made_for(trial.number)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            return self._sampler.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._sampler.sample_independent(study, trial, param_name, param_distribution)
