"""What `export.json` says of an export."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from legradnet.data.film import Fit
from legradnet.data.settings import FilmSettings, GradedPixels
from legradnet.grades import Rule
from legradnet.grading.calibration import Calibration
from legradnet.grading.distance import Distance
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.metadata import Learned
from legradnet.grading.runtimes import RUNTIMES
from legradnet.models.described import Count, Versions
from legradnet.settings import Settings


def _known(name: str) -> str:
    if name not in RUNTIMES:
        raise ValueError(f"must be one of {', '.join(sorted(RUNTIMES))}")
    return name


Format = Annotated[str, AfterValidator(_known)]


class ExportedFilms(FilmSettings):
    """How films reach the graph."""

    image_size: GradedPixels
    fit: Fit
    mirror_left: bool
    input: str = ""


class ExportDescription(Settings):
    """The whole of it. `settings`, which grading needs nothing of, are checked in full by who uses them."""

    legradnet_export: Literal[1]
    format: Format
    precision: str
    classes: int = Field(ge=2, le=1000)
    class_names: list[str]
    backbones: list[str] = Field(min_length=1, max_length=1000)
    weighs: bool
    films: ExportedFilms
    outputs: dict[str, str] = Field(default_factory=dict)
    rule: Rule
    batch_size: int = Field(ge=1, le=10**6)
    calibration: Calibration
    film_check: FilmCheck | None
    distance: Distance | None = None  # older exports have none
    settings: dict[str, Any]
    learned: Learned
    parameters: Count
    digests: dict[str, str]
    made_with: Versions = Field(default_factory=dict)
    largest_difference: float | None = None
    quality: dict[str, float | str | bool | None] | None = None
    digest: str | None = None  # of all the rest; older exports have none

    @model_validator(mode="after")
    def _fits_together(self) -> "ExportDescription":
        runtime = RUNTIMES[self.format]
        if self.precision not in runtime.precisions:
            raise ValueError(f"precision={self.precision} must be one of {', '.join(runtime.precisions)}")
        if self.digests.keys() != set(runtime.files):
            raise ValueError(f"digests must be of {', '.join(runtime.files)}, and of nothing else")
        if len(self.class_names) != self.classes:
            raise ValueError(f"there are {len(self.class_names)} class_names for {self.classes} classes")
        if len(set(self.backbones)) < len(self.backbones):
            raise ValueError("there are backbones of the same name")
        self.calibration.check_fits(self.rule, self.classes)
        return self
