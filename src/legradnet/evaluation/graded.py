"""Graded films beside their true grades: what every number and figure of an evaluation is made from."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from legradnet.errors import UserError
from legradnet.grades import Floats, Ints
from legradnet.statistics.bootstrap import patient_numbers


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
        return None if self.sets is None else (self.sets[:, 0] <= self.labels) & (self.labels <= self.sets[:, 1])

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
    path = Path(csv)
    if not path.is_file():
        raise UserError(f"There is no predictions.csv at {path}.")
    table = pd.read_csv(path, dtype={"filename": str, "patient": str, "side": str, "error": str}, keep_default_na=True)
    table = table[table["grade"].notna() & table["label"].notna()] if "label" in table else table.iloc[:0]
    if table.empty:
        raise UserError(f"{path} has no labelled film.")
    for name in ("patient", "side"):
        table[name] = table[name].fillna("") if name in table else ""
    table = table.assign(label=table["label"].astype("int64")).reset_index(drop=True)
    probabilities = table.filter(regex=r"^p\d+$").to_numpy(np.float64)
    gates = list(table.filter(regex="^gate_"))
    sets = None
    if table["prediction_set"].notna().all():
        grades = table["prediction_set"].astype(str).str.split()
        sets = np.array([[int(float(cell[0])), int(float(cell[-1]))] for cell in grades])
    return Graded(
        table=table,
        grades=table["grade"].to_numpy(np.int64),
        probabilities=probabilities,
        raw=probabilities,
        sets=sets,
        referred=table["referred"].astype(str).str.lower().eq("true").to_numpy(),
        reasons=table["reason"].fillna("").astype(str).tolist(),
        gate_weights=table[gates].to_numpy(np.float64) if gates else None,
        backbones=tuple(str(name).removeprefix("gate_") for name in gates),
    )
