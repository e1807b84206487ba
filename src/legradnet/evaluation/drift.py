"""Are films still like those that a model's calibration was fitted on? Compared without their labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from legradnet.grades import Floats
from legradnet.grading.calibration import Calibration
from legradnet.grading.measures import are_measures
from legradnet.grading.predictions import Record
from legradnet.grading.reference import ReferenceFilms, one_a_patient
from legradnet.grading.reference_file import patients_of
from legradnet.statistics.metrics import Bools
from legradnet.statistics.two_samples import (
    accuracy_without_labels,
    distributions_differ,
    holm,
    shares_differ,
    threshold_of,
)

REFERRED, ACCURACY = "share referred", "estimated accuracy"
FEW = 20  # films; with fewer only a large shift shows


@dataclass(frozen=True)
class Sample:
    """Graded films, one a patient: N of them, of M films in all.

    Attributes:
        name: What a reader calls them.
        films: M.
        numbers: By name, brightness and the like, distance, gate weights [N]; what is not known of all is not there.
        referred: [N].
        confidence: Calibrated probability of the grade given [N].
    """

    name: str
    films: int
    numbers: Mapping[str, Floats]
    referred: Bools
    confidence: Floats


@dataclass(frozen=True)
class Compared:
    """One number of the films, here and in the reference.

    Attributes:
        name: Of the number.
        p: Of its test alone.
        together: The same so that it holds for all tests of the report together (Holm).
        alarm: Whether that is at most the level.
        here: 5 %, 50 % and 95 % of the films here; the share and the ends of its interval for shares.
        there: The same of the reference.
    """

    name: str
    p: float
    together: float
    alarm: bool
    here: tuple[float, float, float]
    there: tuple[float, float, float]


@dataclass(frozen=True)
class Drift:
    """What was found of one sample."""

    name: str
    films: int
    patients: int
    compared: list[Compared] = field(default_factory=list)

    @property
    def alarms(self) -> list[Compared]:
        """The numbers that are not those of the reference, the surest first."""
        return sorted((one for one in self.compared if one.alarm), key=lambda one: (one.together, one.p))

    def of(self, name: str) -> Compared:
        """What was found of one number."""
        return next(one for one in self.compared if one.name == name)


def sample_of(name: str, records: Sequence[Record]) -> Sample | None:
    """The graded films of some records of `predictions.jsonl`; None if none is."""
    graded = [record for record in records if record.get("grade") is not None and record["error"] is None]
    if not graded:
        return None
    kept = [graded[row] for row in one_a_patient(patients_of(graded), most=len(graded)).tolist()]
    columns: dict[str, list[float]] = {}
    if all(are_measures(film.get("film")) for film in kept):
        columns |= _of_films({key: [float(film["film"][key]) for film in kept] for key in kept[0]["film"]})
    if all(isinstance(film.get("distance"), float | int) for film in kept):
        columns["distance"] = [float(film["distance"]) for film in kept]
    for key in kept[0]["gate_weights"]:
        if all(key in film["gate_weights"] for film in kept):
            columns[f"gate {key}"] = [float(film["gate_weights"][key]) for film in kept]
    return Sample(
        name,
        len(graded),
        _moving(columns),
        np.array([film["referred"] for film in kept], bool),
        np.array([film["probabilities"][film["grade"]] for film in kept]),
    )


def sample_of_reference(reference: ReferenceFilms, calibration: Calibration) -> tuple[Sample, Bools]:
    """The reference as a sample, and which of its films are graded right [N]."""
    confidence, grades = reference.confidence(calibration)
    columns = _of_films(reference.measures) if reference.measures else {}
    columns |= {"distance": reference.distances} if reference.distances else {}
    columns |= {f"gate {key}": weights for key, weights in reference.gate_weights.items()}
    sample = Sample("reference", reference.films, _moving(columns), np.array(reference.referred), confidence)
    return sample, grades == reference.true_grades


def _of_films(measures: Mapping[str, Sequence[float]]) -> dict[str, list[float]]:
    sides = zip(measures["width"], measures["height"], strict=True)
    pairs = [(max(width, 1.0), max(height, 1.0)) for width, height in sides]
    return {
        **{name: list(measures[name]) for name in ("brightness", "contrast", "sharpness")},
        "size": [float(np.sqrt(width * height)) for width, height in pairs],
        "shape": [width / height for width, height in pairs],
    }


def _moving(columns: Mapping[str, Sequence[float]]) -> dict[str, Floats]:
    """The columns as arrays; of a gate with one backbone, whose weight is always 1, there is nothing to tell."""
    gates = [name for name in columns if name.startswith("gate ")]
    return {name: np.asarray(column, np.float64) for name, column in columns.items() if [name] != gates}


def compare_samples(
    samples: Sequence[Sample], reference: Sample, right: Bools, *, false_alarms: float = 0.05
) -> list[Drift]:
    """Compare each sample with the reference; the tests of all samples are one family.

    Args:
        samples: As films came in, week by week.
        reference: Films that the calibration was fitted on.
        right: Which of these are graded right.
        false_alarms: Probability of any alarm at all where nothing has changed.
    """
    found = [(sample, _tests(sample, reference, right)) for sample in samples]
    together = iter(holm([p for _, tests in found for p, _, _ in tests.values()]))
    drifts = []
    for sample, tests in found:
        compared = [
            Compared(name, p, adjusted := next(together), adjusted <= false_alarms, here, there)
            for name, (p, here, there) in tests.items()
        ]
        drifts.append(Drift(sample.name, sample.films, len(sample.confidence), compared))
    return drifts


Three = tuple[float, float, float]


def _tests(sample: Sample, reference: Sample, right: Bools) -> dict[str, tuple[float, Three, Three]]:
    tests: dict[str, tuple[float, Three, Three]] = {}
    for name in [name for name in reference.numbers if name in sample.numbers]:
        ours, theirs = sample.numbers[name], reference.numbers[name]
        tests[name] = distributions_differ(ours, theirs), _spread(ours), _spread(theirs)
    tests[REFERRED] = (
        shares_differ(sample.referred, reference.referred),
        _share(sample.referred),
        _share(reference.referred),
    )
    above = threshold_of(reference.confidence, right)
    tests[ACCURACY] = (
        shares_differ(sample.confidence > above, reference.confidence > above),
        accuracy_without_labels(reference.confidence, right, sample.confidence),
        _share(right),
    )
    return tests


def _spread(values: Floats) -> Three:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95]).tolist()
    return low, middle, high


def _share(values: Bools) -> Three:
    """A share and its 95 % interval (Wilson 1927)."""
    count, share, z = len(values), float(values.mean()), 1.96
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return share, float(middle - half), float(middle + half)


def is_share(name: str) -> bool:
    """Whether `Compared` of this name is a share with its interval."""
    return name in (REFERRED, ACCURACY)


def sentence(drift: Drift, model: str, false_alarms: float, samples: int = 1) -> str:
    """What was found, in one sentence."""
    accuracy = drift.of(ACCURACY)
    value, low, high = accuracy.here
    estimate = f"estimated accuracy {value:.2f} ({low:.2f} to {high:.2f}; it was {accuracy.there[0]:.2f})"
    who = f"{drift.name}: {drift.films} films of {drift.patients} patients"
    if alarms := drift.alarms:
        named = ", ".join(f"{one.name} (p {_p(one.together)})" for one in alarms)
        return f"{who} are unlike those that {model} was calibrated on, in {named}; {estimate}."
    few = f", though {drift.patients} patients show only large shifts" if drift.patients < FEW else ""
    of_many = f" of {samples} samples" if samples > 1 else ""
    return (
        f"{who} are not found unlike those that {model} was calibrated on: {len(drift.compared)} tests{of_many}, which "
        f"together raise a false alarm in {false_alarms:.0%} of cases{few}; {estimate}."
    )


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}"


def to_plain(drift: Drift) -> dict[str, Any]:
    """For JSON."""
    rows = [
        {
            "name": one.name,
            "p": one.p,
            "p_together": one.together,
            "alarm": one.alarm,
            "here": list(one.here),
            "reference": list(one.there),
            "is": "share, low, high" if is_share(one.name) else "5 %, median, 95 %",
        }
        for one in drift.compared
    ]
    return {"name": drift.name, "films": drift.films, "patients": drift.patients, "compared": rows}
