"""Graded films beside their true grades: what every number and figure of an evaluation is made from."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from legradnet.data.inputs import InputFilm
from legradnet.grades import Floats, Ints
from legradnet.grading.grading import Grading, Knee, NotGraded
from legradnet.grading.predictions import (
    BOX,
    KNEE,
    Predictions,
    PredictionsTable,
    Record,
    read_predictions,
    record,
)
from legradnet.localise.knees import Box
from legradnet.statistics.bootstrap import patient_numbers
from legradnet.statistics.metrics import WeightedFilms, covered


@dataclass(frozen=True)
class Graded(Predictions):
    """Predictions of N films whose true grades, in the table's column `label`, are known.

    Attributes:
        raw: Uncalibrated probabilities [N, K]; equal to `probabilities` where nothing was calibrated.
    """

    raw: Floats

    def __len__(self) -> int:
        return len(self.table)

    @property
    def classes(self) -> int:
        """K."""
        return self.probabilities.shape[1]

    @cached_property
    def labels(self) -> Ints:
        """The true grades [N]."""
        return self.table["label"].to_numpy(np.int64)

    @cached_property
    def patients(self) -> Ints:
        """Number of each film's patient [N], from 0; a film without one is a patient of its own."""
        return patient_numbers(self.table["patient"].astype(str).tolist())

    @cached_property
    def names(self) -> list[str]:
        """What each film is called [N], of a whole one with its knee: no two are called the same."""
        films = self.table["filename"].astype(str).tolist()
        knees = self.table[KNEE].fillna("").tolist() if KNEE in self.table else [""] * len(films)
        return [f"{film} ({knee})" if knee else film for film, knee in zip(films, knees, strict=True)]

    @property
    def confidence(self) -> Floats:
        """Calibrated probability of the grade given [N]."""
        return self.probabilities[np.arange(len(self)), self.grades]

    @property
    def covered(self) -> npt.NDArray[np.bool_] | None:
        """Whether the prediction set holds the true grade [N]."""
        return None if self.sets is None else covered(self.sets, self.labels)

    def weighted(self, weights: Floats, threshold: float = 0.5) -> WeightedFilms:
        """The films as metrics take them, each as often as `weights` [R, N] say; called KL >= 2 from `threshold` on."""
        return WeightedFilms(
            weights, self.labels, self.grades, self.probabilities, self.raw, self.sets, self.referred, threshold
        )

    def subset(self, chosen: npt.NDArray[np.bool_]) -> "Graded":
        """The films where `chosen` [N] is true."""
        return replace(
            self,
            table=self.table[chosen].reset_index(drop=True),
            grades=self.grades[chosen],
            probabilities=self.probabilities[chosen],
            raw=self.raw[chosen],
            sets=None if self.sets is None else self.sets[chosen],
            referred=self.referred[chosen],
            reasons=[reason for reason, kept in zip(self.reasons, chosen, strict=True) if kept],
            gate_weights=None if self.gate_weights is None else self.gate_weights[chosen],
        )


def read_graded(csv: str | Path) -> Graded:
    """Read the `predictions.csv` of an evaluation; rows without a label or with an error are left out.

    Raises:
        UserError: No such file, or no labelled film in it.
    """
    read = read_predictions(Path(csv), labelled=True)
    table = read.table.assign(label=read.table["label"].astype("int64"))
    return Graded(**{**vars(read), "table": table}, raw=read.probabilities)


def graded_films(table: pd.DataFrame, gradings: Sequence[Grading], backbones: Sequence[str]) -> Graded:
    """What a grader says of the films of a table, a row each, as one."""
    sets = [(film.prediction_set[0], film.prediction_set[-1]) for film in gradings if film.prediction_set]
    gates = [[film.gate_weights[key] for key in backbones] for film in gradings if film.gate_weights]
    return Graded(
        table=table,
        grades=np.array([film.grade for film in gradings]),
        probabilities=np.stack([film.probabilities for film in gradings]),
        raw=np.stack([film.raw for film in gradings]),
        sets=np.array(sets) if sets else None,
        referred=np.array([film.referred for film in gradings]),
        reasons=[film.reason for film in gradings],
        gate_weights=np.array(gates) if gates else None,
        backbones=tuple(backbones),
    )


class Left(NamedTuple):
    """A knee without a grade: how many that have one stand before it, its row of the table, and why."""

    place: int
    film: Mapping[Hashable, Any]
    answer: NotGraded


def predictions_text(graded: Graded, left: Sequence[Left] = ()) -> str:
    """`predictions.csv` of labelled films, with patient and side; those without a grade at their places."""
    weighed = () if graded.gate_weights is None else graded.backbones
    whole = BOX in graded.table
    table = PredictionsTable(graded.classes, weighed, labelled=True, others=("patient", "side"), whole=whole)
    columns = np.arange(graded.classes)
    waiting = list(left)
    rows = []
    for i, film in enumerate(graded.table.to_dict("records")):
        while waiting and waiting[0].place == i:
            rows.append(_row(waiting[0].film, waiting.pop(0).answer))
        gates = {} if graded.gate_weights is None else dict(zip(graded.backbones, graded.gate_weights[i], strict=True))
        grading = Grading(
            grade=int(graded.grades[i]),
            probabilities=graded.probabilities[i],
            expected_grade=float(graded.probabilities[i] @ columns),
            prediction_set=() if graded.sets is None else tuple(range(graded.sets[i, 0], graded.sets[i, 1] + 1)),
            referred=bool(graded.referred[i]),
            reason=graded.reasons[i],
            gate_weights=gates,
            raw=graded.raw[i],
            knee=Knee(film[KNEE], _box(film[BOX])) if whole and film[KNEE] + film[BOX] else None,
        )
        rows.append(_row(film, grading))
    rows += [_row(one.film, one.answer) for one in waiting]
    return table.header() + table.rows(rows)


def _row(film: Mapping[Hashable, Any], answer: Grading | NotGraded) -> Record:
    row = record(InputFilm(film["filename"], Path(), int(film["label"])), answer)
    return {**row, "patient": str(film["patient"]), "side": film["side"]}


def _box(text: str) -> Box | None:
    return Box(*map(int, text.split())) if text else None
