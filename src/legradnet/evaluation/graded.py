"""Graded films beside their true grades: what every number and figure of an evaluation is made from."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from legradnet.data.inputs import InputFilm
from legradnet.grades import Floats, Ints
from legradnet.grading.grading import Grading
from legradnet.grading.predictions import PredictionsTable, inert_id, read_predictions, record
from legradnet.statistics.bootstrap import patient_numbers
from legradnet.statistics.metrics import WeightedFilms, covered


@dataclass(frozen=True)
class Graded:
    """N films graded 0..K-1 by an ensemble of B backbones.

    Attributes:
        table: One row a film: `filename`, `label` (the true grade), `patient`, `side` ("" where unknown), and whatever
            other columns the films' CSV has.
        grades: The grade given to each film [N].
        probabilities: Calibrated probabilities [N, K].
        raw: Uncalibrated probabilities [N, K]; equal to `probabilities` where nothing was calibrated.
        sets: Lowest and highest grade of each prediction set [N, 2]; None where none were calibrated.
        referred: Whether the film was referred to a reader [N].
        reasons: Why, "" otherwise [N].
        gate_weights: [N, B], each row sums to 1; None under `concat`.
        backbones: Their keys, in the order of the gate's weights.
    """

    table: pd.DataFrame
    grades: Ints
    probabilities: Floats
    raw: Floats
    sets: Ints | None
    referred: npt.NDArray[np.bool_]
    reasons: list[str]
    gate_weights: Floats | None
    backbones: tuple[str, ...]

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
    return Graded(
        table=read.table.assign(label=read.table["label"].astype("int64")),
        grades=read.grades,
        probabilities=read.probabilities,
        raw=read.probabilities,
        sets=read.sets,
        referred=read.referred,
        reasons=read.reasons,
        gate_weights=read.gate_weights,
        backbones=read.backbones,
    )


def predictions_text(graded: Graded) -> str:
    """`predictions.csv` of labelled films, with patient and side."""
    weighed = () if graded.gate_weights is None else graded.backbones
    table = PredictionsTable(graded.classes, weighed, labelled=True, others=("patient", "side"))
    columns = np.arange(graded.classes)
    rows = []
    for i, film in enumerate(graded.table.to_dict("records")):
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
        )
        row = record(InputFilm(film["filename"], Path(), int(film["label"])), grading)
        rows.append({**row, "patient": inert_id(str(film["patient"])), "side": film["side"]})
    return table.header() + table.rows(rows)
