"""Settings of `legradnet-evaluate`, and of the films that other commands measure on."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from legradnet.data.settings import DataSettings
from legradnet.grading.settings import ONE_MODEL, AskedDevice, AskedFilm, AskedPrecision, BatchSize
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Seed, Settings


def _unset(value: Any) -> None:
    if value is not None:
        raise ValueError("can't be set: how films are read is known from the checkpoint")


FromCheckpoint = Annotated[None, BeforeValidator(_unset)]
_FROM_CHECKPOINT = "null: known from the checkpoint"

MeasuredSplit = Literal["train", "val", "test", "all"]


class MeasuredFilms(DataSettings):
    """Config group `data` of commands that measure a checkpoint."""

    source: Literal["own", "csv", "folder", "synthetic"] = Field(  # type: ignore[assignment]
        default="own",
        description="own = the films of the checkpoint's training run; or `data=csv`, `folder`, `synthetic`",
    )
    image_size: FromCheckpoint = Field(default=None, description=_FROM_CHECKPOINT)  # type: ignore[assignment]
    fit: FromCheckpoint = Field(default=None, description=_FROM_CHECKPOINT)  # type: ignore[assignment]
    mirror_left: FromCheckpoint = Field(default=None, description=_FROM_CHECKPOINT)  # type: ignore[assignment]
    batch_size: BatchSize = None  # type: ignore[assignment]


class EvaluateSettings(Settings):
    """`conf/evaluate.yaml`."""

    data: MeasuredFilms = MeasuredFilms()
    checkpoint: CheckpointText | list[CheckpointText | list[CheckpointText]] = Field(
        default=SHIPPED, description=f"{ONE_MODEL}; or a list to compare"
    )
    film: AskedFilm = "auto"
    split: MeasuredSplit | None = Field(
        default=None, description="train, val, test, all; null = test where there is such a split, else all"
    )
    crossfit: bool = Field(
        default=False,
        description="fit calibration on one half of the patients and measure it on the other, both in turn, instead "
        "of using the stored one",
    )
    subgroups: list[str] = Field(default_factory=list, description="columns of the CSV to measure by")
    drift: bool = Field(
        default=False,
        description="compare films, which need no labels, with those that the model was calibrated on, instead of "
        "measuring grades",
    )
    predictions: PathText | list[PathText] | None = Field(
        default=None,
        description="`predictions.jsonl` of `legradnet-predict` to compare in the place of films, or a list of them, "
        "week by week (`drift=true`)",
    )
    reference: PathText | None = Field(
        default=None,
        description="`predictions.jsonl` of the model's labelled validation films, for a model that has kept none "
        "(`drift=true`)",
    )
    false_alarms: float = Field(
        default=0.05, gt=0, lt=0.5, description="probability of any alarm where nothing has changed (`drift=true`)"
    )
    threshold: float = Field(default=0.5, ge=0, le=1, description="of P(KL >= 2), for sensitivity and specificity")
    facts: PathText | None = Field(
        default=None,
        description="a YAML file with what no evaluation can know (sources and licences of films and starting weights, "
        "cost of training, known failures), for the card",
    )
    joint_masked: bool = Field(default=True, description="grade again with the joint blanked out")
    resamples: int = Field(default=2000, ge=1, le=100_000, description="of the bootstrap")
    confidence_level: float = Field(default=0.95, ge=0.5, le=0.999, description="of the intervals")
    seed: Seed = Field(default=0, description="of bootstrap and crossfit")
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
