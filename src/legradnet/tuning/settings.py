"""What a study is told to do, checked."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from legradnet.config import Choice, Number, check_config
from legradnet.errors import UserError
from legradnet.tuning.methods import PRUNERS, SAMPLERS, make_pruner, make_sampler

_RULES: dict[str, Number | Choice] = {
    "n_trials": Number(int, 1, optional=True),
    "n_jobs": Number(int, 1),
    "max_failures": Number(int, 1, optional=True),
    "seed": Number(int, 0, 2**32 - 1, optional=True),
    "timeout": Number(float, 0, optional=True),
    "heartbeat_interval": Number(float, 0.01),
    "grace_period": Number(float, 0.01),
}


@dataclass(frozen=True)
class StudySettings:
    """A study and how it is searched; the keys of `hydra.sweeper`.

    Args:
        storage: `sqlite:///PATH`, `postgresql://...` or `journal:PATH` (shared file systems).
        study_name: Its name in the storage.
        direction: maximize or minimize, one for each of `optimized_metric`.
        optimized_metric: Metrics of the best epoch, e.g. `val/qwk`; the first is the one that is pruned by.
        n_trials: Finished and pruned trials that the study shall hold in the end; None is no limit.
        n_jobs: Trials that are launched together.
        sampler: `name` (tpe, gp, random, grid, nsgaii) and keyword arguments of Optuna's class.
        pruner: `name` (none, median, hyperband, successive_halving, wilcoxon) and keyword arguments.
        max_failures: Failed trials at which the search stops; None is no limit.
        seed: Of the sampler, with each trial's number; None draws one.
        timeout: Seconds after which no more trials are started; None is no limit.
        heartbeat_interval: Seconds between two signs of life of a trial.
        grace_period: Seconds without a sign of life after which a trial is taken for dead.
    """

    storage: str
    study_name: str
    direction: tuple[str, ...] = ("maximize",)
    optimized_metric: tuple[str, ...] = ("val/qwk",)
    n_trials: int | None = 20
    n_jobs: int = 1
    sampler: Mapping[str, Any] = field(default_factory=lambda: {"name": "tpe"})
    pruner: Mapping[str, Any] = field(default_factory=lambda: {"name": "none"})
    max_failures: int | None = 10
    seed: int | None = None
    timeout: float | None = None
    heartbeat_interval: float = 10.0
    grace_period: float = 60.0

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "StudySettings":
        """Settings from plain values, where a single name may stand for a list or for a method without arguments.

        Raises:
            UserError: Names every wrong value and what it may be.
        """
        given = {key: values[key] for key in (one.name for one in fields(cls)) if key in values}
        for key in ("direction", "optimized_metric"):
            if isinstance(one := given.get(key, ()), str):
                given[key] = (one,)
            elif key in given:
                given[key] = tuple(given[key])
        for key in ("sampler", "pruner"):
            if isinstance(given.get(key), str) or given.get(key, ...) is None:
                given[key] = {"name": given[key] or "none"}
        settings = cls(**given)
        settings.check()
        return settings

    def check(self) -> None:
        """Raise UserError if a value is wrong."""
        rules = {f"hydra.sweeper.{key}": rule for key, rule in _RULES.items()}
        rules |= {
            "hydra.sweeper.sampler.name": Choice(SAMPLERS),
            "hydra.sweeper.pruner.name": Choice(PRUNERS),
        }
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        for key in ("sampler", "pruner"):
            if "name" not in plain[key]:  # what +hydra.sweeper.pruner.key= makes of hydra.sweeper.pruner=name
                raise UserError(f"hydra.sweeper.{key} has no name: say hydra.sweeper.{key}.name= beside its arguments.")
        check_config({"hydra": {"sweeper": plain}}, rules)
        if not self.study_name or not isinstance(self.study_name, str):
            raise UserError("hydra.sweeper.study_name= must be a name.")
        for direction in self.direction:
            if problem := Choice(("maximize", "minimize")).problem(direction):
                raise UserError(f"hydra.sweeper.direction={direction} {problem}")
        if len(self.direction) != len(self.optimized_metric) or not self.direction:
            raise UserError(
                "hydra.sweeper.direction and optimized_metric must be as many: "
                f"{list(self.direction)} and {list(self.optimized_metric)}."
            )
        if self.many and self.pruner["name"] != "none":
            raise UserError("A study of several objectives cannot prune: hydra.sweeper.pruner=none.")
        if self.grace_period < 2 * self.heartbeat_interval:
            raise UserError("hydra.sweeper.grace_period must be at least twice heartbeat_interval.")
        if self.n_trials is None and self.timeout is None and self.sampler["name"] != "grid":
            raise UserError("hydra.sweeper: n_trials or timeout is needed, else the search has no end.")

        make_sampler(self.sampler, self.seed)
        make_pruner(self.pruner)

    @property
    def many(self) -> bool:
        """Whether there are several objectives."""
        return len(self.direction) > 1
