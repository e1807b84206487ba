"""Settings of `legradnet-export`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.evaluation.settings import MeasuredFilms
from legradnet.grading.runtimes import RUNTIMES
from legradnet.settings import Seed, Settings


def _known(name: str) -> str:
    if name not in RUNTIMES:
        raise ValueError(f"must be one of {', '.join(sorted(RUNTIMES))}")
    return name


class ExportSettings(Settings):
    """`conf/export.yaml`."""

    data: MeasuredFilms = MeasuredFilms()
    checkpoint: str = Field(description="one checkpoint")
    output: str = Field(description="a folder that is new or empty")
    format: Annotated[str, AfterValidator(_known)] = Field(default="openvino", description=", ".join(RUNTIMES))
    precision: Literal["f32", "bf16", "int8"] = Field(default="f32", description="f32, bf16 (openvino only), int8")
    split: Literal["train", "val", "test", "all"] = Field(
        default="val", description="films to calibrate 8 bits and to compare on: train, val, test, all"
    )
    max_qwk_drop: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=0.01, description="refuse an export whose QWK is lower by more than this; null = none is refused"
    )
    seed: Seed = Field(default=0, description="of generated knees (`data=synthetic`)")
