"""Settings of `legradnet-pretrain`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.data.augment import AugmentSettings
from legradnet.data.settings import DataSettings
from legradnet.network.backbones import Backbones, BackboneSettings
from legradnet.pretraining.losses import BYOLSettings, ProjectorSettings, SimCLRSettings, SimMIMSettings, VICRegSettings
from legradnet.settings import PathText, Seed, Settings
from legradnet.training.optimizer import SchedulerSettings, WarmupCosineSettings
from legradnet.training.settings import TrainerSettings

_AUGMENT = AugmentSettings(
    rotation=5.0,
    shift=0.05,
    scale=0.1,
    mirror=0.5,
    exposure=0.1,
    contrast=0.4,
    gamma=0.5,
    noise=0.02,
    blur=0.8,
    cutout=0.0,
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


def _several(data: DataSettings) -> DataSettings:
    if data.batch_size < 2:
        raise ValueError("data.batch_size: films are told apart from others of their batch, so it is at least 2, not 1")
    return data


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
    method: Literal["vicreg", "simclr", "byol", "simmim"] = Field(
        default="vicreg",
        description="two views are to be alike: vicreg (Bardes 2022) and byol (Grill 2020), also with small batches, "
        "simclr (Chen 2020), which wants large ones; or what is hidden is drawn again: simmim (Xie 2022)",
    )
    vicreg: VICRegSettings = VICRegSettings()
    simclr: SimCLRSettings = SimCLRSettings()
    byol: BYOLSettings = BYOLSettings()
    simmim: SimMIMSettings = SimMIMSettings()
    projector: ProjectorSettings = ProjectorSettings()
    data: Annotated[DataSettings, AfterValidator(_several)] = DataSettings(batch_size=64, test_fraction=0.0)
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

    @property
    def paired(self) -> Literal["patient", "film"]:
        """Pairs that are made: a method that redraws what is hidden of a film needs no other."""
        return "film" if self.method == "simmim" else self.pairs
