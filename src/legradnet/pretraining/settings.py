"""Settings of `legradnet-pretrain`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.data.augment import AugmentSettings
from legradnet.data.settings import DataSettings
from legradnet.network.backbones import Backbones, BackboneSettings
from legradnet.pretraining.losses import SimCLRSettings, VICRegSettings
from legradnet.settings import PathText, Seed, Settings
from legradnet.training.optimizer import SchedulerSettings, WarmupCosineSettings
from legradnet.training.settings import TrainerSettings

_AUGMENT = AugmentSettings(
    rotation=15.0,
    shift=0.1,
    scale=0.3,
    mirror=0.0,
    exposure=0.1,
    contrast=0.4,
    gamma=0.5,
    noise=0.05,
    blur=1.5,
    cutout=0.3,
)


def _only_one(backbones: dict[str, BackboneSettings]) -> dict[str, BackboneSettings]:
    if len(backbones) != 1:
        raise ValueError(f"backbone: one is pretrained at a time, not {', '.join(backbones)}; as backbone=lite0")
    if any(backbone.frozen for backbone in backbones.values()):
        raise ValueError("backbone: a frozen trunk learns nothing")
    return backbones


def _plain(augment: AugmentSettings) -> AugmentSettings:
    if augment.mixup:
        raise ValueError("mixup has no meaning here: films have no grades to be mixed")
    return augment


class ProjectorSettings(Settings):
    """Config group `projector`: the network between trunk and loss, which is thrown away."""

    width: int = Field(default=1024, ge=2, le=65536, description="of its hidden layers")
    output: int = Field(default=1024, ge=2, le=65536, description="of what the loss compares")


class OwnOptimizerSettings(Settings):
    """Config group `optimizer`: AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: float = Field(default=1e-3, ge=1e-9, le=100, description="of trunk and projector")
    weight_decay: float = Field(default=1e-4, ge=0, le=100, description="not on norms and biases")


class PretrainSettings(Settings):
    """`conf/pretrain.yaml`."""

    backbone: Annotated[Backbones, AfterValidator(_only_one)]
    pretrained: bool = Field(
        default=True, description="start from timm's weights; backbone.<key>.weights=FILE: from those"
    )
    method: Literal["vicreg", "simclr"] = Field(
        default="vicreg",
        description="vicreg (Bardes 2022), also good with small batches, or simclr (Chen 2020), which wants large ones",
    )
    vicreg: VICRegSettings = VICRegSettings()
    simclr: SimCLRSettings = SimCLRSettings()
    projector: ProjectorSettings = ProjectorSettings()
    data: DataSettings = DataSettings(batch_size=64, test_fraction=0.0)
    pairs: Literal["patient", "film"] = Field(
        default="patient",
        description="views to be alike: of two films of a patient (both knees, other visits), or of one film",
    )
    augment: Annotated[AugmentSettings, AfterValidator(_plain)] = _AUGMENT
    optimizer: OwnOptimizerSettings = OwnOptimizerSettings()
    scheduler: SchedulerSettings = WarmupCosineSettings()
    trainer: TrainerSettings = TrainerSettings(max_epochs=10)
    num_classes: int = Field(default=5, ge=2, le=1000, description="grades 0 ... K-1, of films that have one")
    seed: Seed = Field(default=0, description="of everything that is drawn")
    ckpt_path: Literal["last"] | PathText | None = Field(
        default=None, description="resume: `last` = this run folder's last.ckpt"
    )
