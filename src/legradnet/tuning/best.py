"""The best trial as an experiment file: what it chose and set that a plain `legradnet-train` does not."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from legradnet.files import write_text
from legradnet.settings import flat

_OF_SEARCHES = ("hydra", "tuning", "optimized_metric")  # a single run needs none of these

Compose = Callable[[Sequence[str]], DictConfig]


def ranked_trials(study: optuna.Study) -> list[FrozenTrial]:
    """All complete trials, those of the Pareto front first, by the first objective; of equals the first."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    front = {trial.number for trial in study.best_trials} if complete else set()
    sign = -1 if study.directions[0] is StudyDirection.MAXIMIZE else 1
    return sorted(complete, key=lambda trial: (trial.number not in front, sign * trial.values[0], trial.number))


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial, or the Pareto front, best in the first objective first; empty before there is one."""
    ranked = ranked_trials(study)
    return ranked[: len(study.best_trials) if ranked and len(study.directions) > 1 else 1]


def write_experiments(
    folder: Path, study: optuna.Study, compose: Compose, overrides: Callable[[Mapping[str, Any]], list[str]]
) -> None:
    """Write `experiment/best.yaml`, and with several objectives one file for each trial of the Pareto front.

    Args:
        folder: Of the sweep.
        study: The study.
        compose: Config of a list of overrides.
        overrides: All overrides of drawn parameters, fixed ones included.
    """
    best = best_trials(study)
    for left in (folder / "experiment").glob("pareto_*.yaml"):  # of trials that have been surpassed
        if left.stem not in {f"pareto_{trial.number}" for trial in best}:
            left.unlink()
    for index, trial in enumerate(best):
        values = ", ".join(f"{value:.6g}" for value in trial.values)
        text = f"# @package _global_\n# Trial {trial.number} of {study.study_name}: {values}\n"
        text += OmegaConf.to_yaml(experiment(compose, overrides(trial.params)))
        if len(best) > 1:
            write_text(folder / "experiment" / f"pareto_{trial.number}.yaml", text, shared=True)
        if index == 0:
            write_text(folder / "experiment" / "best.yaml", text, shared=True)


def experiment(compose: Compose, overrides: Sequence[str]) -> DictConfig:
    """An experiment that gives the config of `overrides` without them.

    Args:
        compose: Config of a list of overrides.
        overrides: Of the run.
    """
    wanted, plain = compose(overrides), compose([])
    choices, usual = wanted.hydra.runtime.choices, plain.hydra.runtime.choices
    chosen = {
        group: choice
        for group, choice in choices.items()
        if not group.startswith("hydra/") and group not in ("tuning", "experiment") and choice != usual.get(group)
    }
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group in usual and isinstance(several := override.value(), list):
            chosen[override.key_or_group] = several  # Hydra notes only single choices
    begun = compose([f"{group}={_text(choice)}" for group, choice in chosen.items()])
    chosen_values = flat(values_of(begun))
    settings: dict[str, Any] = {"defaults": [{f"override /{group}": choice} for group, choice in chosen.items()]}
    for key, value in flat(values_of(wanted)).items():
        if key not in chosen_values or chosen_values[key] != value:
            inner = settings
            *parents, name = key.split(".")
            for parent in parents:
                inner = inner.setdefault(parent, {})
            inner[name] = value
    return OmegaConf.create(settings)


def values_of(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain values, interpolations as they are written, without what is about searching."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key not in _OF_SEARCHES}


def _text(choice: Any) -> str:
    return "null" if choice is None else f"[{','.join(choice)}]" if isinstance(choice, list) else str(choice)
