"""The format of `predictions.csv` and `predictions.jsonl`, written and read."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.errors import UserError
from legradnet.grades import Floats, Ints
from legradnet.grading.grading import Grading

if TYPE_CHECKING:
    import pandas as pd

_DIGITS = 6
Record = dict[str, Any]


def record(film: InputFilm, grading: Grading | ImageError) -> Record:
    """One film's line of `predictions.jsonl`."""
    name = inert(film.filename)
    if isinstance(grading, ImageError):
        place = f"{film.film}: " if isinstance(film.film, Path) else ""
        return {"filename": name, "label": film.label, "error": inert(str(grading).removeprefix(place))}
    return {
        "filename": name,
        "label": film.label,
        "grade": grading.grade,
        "probabilities": [round(float(p), _DIGITS) for p in grading.probabilities],
        "expected_grade": round(grading.expected_grade, _DIGITS),
        "prediction_set": list(grading.prediction_set),
        "referred": grading.referred,
        "reason": grading.reason,
        "gate_weights": {key: round(weight, _DIGITS) for key, weight in grading.gate_weights.items()},
        "error": None,
    }


class PredictionsTable:
    """The columns of `predictions.csv`, and its rows as text.

    Args:
        classes: K, for `p0..p{K-1}`.
        backbones: For `gate_<key>`.
        labelled: Whether there is a column `label`.
        others: Columns after it, which are no part of a `record`.
    """

    def __init__(self, classes: int, backbones: Sequence[str], labelled: bool, others: Sequence[str] = ()) -> None:
        self.backbones = backbones
        self.classes = classes
        self.given = [*(["label"] if labelled else []), *others]

    def header(self) -> str:
        """The first line."""
        grades = ["grade", *(f"p{k}" for k in range(self.classes)), "expected_grade", "prediction_set"]
        gates = [f"gate_{key}" for key in self.backbones]
        return _csv_line(["filename", *self.given, *grades, "referred", "reason", *gates, "error"])

    def rows(self, records: Iterable[Record]) -> str:
        """A line for each record."""
        return "".join(_csv_line(self._cells(film)) for film in records)

    def _cells(self, film: Record) -> list[Any]:
        given = [film[name] for name in self.given]
        if film["error"] is not None:
            empty = [None] * (self.classes + len(self.backbones) + 5)
            return [film["filename"], *given, *empty, film["error"]]
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


def json_lines(records: Iterable[Record]) -> str:
    """A line of `predictions.jsonl` for each record."""
    return "".join(json.dumps(film, ensure_ascii=False) + "\n" for film in records)


def read_json_lines(path: Path) -> list[Record]:
    """The records of a `predictions.jsonl`; a last line that a kill cut off is none."""
    whole = path.read_bytes().rpartition(b"\n")[0].decode()
    return [json.loads(line) for line in whole.split("\n") if line]


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
    import pandas as pd  # late: grading films needs no tables

    if not path.is_file():
        raise UserError(f"There is no predictions.csv at {path}.")
    table = pd.read_csv(path, dtype={"filename": str, "patient": str, "side": str, "error": str}, keep_default_na=True)
    if "label" not in table:
        table["label"] = np.nan
    table = table[table["grade"].notna() & (table["label"].notna() | (not labelled))].reset_index(drop=True)
    if table.empty:
        raise UserError(f"{path} has no {'labelled' if labelled else 'graded'} film.")
    for name in ("patient", "side"):
        table[name] = table[name].fillna("") if name in table else ""
    gates = list(table.filter(regex="^gate_"))
    sets = None
    if table["prediction_set"].notna().all():
        grades = table["prediction_set"].astype(str).str.split()
        sets = np.array([[int(float(cell[0])), int(float(cell[-1]))] for cell in grades])
    return Predictions(
        table=table,
        grades=table["grade"].to_numpy(np.int64),
        probabilities=table.filter(regex=r"^p\d+$").to_numpy(np.float64),
        sets=sets,
        referred=table["referred"].astype(str).str.lower().eq("true").to_numpy(),
        reasons=table["reason"].fillna("").astype(str).tolist(),
        gate_weights=table[gates].to_numpy(np.float64) if gates else None,
        backbones=tuple(str(name).removeprefix("gate_") for name in gates),
    )


def inert(text: str) -> str:
    """A user's text so that no table program runs it as a formula, and every program can read it.

    A name that begins like a formula gets "./" in front, which as a path means the same.
    """
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace").decode()
    return f"./{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def inert_id(text: str) -> str:
    """As `inert`, of a text that is no path: the quotation mark in front makes it text to a table program."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
