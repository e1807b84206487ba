"""Settings of `legradnet-benchmark`."""

from collections.abc import Callable
from typing import Annotated, Any, get_args

from pydantic import BeforeValidator, Field

from legradnet.data.augment import AugmentSettings
from legradnet.data.settings import DataSettings
from legradnet.grading.settings import ONE_MODEL, AskedDevice
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.network.backbones import Backbones, TrunkPrecision
from legradnet.network.ensemble import ShapeSettings
from legradnet.network.gating import GatingSettings, MhaSettings
from legradnet.settings import Seed, Settings

PRECISIONS = get_args(TrunkPrecision)
_WORKERS = range(257)


def _some_of(choices: Any, words: str) -> Callable[[Any], Any]:
    """Take null, or a list of some of `choices`, each once."""

    def check(values: Any) -> Any:
        if values is None:
            return None
        if not isinstance(values, list) or not values or any(isinstance(v, bool) or v not in choices for v in values):
            raise ValueError(f"must be null or a list {words}, such as '[{choices[0]},{choices[1]}]'")
        return list(dict.fromkeys(values))

    return check


class BenchmarkSettings(Settings):
    """`conf/benchmark.yaml`."""

    backbone: Backbones
    gating: GatingSettings = MhaSettings()
    data: DataSettings = DataSettings(count=128)
    augment: AugmentSettings = AugmentSettings()
    model: ShapeSettings = ShapeSettings()
    seconds: float = Field(
        default=2.0,
        ge=0.01,
        le=3600,
        description="how long each figure is measured; at least one step, after one that warms up",
    )
    device: AskedDevice = "auto"
    precisions: Annotated[
        list[TrunkPrecision] | None, BeforeValidator(_some_of(PRECISIONS, f"of {', '.join(PRECISIONS)}"))
    ] = Field(default=None, description="a list of f32, bf16; null = f32, and bf16 where it is native")
    workers: Annotated[
        list[int] | None, BeforeValidator(_some_of(_WORKERS, f"from {_WORKERS[0]} to {_WORKERS[-1]}"))
    ] = Field(
        default=None, description="a list of numbers of reading processes to try; null = 0, 1, 2, 4, 8 up to the cores"
    )
    largest_batch: int = Field(default=256, ge=1, le=2**20, description="where the search for the largest batch ends")
    compile: bool = Field(default=False, description="measure the ensemble with compiled trunks too")
    archive: Annotated[float, Field(ge=1, le=1e12)] | None = Field(
        default=None, description="in place of all else: say what grading so many films takes, such as `1e6`"
    )
    checkpoint: CheckpointText | list[CheckpointText] = Field(
        default=SHIPPED, description=f"{ONE_MODEL}, to grade the archive by; of a list each is measured alone"
    )
    seed: Seed = Field(default=0, description="of the generated films")
