"""The format of `predictions.csv` and `predictions.jsonl`."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.grading.grading import Grading

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
        others: Columns after it.
    """

    def __init__(self, classes: int, backbones: Sequence[str], labelled: bool, others: Sequence[str] = ()) -> None:
        self.backbones = backbones
        self.classes = classes
        self.known = [*(["label"] if labelled else []), *others]

    def header(self) -> str:
        """The first line."""
        grades = ["grade", *(f"p{k}" for k in range(self.classes)), "expected_grade", "prediction_set"]
        gates = [f"gate_{key}" for key in self.backbones]
        return _csv_line(["filename", *self.known, *grades, "referred", "reason", *gates, "error"])

    def rows(self, records: Iterable[Record]) -> str:
        """A line for each record."""
        return "".join(_csv_line(self._cells(each)) for each in records)

    def _cells(self, each: Record) -> list[Any]:
        known = [each[name] for name in self.known]
        if each["error"] is not None:
            empty = [None] * (self.classes + len(self.backbones) + 5)
            return [each["filename"], *known, *empty, each["error"]]
        gates = [each["gate_weights"].get(key) for key in self.backbones]
        return [
            each["filename"],
            *known,
            each["grade"],
            *each["probabilities"],
            each["expected_grade"],
            " ".join(map(str, each["prediction_set"])),
            str(each["referred"]).lower(),
            each["reason"],
            *gates,
            None,
        ]


def inert(text: str) -> str:
    """A user's text so that no table program runs it as a formula, and every program can read it.

    A name that begins like a formula gets "./" in front, which as a path means the same.
    """
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace").decode()
    return f"./{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
