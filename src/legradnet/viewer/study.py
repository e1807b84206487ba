"""Numbers of a reading: how readers agree with each other and with the model, before and after they saw its answer."""

from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from legradnet.statistics.bootstrap import bootstrap, patient_numbers, percentile_interval
from legradnet.statistics.metrics import confusions, quadratic_weighted_kappa
from legradnet.viewer.journal import Journal, Mark
from legradnet.viewer.worklist import Row

RESAMPLES = 2000
CONFIDENCE = 0.95


def summary(rows: Sequence[Row], journal: Journal, reader: str, readers: Sequence[str], *, classes: int, blind: bool,
            seed: int) -> dict[str, Any]:  # fmt: skip
    """What the page of the study says to a reader.

    In a blind study a reader hears of the others when every film that can be read has a mark of their own.

    Args:
        rows: All knees.
        journal: All marks.
        reader: Who asks.
        readers: All of them.
        classes: Grades K.
        blind: Whether this is a blind study.
        seed: Of the bootstrap.
    """
    rows = [row for row in rows if row.status != "error"]
    known = [row for row in rows if row.digest]
    marked = sum(journal.current(reader, row.key) is not None for row in known)
    is_finished = bool(rows) and marked == len(rows)
    seen = readers if is_finished or not blind else [reader]
    marks = {name: _standing(known, journal, name) for name in readers}
    patients = _patients(rows)
    pairs = [(first, second) for i, first in enumerate(seen) for second in seen[i + 1 :]]
    model = {row.number: row.grade for row in rows if row.grade is not None}
    if blind:  # what is held back of one film is held back of all their sum too
        own = marks[reader]
        model = {number: grade for number, grade in model.items() if is_finished or number in own}
    agreement = Agreement(patients, classes, seed)
    waiting = "In a blind study the others' numbers are there when you have marked every film."
    return {
        "films": len(rows),
        "marked": marked,
        "finished": is_finished,
        "waiting": waiting if blind and len(readers) > 1 and not is_finished else "",
        "resamples": RESAMPLES,
        "confidence": CONFIDENCE,
        "readers": [
            {"first": first, "second": second, **agreement.of(_last(marks[first]), _last(marks[second]))}
            for first, second in pairs
        ],
        "model": [
            {"reader": name, "when": when, **agreement.of(grades(marks[name]), model)}
            for name in seen
            for when, grades in (("before", _before), ("after", _last))
        ],
        "changed": [{"reader": name, **_changed(marks[name], model)} for name in seen],
        "pace": [{"reader": name, **_pace(marks[name])} for name in seen],
    }


def _standing(rows: Sequence[Row], journal: Journal, reader: str) -> dict[int, list[Mark]]:
    """{number of a row: its marks that were not taken back, the first first}."""
    every = ((row.number, journal.standing(reader, row.key)) for row in rows)
    return {number: marks for number, marks in every if marks}


def _last(marks: dict[int, list[Mark]]) -> dict[int, int]:
    return {number: own[-1].grade for number, own in marks.items() if own[-1].grade is not None}


def _before(marks: dict[int, list[Mark]]) -> dict[int, int]:
    firsts = ((number, own[0]) for number, own in marks.items())
    return {number: first.grade for number, first in firsts if not first.shown and first.grade is not None}


def _changed(marks: dict[int, list[Mark]], model: dict[int, int]) -> dict[str, int]:
    before, after = _before(marks), _last(marks)
    both = [number for number in before if number in after]
    changed = [number for number in both if before[number] != after[number]]
    nearer = sum(
        abs(after[number] - model[number]) < abs(before[number] - model[number])
        for number in changed
        if number in model
    )
    return {"films": len(both), "changed": len(changed), "towards": nearer}


def _pace(marks: dict[int, list[Mark]]) -> dict[str, float | int | None]:
    minutes = [sum(mark.seconds for mark in own) / 60 for own in marks.values()]
    if not minutes:
        return {"films": 0, "minutes": None, "median": None}
    return {"films": len(minutes), "minutes": sum(minutes) / len(minutes), "median": median(minutes)}


def _patients(rows: Sequence[Row]) -> dict[int, str]:
    """A name for each row's patient; knees of one film have one, and a film without a patient is one of its own."""
    return {
        row.number: f"p{row.patient}" if row.patient is not None else f"f{row.film.filename}" for row in rows
    }  # fmt: skip


class Agreement:
    """Agreement of grades, with intervals from resampling patients.

    Args:
        patients: {number of a row: its patient}.
        classes: Grades K.
        seed: Of the bootstrap.
    """

    def __init__(self, patients: dict[int, str], classes: int, seed: int) -> None:
        self.patients, self.classes, self.seed = patients, classes, seed

    def of(self, first: dict[int, int], second: dict[int, int]) -> dict[str, float | int | None]:
        """Quadratic weighted kappa with its interval, and share of equal grades, of what both have graded."""
        numbers = [number for number in first if number in second and number in self.patients]
        if not numbers:
            return {"films": 0, "qwk": None, "low": None, "high": None, "agreement": None}
        given = np.array([[grades[number] for number in numbers] for grades in (first, second)])
        patients = patient_numbers([self.patients[number] for number in numbers])

        def kappa(weights: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, Any]:
            return {"qwk": quadratic_weighted_kappa(confusions(weights, given[0], given[1], self.classes))}

        values = bootstrap(kappa, patients, resamples=RESAMPLES, seed=self.seed)["qwk"]
        low, high = percentile_interval(values, CONFIDENCE)
        whole = kappa(np.ones((1, len(numbers))))["qwk"][0]
        agreement = float((given[0] == given[1]).mean())
        ends = {"qwk": _number(whole), "low": _number(low), "high": _number(high)}
        return {"films": len(numbers), **ends, "agreement": agreement}


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
