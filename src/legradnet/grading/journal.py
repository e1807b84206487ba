"""`predictions.jsonl`: the journal that grows while films are graded, and is read one record after the other."""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, RootModel, ValidationError

from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grading.predictions import KNEES, Record
from legradnet.settings import Settings


def json_lines(records: Iterable[Record]) -> str:
    """A line of `predictions.jsonl` for each record."""
    return "".join(json.dumps(film, ensure_ascii=False) + "\n" for film in records)


def read_json_lines(path: Path) -> Iterator[Record]:
    """The records of a `predictions.jsonl`, one after the other; a last line that a kill cut off is none.

    Raises:
        UserError: Another line is no record, or has numbers that are not finite, which older releases took for a grade.
    """

    def refused(number: str) -> None:
        raise UserError(f"{path} has grades of a network that answered {number}: start again in another folder.")

    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            if line == b"\n":
                continue
            try:
                record = json.loads(line, parse_constant=refused)
                _Record.model_validate(record)
            except (json.JSONDecodeError, UnicodeError, ValidationError, RecursionError):
                raise UserError(
                    f"{path} is damaged: line {number} is no record of a film. Name a predictions.jsonl of "
                    "legradnet-predict; where that is to be gone on with, start again in another hydra.run.dir=."
                ) from None
            yield record


def by_film(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in their order, those of one film together; a last film that lacks a knee is left out."""
    rest = iter(records)
    for first in rest:
        film = [first, *islice(rest, first.get(KNEES, 1) - 1)]
        if len(film) == first.get(KNEES, 1):
            yield film


_Square = Annotated[list[int], Field(min_length=3, max_length=3)]


class _Graded(Settings):
    """What a line says of a film that was graded, with whatever else."""

    model_config = ConfigDict(extra="allow")
    filename: str
    knee: Side = ""
    box: _Square | None = None
    knees: int = Field(default=1, ge=1, le=2)
    label: int | None
    grade: int
    probabilities: list[float]
    expected_grade: float
    prediction_set: list[int]
    referred: bool
    reason: str
    gate_weights: dict[str, float]
    error: None


class _Unreadable(Settings):
    """What a line says of a film that could not be read."""

    model_config = ConfigDict(extra="allow")
    filename: str
    knees: int = Field(default=1, ge=1, le=2)
    label: int | None
    error: str


class _Left(Settings):
    """What a line says of a knee that was not graded, or of a film without one."""

    model_config = ConfigDict(extra="allow")
    filename: str
    label: int | None
    knee: Side
    box: _Square | None
    knees: int = Field(default=1, ge=1, le=2)
    grade: None
    referred: bool
    reason: str
    error: None


class _Record(RootModel[_Graded | _Unreadable | _Left]):
    """A line of `predictions.jsonl`."""
