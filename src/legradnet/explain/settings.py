"""Settings of `legradnet-explain`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from legradnet.data.settings import ListedFilms
from legradnet.explain.methods import METHODS
from legradnet.grading.settings import AskedDevice, AskedFilm, AskedInput, AskedPrecision, BatchSize, OneSide
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import Seed, Settings

GATE = "gate"  # a method without maps


def _known(method: str) -> str:
    if method not in (*METHODS, GATE):
        raise ValueError(f"is unknown; choose one of {', '.join([*METHODS, GATE])}")
    return method


def _all_known(methods: list[str]) -> list[str]:
    if not methods or not set(methods) <= set(METHODS):
        raise ValueError(f"must be a list, '[gradcam,occlusion]', of {', '.join(METHODS)}")
    return methods


class ExplainSettings(Settings):
    """`conf/explain.yaml`."""

    checkpoint: CheckpointText | list[CheckpointText] = Field(
        default=SHIPPED, description=f"{SHIPPED} = the shipped model, or a checkpoint, a model folder"
    )
    input: AskedInput
    method: Annotated[str, AfterValidator(_known)] = Field(
        default="gradcam", description=f"{', '.join(METHODS)}; {GATE} for no maps but weights"
    )
    target: Literal["predicted", "expected"] | int = Field(
        default="predicted", description="predicted, expected, or a grade"
    )
    faithfulness: bool = Field(default=False, description="test the maps instead of drawing them")
    methods: Annotated[list[str], AfterValidator(_all_known)] = Field(
        default_factory=lambda: list(METHODS), description="what `faithfulness=true` tests"
    )
    sample: int = Field(default=100, ge=1, description="films for `faithfulness=true`")
    steps: int = Field(default=20, ge=1, le=256, description="of deletion and insertion")
    seed: Seed = Field(default=0, description="of the sample, the random map, the random weights and the bootstrap")
    resamples: int = Field(default=2000, ge=1, le=100_000, description="of the bootstrap")
    data: ListedFilms = ListedFilms()
    side: OneSide = None
    film: AskedFilm = "auto"
    device: AskedDevice = "auto"
    precision: AskedPrecision = "auto"
    batch_size: BatchSize = None
