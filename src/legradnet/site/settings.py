"""Settings of `legradnet-calibrate`."""

from typing import Annotated

from pydantic import Field

from legradnet.evaluation.settings import MeasuredFilms, MeasuredSplit
from legradnet.grading.settings import ONE_MODEL, AskedDevice, AskedPrecision
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Seed, Settings

Wanted = Annotated[float, Field(gt=0, lt=1)]


class CalibrateSettings(Settings):
    """`conf/calibrate.yaml`."""

    data: MeasuredFilms = MeasuredFilms()
    checkpoint: CheckpointText = Field(default=SHIPPED, description=ONE_MODEL)
    output: PathText = Field(description="a folder that is new or empty")
    split: MeasuredSplit = Field(default="all", description="films of the site to calibrate on: train, val, test, all")
    reference: PathText | None = Field(
        default=None,
        description="`predictions.jsonl` of the model's labelled validation films, for a model that has kept none: the "
        "older films of the prediction sets",
    )
    coverage: Wanted | None = Field(
        default=None, description="wanted share of prediction sets that hold the true grade; null = the model's"
    )
    target_error: Wanted | None = Field(
        default=None, description="wanted share of wrong grades among films that are not referred; null = the model's"
    )
    wanted_width: Wanted = Field(
        default=0.1, description="of an interval; the page says how many films make those of this site so narrow"
    )
    resamples: int = Field(default=2000, ge=100, le=100_000, description="of the bootstrap")
    confidence_level: float = Field(default=0.95, ge=0.5, le=0.999, description="of the intervals")
    seed: Seed = Field(default=0, description="of folds and bootstrap")
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
