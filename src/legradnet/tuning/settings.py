"""What a study is told to do: the keys of `hydra.sweeper`, checked."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from legradnet.errors import UserError
from legradnet.settings import Seed, Settings, VerbatimText, checked
from legradnet.tuning.methods import PrunerName, SamplerName, make_pruner, make_sampler

Direction = Literal["maximize", "minimize"]
AtLeastOne = Annotated[int, Field(ge=1)]


def _tuple_of(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _check_name(value: str) -> str:
    if not value:
        raise ValueError("must be a name")
    return value


class SamplerSettings(Settings):
    """A sampler, with keyword arguments of Optuna's class beside its name."""

    model_config = ConfigDict(extra="allow")
    name: SamplerName = Field(
        default="tpe",
        description="`tpe`, `gp`, `random`, `grid`, `nsgaii`, and with `pip install -e '.[samplers]'` `cmaes`, "
        "`botorch`; arguments beside it: `+hydra.sweeper.sampler.multivariate=true`",
    )

    def make(self, seed: int | None) -> BaseSampler:
        """The sampler; UserError if Optuna refuses the arguments."""
        return make_sampler(self.name, self.model_extra or {}, seed)


class PrunerSettings(Settings):
    """A pruner, with keyword arguments of Optuna's class beside its name."""

    model_config = ConfigDict(extra="allow")
    name: PrunerName = Field(
        default="none",
        description="`none`, `median`, `hyperband`, `successive_halving`, `wilcoxon` (over folds), with arguments in "
        "the same way; `full`: median",
    )

    def make(self) -> BasePruner:
        """The pruner; UserError if Optuna refuses the arguments."""
        return make_pruner(self.name, self.model_extra or {})


class StudySettings(Settings):
    """A study and how it is searched; a single name may stand for a list or for a method without arguments."""

    storage: VerbatimText = Field(
        description="`sqlite:///PATH`; `journal:PATH` where file systems are shared (NFS); `postgresql://...` with "
        "`pip install -e '.[postgresql]'`. A URL with a password belongs into an environment variable: "
        "`'hydra.sweeper.storage=${oc.env:NAME}'`"
    )
    study_name: Annotated[str, AfterValidator(_check_name)] = Field(description="name of the study")
    direction: Annotated[tuple[Direction, ...], BeforeValidator(_tuple_of)] = Field(
        default=("maximize",),
        description="or minimize, of each of `optimized_metric`: `'hydra.sweeper.direction=[maximize,minimize]'`",
    )
    optimized_metric: Annotated[tuple[str, ...], BeforeValidator(_tuple_of)] = Field(
        default=("val/qwk",), description="of the epoch in `best.ckpt`; several: `'optimized_metric=[val/qwk,val/ece]'`"
    )
    n_trials: AtLeastOne | None = Field(
        default=20,
        description="finished and pruned trials in the end: 10 in `learning_rate`, 50 in `gating`, 100 in `full`; null "
        "= no limit",
    )
    n_jobs: AtLeastOne = Field(
        default=1,
        description="trials launched together, with `hydra/launcher=joblib` (`pip install hydra-joblib-launcher`) or "
        "`submitit_slurm` (`hydra-submitit-launcher`)",
    )
    sampler: SamplerSettings = SamplerSettings()
    pruner: PrunerSettings = PrunerSettings()
    max_failures: AtLeastOne | None = Field(
        default=10, description="failed trials (exception, result not finite) that end the search; null = no limit"
    )
    seed: Seed | None = Field(default=None, description="of the sampler: the same points again, also after a resume")
    timeout: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="seconds after which no more trials are begun"
    )
    heartbeat_interval: float = Field(default=10.0, ge=0.01, description="seconds between signs of life of a trial")
    grace_period: float = Field(
        default=60.0, ge=0.01, description="seconds without a sign of life after which a trial counts as dead"
    )

    @field_validator("sampler", "pruner", mode="before")
    @classmethod
    def _by_name(cls, value: Any, info: ValidationInfo) -> Any:
        key = f"hydra.sweeper.{info.field_name}"
        if isinstance(value, Mapping) and "name" not in value:  # +KEY.argument= after KEY=name leaves this
            raise ValueError(f"{key} has no name: say {key}.name= beside its arguments.")
        return {"name": value or "none"} if isinstance(value, str | None) else value

    @model_validator(mode="after")
    def _check_together(self) -> "StudySettings":
        mistakes = []
        if len(self.direction) != len(self.optimized_metric) or not self.direction:
            mistakes.append(
                "hydra.sweeper.direction and optimized_metric must be as many: "
                f"{list(self.direction)} and {list(self.optimized_metric)}."
            )
        if self.many and self.pruner.name != "none":
            mistakes.append("A study of several objectives cannot prune: hydra.sweeper.pruner=none.")
        if self.grace_period < 2 * self.heartbeat_interval:
            mistakes.append("hydra.sweeper.grace_period must be at least twice heartbeat_interval.")
        if self.n_trials is None and self.timeout is None and self.sampler.name != "grid":
            mistakes.append("hydra.sweeper: n_trials or timeout is needed, else the search has no end.")
        makes: tuple[Callable[[], object], ...] = (lambda: self.sampler.make(self.seed), self.pruner.make)
        for make in makes:
            try:
                make()
            except UserError as mistake:
                mistakes.append(str(mistake))
        if mistakes:
            raise ValueError("\n  ".join(mistakes))
        return self

    @property
    def many(self) -> bool:
        """Whether there are several objectives."""
        return len(self.direction) > 1


class SweeperSettings(StudySettings):
    """All keys of `hydra.sweeper`: the study, and what a sweep of `legradnet-train -m` makes of it."""

    params: dict[str, Any] | None = Field(
        default_factory=dict, description="keys and their values, as on the command line; each `tuning=` has its own"
    )
    custom_search_space: str | None = Field(
        default=None, description="`MODULE.FUNCTION(config, trial)` that suggests more keys"
    )
    enqueue: list[dict[str, Any]] | None = Field(
        default_factory=list,
        description="known good points that are tried first, `[{optimizer.learning_rate: 1e-3}]`; `tuning=`: the "
        "defaults",
    )
    trial: int | None = Field(default=None, description="number of the trial, set for its job")

    @classmethod
    def of(cls, sweeper: Mapping[str, Any]) -> "SweeperSettings":
        """Settings of a composed `hydra.sweeper`.

        Raises:
            UserError: Names every wrong value and what it may be.
        """
        return checked(cls, {key: sweeper[key] for key in sweeper if key != "_target_"}, group="hydra.sweeper")
