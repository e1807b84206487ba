"""The format of `predictions.csv` and `predictions.jsonl`, written and read."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, RootModel, ValidationError

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grades import Floats, Ints
from legradnet.grading.grading import Grading, NotGraded
from legradnet.localise.knees import Box
from legradnet.settings import Settings
from legradnet.tables import inert, read_own, table_line

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = 6
_NUMBERS = re.compile(r"label|grade|p\d+|expected_grade|gate_.*")  # columns
_READ = ("filename", "grade", "prediction_set", "referred", "reason")
Record = dict[str, Any]
KNEE, BOX = "knee", "box"  # keys and columns of whole films
KNEES = "knees"  # key: how many records a film with several has


def records(film: InputFilm, knees: Sequence[Grading | NotGraded | ImageError]) -> list[Record]:
    """The lines of `predictions.jsonl` for one film: one, or one for each knee of a whole film.

    A label that is not said to be of one knee is that of none where there are two.
    """
    if len(knees) == 1:
        return [record(film, knees[0])]
    film = replace(film, label=None)
    return [{**record(film, knee), KNEES: len(knees)} for knee in knees]


def record(film: InputFilm, grading: Grading | NotGraded | ImageError) -> Record:
    """One film's line of `predictions.jsonl`, or one knee's."""
    which: Record = {"filename": inert(film.filename)}
    knee = None if isinstance(grading, ImageError) else grading.knee
    if knee is not None or film.knee:
        which |= {KNEE: knee.side if knee else film.knee, BOX: list(knee.box) if knee and knee.box else None}
    which["label"] = film.label
    if isinstance(grading, ImageError):
        place = f"{film.film}: " if isinstance(film.film, Path) else ""
        return {**which, "error": inert(str(grading).removeprefix(place))}
    if isinstance(grading, NotGraded):
        nothing = dict.fromkeys(("grade", "probabilities", "expected_grade", "prediction_set"))
        return {**which, **nothing, "referred": True, "reason": grading.reason, "gate_weights": None, "error": None}
    return {
        **which,
        "grade": grading.grade,
        "probabilities": [round(float(p), _DIGITS) for p in grading.probabilities],
        "expected_grade": round(grading.expected_grade, _DIGITS),
        "prediction_set": list(grading.prediction_set),
        "referred": grading.referred,
        "reason": grading.reason,
        "gate_weights": {key: round(weight, _DIGITS) for key, weight in grading.gate_weights.items()},
        "error": None,
    }


def by_film(records: Sequence[Record]) -> list[list[Record]]:
    """Records in their order, those of one film together; a last film that lacks a knee is left out."""
    films, start = [], 0
    while start < len(records):
        end = start + records[start].get(KNEES, 1)
        if end > len(records):
            break
        films.append([*records[start:end]])
        start = end
    return films


class PredictionsTable:
    """The columns of `predictions.csv`, and its rows as text.

    Args:
        classes: K, for `p0..p{K-1}`.
        backbones: For `gate_<key>`.
        labelled: Whether there is a column `label`.
        others: Columns after it, which are no part of a `record`.
        whole: Whether there are columns `knee` and `box`.
    """

    def __init__(
        self, classes: int, backbones: Sequence[str], labelled: bool, others: Sequence[str] = (), *, whole: bool = False
    ) -> None:
        self.backbones = backbones
        self.classes = classes
        self.whole = whole
        self.given = [*([KNEE, BOX] if whole else []), *(["label"] if labelled else []), *others]
        grades = ["grade", *(f"p{k}" for k in range(classes)), "expected_grade", "prediction_set"]
        gates = [f"gate_{key}" for key in backbones]
        self.columns = ["filename", *self.given, *grades, "referred", "reason", *gates, "error"]

    def header(self) -> str:
        """The first line."""
        return table_line(self.columns)

    def rows(self, records: Iterable[Record]) -> str:
        """A line for each record."""
        return "".join(table_line(self._cells(film), self.columns) for film in records)

    def _cells(self, film: Record) -> list[Any]:
        given = [_box(film.get(BOX)) if name == BOX else film.get(name) for name in self.given]
        if film["error"] is not None:
            empty = [None] * (self.classes + len(self.backbones) + 5)
            return [film["filename"], *given, *empty, film["error"]]
        if film["grade"] is None:
            left = [film["filename"], *given, *[None] * (self.classes + 3), "true", film["reason"]]
            return [*left, *[None] * len(self.backbones), None]
        gates = [film["gate_weights"].get(key) for key in self.backbones]
        return [
            film["filename"],
            *given,
            film["grade"],
            *film["probabilities"],
            film["expected_grade"],
            " ".join(map(str, film["prediction_set"])),
            str(film["referred"]).lower(),
            film["reason"],
            *gates,
            None,
        ]


def _box(numbers: Sequence[int] | None) -> Box | None:  # no text, which would be made inert where it begins with -
    return Box(*numbers) if numbers else None


def json_lines(records: Iterable[Record]) -> str:
    """A line of `predictions.jsonl` for each record."""
    return "".join(json.dumps(film, ensure_ascii=False) + "\n" for film in records)


def read_json_lines(path: Path) -> list[Record]:
    """The records of a `predictions.jsonl`; a last line that a kill cut off is none.

    Raises:
        UserError: Another line is no record, or has numbers that are not finite, which older releases took for a grade.
    """

    def refused(number: str) -> None:
        raise UserError(f"{path} has grades of a network that answered {number}: start again in another folder.")

    records = []
    for number, line in enumerate(path.read_bytes().rpartition(b"\n")[0].split(b"\n"), start=1):
        if line:
            try:
                records.append(json.loads(line, parse_constant=refused))
                _Record.model_validate(records[-1])
            except (json.JSONDecodeError, UnicodeError, ValidationError, RecursionError):
                raise UserError(
                    f"{path} is damaged: line {number} is no record of a film. Start again in another hydra.run.dir=."
                ) from None
    return records


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


@dataclass(frozen=True)
class Predictions:
    """Graded films: N films, K grades, B backbones.

    Attributes:
        table: One row a film: `filename`, `label` (NaN where unknown), `patient` and `side` ("" where unknown), and
            whatever other columns the films' CSV has.
        grades: The grade given to each film [N].
        probabilities: Calibrated probabilities [N, K].
        sets: Lowest and highest grade of each prediction set [N, 2]; None where a film has none.
        referred: Whether the film was referred to a reader [N].
        reasons: Why, and remarks, "" where there is nothing to say [N].
        gate_weights: [N, B], each row sums to 1; None where a gate gives none.
        backbones: Their keys, in the order of the gate's weights.
    """

    table: "pd.DataFrame"
    grades: Ints
    probabilities: Floats
    sets: Ints | None
    referred: npt.NDArray[np.bool_]
    reasons: list[str]
    gate_weights: Floats | None
    backbones: tuple[str, ...]


def read_predictions(path: Path, *, labelled: bool = False) -> Predictions:
    """Read a `predictions.csv`; films with an error are left out, and with `labelled` those without a label.

    Raises:
        UserError: No such file, or no such film in it.
    """
    if not path.is_file():
        raise UserError(f"There is no predictions.csv at {path}.")
    table = _columns(path)
    if "label" not in table:
        table["label"] = np.nan
    table = table[table["grade"].notna() & (table["label"].notna() | (not labelled))].reset_index(drop=True)
    if table.empty:
        raise UserError(f"{path} has no {'labelled' if labelled else 'graded'} film.")
    probabilities = table.filter(regex=r"^p\d+$").to_numpy(np.float64)
    if odd := np.flatnonzero(~np.isfinite(probabilities).all(axis=1)).tolist():
        raise UserError(f"{path}: {len(odd)} films, {table['filename'][odd[0]]} first, have a grade and probabilities "
                        "that are not finite: grade them again.")  # fmt: skip
    for name in ("patient", "side"):
        table[name] = table[name].fillna("") if name in table else ""
    gates = list(table.filter(regex="^gate_"))
    sets = None
    if table["prediction_set"].notna().all():
        grades = table["prediction_set"].str.split()
        sets = np.array([[int(cell[0]), int(cell[-1])] for cell in grades])
    return Predictions(
        table=table,
        grades=table["grade"].to_numpy(np.int64),
        probabilities=probabilities,
        sets=sets,
        referred=table["referred"].str.lower().eq("true").to_numpy(),
        reasons=table["reason"].fillna("").tolist(),
        gate_weights=table[gates].to_numpy(np.float64) if gates else None,
        backbones=tuple(str(name).removeprefix("gate_") for name in gates),
    )


def _columns(path: Path) -> "pd.DataFrame":
    """The columns of a `predictions.csv`: numbers as such, other cells as text, empty ones as NaN."""
    import pandas as pd  # late: grading films needs no tables

    read = read_own(path, _READ)
    return pd.DataFrame(
        {
            name: read.numbers_of(name)
            if _NUMBERS.fullmatch(name)
            else pd.Series([cell or np.nan for cell in read.column(name)], dtype=object)
            for name in read.header
        }
    )
