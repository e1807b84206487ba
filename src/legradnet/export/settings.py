"""Settings of `legradnet-export`."""

from typing import Annotated

from pydantic import AfterValidator, Field

from legradnet.evaluation.settings import MeasuredFilms, MeasuredSplit
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.settings import AskedFilm
from legradnet.models.named import SHIPPED, CheckpointText
from legradnet.settings import PathText, Seed, Settings

MODEL = "model"  # a folder of weights and settings, which any machine with LegRadNet computes as it does a checkpoint
HUB = "hub"  # such a folder with the model's card
_FORMATS = (*RUNTIMES, MODEL, HUB)
_FORMATS_OF = {
    precision: [name for name, runtime in RUNTIMES.items() if precision in runtime.precisions]
    for precision in dict.fromkeys(precision for runtime in RUNTIMES.values() for precision in runtime.precisions)
}


def _known_format(name: str) -> str:
    if name not in _FORMATS:
        raise ValueError(f"must be one of {', '.join(_FORMATS)}")
    return name


def _known(precision: str) -> str:
    if precision not in _FORMATS_OF:
        raise ValueError(f"must be one of {', '.join(_FORMATS_OF)}")
    return precision


def _in_words(precision: str, formats: list[str]) -> str:
    return precision if len(formats) == len(RUNTIMES) else f"{precision} ({', '.join(formats)} only)"


class ExportSettings(Settings):
    """`conf/export.yaml`."""

    data: MeasuredFilms = MeasuredFilms()
    checkpoint: CheckpointText = Field(
        default=SHIPPED, description=f"{SHIPPED} = the shipped model, or a checkpoint, a model folder"
    )
    output: PathText = Field(description="a folder that is new or empty")
    format: Annotated[str, AfterValidator(_known_format)] = Field(
        default="openvino",
        description=f"{', '.join(RUNTIMES)}; {MODEL} = a folder that is taken wherever a checkpoint is, half as large; "
        f"{HUB} = the same with the model's card, as model hubs show it",
    )
    precision: Annotated[str, AfterValidator(_known)] = Field(
        default="f32", description=", ".join(_in_words(*choice) for choice in _FORMATS_OF.items())
    )
    film: AskedFilm = "auto"
    split: MeasuredSplit = Field(
        default="val", description="films to calibrate 8 bits, to compare and to measure on: train, val, test, all"
    )
    evaluation: PathText | None = Field(
        default=None,
        description="run folder of `legradnet-evaluate` whose numbers the card tells (`format=hub`); null = what lies "
        "beside a shipped model, else the model is measured on its films",
    )
    facts: PathText | None = Field(
        default=None, description="a file of facts for the card (`format=hub`), as in `legradnet-evaluate`"
    )
    max_qwk_drop: Annotated[float, Field(ge=0, le=2)] | None = Field(
        default=0.01, description="refuse an export whose QWK is lower by more than this; null = none is refused"
    )
    seed: Seed = Field(default=0, description="of generated knees (`data=synthetic`)")
