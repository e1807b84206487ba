"""What a checkpoint or an export says of itself: untrusted, and checked before anything is built from it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from legradnet.errors import UserError
from legradnet.grading.calibration import Calibration
from legradnet.grading.film_check import FilmCheck
from legradnet.settings import Model, Settings, checked

_MOST_VALUES = 100_000  # of all that a file says of itself
_DEEPEST = 8  # groups in groups
_LONGEST = 100_000  # characters of a text

Count = Annotated[int, Field(ge=0)]
Versions = dict[str, str | int | None]


class FalseReferrals(Settings):
    """How many validation films would be referred for their look."""

    films: int = Field(ge=1)
    referred: Count

    @model_validator(mode="after")
    def _refers_what_was_there(self) -> "FalseReferrals":
        if self.referred > self.films:
            raise ValueError(f"{self.referred} of {self.films} validation films can't have been referred")
        return self


class TrainingFilms(Settings):
    """Films of each grade in every split."""

    source: str
    films: dict[str, list[Count]]


class Learned(Settings):
    """What training found out beside the weights; calibration and film check stand apart in an export."""

    calibration: Calibration | None = None
    film_check: FilmCheck | None = None
    false_referrals: FalseReferrals | None = None
    data: TrainingFilms | None = None
    versions: Versions = Field(default_factory=dict)


def read_metadata(model: type[Model], values: Any, path: str | Path) -> Model:
    """What `values`, read from the file at `path`, say, as a model.

    Raises:
        UserError: They are not plain, are too many, or don't fit the model: every mistake, after the file's name.
    """
    title = f"{path} is damaged, or of another version of LegRadNet:"
    try:
        plain = _plain(values, iter(range(_MOST_VALUES)))
    except ValueError as error:
        raise UserError(f"{title}\n  {error}") from None
    return checked(model, plain, title=title)


def _plain(value: Any, budget: Iterator[int], place: tuple[str, ...] = ()) -> Any:
    """`value` if it is made of texts, numbers, lists and groups alone; tuples become lists."""
    name = ".".join(place) or "what it says of itself"
    if next(budget, None) is None:
        raise ValueError(f"it says more than {_MOST_VALUES:,} things of itself")
    if len(place) > _DEEPEST:
        raise ValueError(f"{name} is more than {_DEEPEST} groups deep")
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if value.bit_length() > 63:
            raise ValueError(f"{name} is a number of {value.bit_length()} bits")
        return value
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError(f"{name} is a text of {len(value):,} characters")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, budget, (*place, str(i))) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str) or len(key) > 200]:
            raise ValueError(f"{name} has a key of {type(odd[0]).__name__} that is no short text")
        return {key: _plain(item, budget, (*place, key)) for key, item in value.items()}
    raise ValueError(f"{name} is a {type(value).__name__}")
