"""What is kept of the films that a calibration was fitted on, so that films of another place can be held beside them.

A few hundred films, one a patient, drawn at random: what the network said of each, its true grade, and a few measures.
No name, no patient and no pixel.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from legradnet.grades import Floats, Ints
from legradnet.grading.calibration import Calibration
from legradnet.grading.grading import Grading
from legradnet.grading.measures import MEASURES
from legradnet.settings import Settings

MOST_FILMS = 400
_DIGITS = 6
_ROUNDING = 1e-3  # by which a row of probabilities may miss 1

Number = Annotated[float, Field(ge=-1e12, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1 + _ROUNDING)]
Column = Annotated[list[Number], Field(max_length=MOST_FILMS)]


class ReferenceFilms(Settings):
    """N films of M, each of another patient; K grades.

    Attributes:
        films: Of how many films, M, they were drawn.
        labels: True grades [N].
        probabilities: Of the network, not calibrated [N, K].
        referred: Whether each was referred [N].
        distances: How far they are from the training films, above 1 is unlike them; of those of the N whose distance
            is known, in no order.
        gate_weights: Of each backbone [N]; {} where a gate gives none.
        measures: Brightness, contrast, sharpness, width and height [N]; {} where they were not measured.
    """

    films: int = Field(ge=1)
    labels: list[Annotated[int, Field(ge=0, le=999)]] = Field(min_length=1, max_length=MOST_FILMS)
    probabilities: list[list[Share]] = Field(max_length=MOST_FILMS)
    referred: list[bool] = Field(max_length=MOST_FILMS)
    distances: Column = Field(default_factory=list)
    gate_weights: dict[str, Column] = Field(default_factory=dict)
    measures: dict[str, Column] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _fits_together(self) -> "ReferenceFilms":
        count = len(self.labels)
        lengths = [len(column) for column in (*self.gate_weights.values(), *self.measures.values())]
        lengths += [len(self.probabilities), len(self.referred)]
        if any(length != count for length in lengths) or len(self.distances) > count:
            raise ValueError("the films of a reference must have a value each of everything")
        if self.measures.keys() not in (set(), set(MEASURES)):
            raise ValueError(f"the measures of a reference are {', '.join(MEASURES)}")
        if len({len(row) for row in self.probabilities}) > 1:
            raise ValueError("the probabilities of a reference are of one number of grades")
        rows = np.array(self.probabilities)
        if np.abs(rows.sum(axis=1) - 1).max() > len(rows[0]) * _ROUNDING or max(self.labels) >= len(rows[0]):
            raise ValueError("the probabilities of a reference have a sum of 1, and a column for each grade")
        return self

    @property
    def raw(self) -> Floats:
        """`probabilities` as an array [N, K]."""
        return np.array(self.probabilities)

    @property
    def true_grades(self) -> Ints:
        """`labels` as an array [N]."""
        return np.array(self.labels, np.int64)

    def confidence(self, calibration: Calibration) -> tuple[Floats, Ints]:
        """Calibrated probability [N] of the grade that each film is given, and that grade [N]."""
        raw = self.raw
        grades = calibration.grades(raw)
        return calibration.probabilities(raw)[np.arange(len(grades)), grades], grades


def one_a_patient(patients: Ints, most: int = MOST_FILMS, seed: int = 0) -> Ints:
    """Rows of one film a patient, at most `most` of them, drawn at random; `patients` are numbers [N]."""
    drawn = np.random.default_rng(seed).permutation(len(patients))
    _, first = np.unique(patients[drawn], return_index=True)
    return np.sort(drawn[np.sort(first)[:most]])


def reference_films(
    gradings: Sequence[Grading],
    labels: Ints,
    patients: Ints,
    *,
    films: int | None = None,
    distances: Floats | None = None,
) -> ReferenceFilms:
    """What is kept of these films.

    Args:
        gradings: What the network says of each of N films.
        labels: Their true grades [N].
        patients: The number of each one's patient [N].
        films: Of how many films they were drawn before; None: of N.
        distances: Of each film, nan where it is not known [N]; None: those of the gradings.
    """
    rows = one_a_patient(patients).tolist()
    kept = [gradings[row] for row in rows]
    return reference_of(
        films=films or len(gradings),
        labels=[int(labels[row]) for row in rows],
        probabilities=np.array([film.raw for film in kept], np.float64),
        referred=[film.referred for film in kept],
        distances=[film.distance for film in kept] if distances is None else distances[rows].tolist(),
        gate_weights=[film.gate_weights for film in kept],
        measures=[film.measures for film in kept],
    )


def reference_of(
    *,
    films: int,
    labels: Sequence[int],
    probabilities: Floats,
    referred: Sequence[bool],
    distances: Sequence[float | None],
    gate_weights: Sequence[Mapping[str, float]],
    measures: Sequence[Mapping[str, float]],
) -> ReferenceFilms:
    """The same of columns; gate weights and measures that some film lacks are left out for all."""
    known = [distance for distance in distances if distance is not None and np.isfinite(distance)]
    gates = gate_weights[0] if all(weights.keys() == gate_weights[0].keys() for weights in gate_weights) else {}
    measured = MEASURES if all(film.keys() >= set(MEASURES) for film in measures) else ()
    return ReferenceFilms(
        films=films,
        labels=list(labels),
        probabilities=np.round(probabilities, _DIGITS).tolist(),
        referred=list(referred),
        distances=[round(value, _DIGITS) for value in known],
        gate_weights={key: [round(weights[key], _DIGITS) for weights in gate_weights] for key in gates},
        measures={name: [float(film[name]) for film in measures] for name in measured},
    )
