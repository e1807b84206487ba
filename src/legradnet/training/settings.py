"""Settings of `legradnet-train`."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from legradnet.data.augment import AugmentSettings
from legradnet.data.settings import DataSettings
from legradnet.network.ensemble import NetworkSettings
from legradnet.settings import PathText, Seed, Settings
from legradnet.training.optimizer import OptimizerSettings, SchedulerSettings, WarmupCosineSettings


class TrainerSettings(Settings):
    """Config group `trainer`; any other key of Lightning's Trainer may be added."""

    model_config = ConfigDict(extra="allow")

    accelerator: str = Field(default="auto", description="set by `trainer=auto`, `cpu`, `gpu`, `ddp`")
    devices: Annotated[int, Field(ge=-1)] | str | list[int] = Field(default=1, description="one; `trainer=ddp`: all")
    strategy: str = Field(default="auto", description="`trainer=ddp`: one process a device")
    num_nodes: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="machines; null = as many as torchrun or srun has started processes on"
    )
    sync_batchnorm: bool = Field(
        default=True, description="where devices are several: batch norms over the films of all of them"
    )
    precision: Literal["auto", "32-true", "32", 32, "bf16-mixed", "16-mixed"] = Field(
        default="auto", description="auto = bf16-mixed where CPU or GPU multiplies bfloat16 natively, else 32-true"
    )
    max_epochs: int = Field(default=30, ge=1, description="epochs")
    gradient_clip_val: Annotated[float, Field(ge=0)] | None = Field(default=1.0, description="largest gradient norm")
    accumulate_grad_batches: int = Field(default=1, ge=1, description="batches an optimiser step")
    fast_dev_run: bool | Annotated[int, Field(ge=0)] = Field(
        default=False, description="one batch through everything, nothing saved"
    )
    deterministic: bool | Literal["warn"] = Field(
        default="warn",
        description="same numbers twice, also on a GPU; other keys of Lightning's Trainer: `+trainer.key=`",
    )

    def arguments(self, precision: str) -> dict[str, Any]:
        """What Lightning's Trainer is called with; `sync_batchnorm` is a plugin of ours (`norms.py`)."""
        own = self.model_dump(exclude={"sync_batchnorm"})
        return {**own, "precision": precision, "num_nodes": self.num_nodes or 1}


class CallbackSettings(Settings):
    """Config group `callbacks`."""

    early_stopping_patience: Annotated[int, Field(ge=1)] | None = Field(
        default=10, description="epochs without a better val/qwk; null = off"
    )
    ema_decay: Annotated[float, Field(ge=0, le=0.999999)] | None = Field(
        default=None, description="moving average of the weights, e.g. 0.995; null = off"
    )


class CalibrationSettings(Settings):
    """Config group `calibration`."""

    name: Literal["conformal"] | None = Field(default="conformal", description="set by `calibration=conformal`, `none`")
    coverage: float = Field(
        default=0.9, ge=0.01, le=0.999, description="wanted share of prediction sets that hold the true grade"
    )
    target_error: float = Field(
        default=0.25, ge=0.001, le=0.999, description="wanted share of wrong grades among films that are not referred"
    )
    unlike_share: Annotated[float, Field(ge=0.001, le=0.5)] | None = Field(
        default=0.02,
        description="most films like those of training to refer as unlike them, by what trunks see; null = no distance",
    )


class LoggerSettings(Settings):
    """Config group `logger`."""

    name: Literal["tensorboard", "mlflow", "wandb"] | None = Field(
        default=None, description="set by `logger=tensorboard`, `mlflow`, `wandb` (offline), in the run folder"
    )


class TuningSettings(Settings):
    """What a search does with each of its trials: `tuning`."""

    folds: bool = Field(
        default=False, description="in a search: a trial is the mean over all folds of `data.num_folds`"
    )
    keep_checkpoints: Annotated[int, Field(ge=0)] | None = Field(
        default=3, description="in a search: how many of the best trials keep their checkpoint; null = all"
    )


class TrainSettings(NetworkSettings):
    """`conf/train.yaml`."""

    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    scheduler: SchedulerSettings = WarmupCosineSettings()
    trainer: TrainerSettings = TrainerSettings()
    logger: LoggerSettings = LoggerSettings()
    callbacks: CallbackSettings = CallbackSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    seed: Seed = Field(default=0, description="of everything that is drawn")
    compile: bool = Field(default=False, description="compile the trunks with torch.compile, where there is a compiler")
    test: bool = Field(default=True, description="measure the best epoch on the test films")
    ckpt_path: PathText | None = Field(
        default=None, description="resume: a checkpoint, or `last` = this run folder's last.ckpt"
    )
    init_from: PathText | None = Field(default=None, description="start the whole ensemble from a checkpoint's weights")
    optimized_metric: str | list[str] = Field(
        default="val/qwk", description="what a search optimises; a list for several objectives"
    )
    tuning: TuningSettings = TuningSettings()
