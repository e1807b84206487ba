"""What predictions say of a film, and their table `predictions.csv`, written and read."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.grades import Floats, Ints
from legradnet.grading.grading import Grading, NotGraded
from legradnet.localise.knees import Box
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
        **({"film": dict(grading.measures)} if grading.measures else {}),
        **({} if grading.distance is None else {"distance": round(grading.distance, _DIGITS)}),
        **({"patient": inert(film.patient)} if film.patient else {}),
    }


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

    def write(self, path: Path, records: Iterable[Record]) -> None:
        """Write the whole table, a line after the other."""
        with written_whole(path) as file:
            file.write(self.header().encode())
            for film in records:
                file.write(self.rows([film]).encode())

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
