"""What validation knees teach about a trained network's probabilities: temperature, prediction sets, when to refer.

Fitted on validation only, kept in the checkpoint as plain values, applied by the `Grader`; numpy, so that no torch is
needed. None of it changes a grade, but for what `legradnet-calibrate` may find that a site's films ask for: `biases`.
"""

import math
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import AllowInfNan, BeforeValidator, Field, PlainSerializer, model_validator

from legradnet.grades import Floats, Ints, Rule, grades_of
from legradnet.settings import Settings
from legradnet.statistics.conformal import conformal_quantile

MIN_FILMS = 30  # fewer validation knees calibrate nothing
MIN_PER_GRADE = 20  # of each grade, for prediction sets with a coverage of their own for every grade
_TEMPERATURES = (0.1, 10.0)
_STEEPEST = 100.0  # of biases and mixing
LEAST = 1e-7  # probabilities come in float32
_ROUNDING = 1e-3  # by which a sum of them may be above 1


def _unlimited(value: Any) -> Any:
    return math.inf if value is None else value


def _null(value: float) -> float | None:
    return None if math.isinf(value) else value


Limit = Annotated[  # infinite, which JSON writes as null, where nothing is beyond it
    float,
    AllowInfNan(True),
    Field(ge=0),  # refuses NaN too; how far up a limit may go is what it is compared with
    BeforeValidator(_unlimited),
    PlainSerializer(_null, when_used="json"),
]


Slope = Annotated[float, Field(ge=-_STEEPEST, le=_STEEPEST)]


class Calibration(Settings):
    """Fitted on `films` validation knees by `fit_calibration`; without any, it leaves probabilities as they are.

    Attributes:
        rule: How a grade follows from probabilities: "mode" or "median".
        films: Validation knees it was fitted on.
        temperature: Above 1 makes probabilities less sure, below 1 surer.
        biases: Added to the logarithms of the tempered probabilities of each grade 0..K-1; [] for none.
        mixing: Matrix [K, K] that the logarithms are multiplied with before; [] for none.
        coverage: Share of prediction sets meant to hold the true grade; None: there are no sets.
        thresholds: Largest nonconformity score of a grade 0..K-1 in a set; infinite where too few knees had it.
        by_grade: Whether the coverage is meant for each grade, and not only on average.
        target_error: Wanted error rate among the films that are not referred.
        min_confidence: Films are referred when the calibrated probability of their grade is below it; above 1 where
            no validation knees reach `target_error`, 0 where nothing is referred.
        notes: What could not be fitted, and why.
    """

    rule: Rule
    films: int = Field(default=0, ge=0)
    temperature: float = Field(default=1.0, ge=_TEMPERATURES[0], le=_TEMPERATURES[1])
    biases: list[Slope] = Field(default_factory=list)
    mixing: list[list[Slope]] = Field(default_factory=list)
    coverage: float | None = Field(default=None, gt=0, lt=1)
    thresholds: list[Limit] = Field(default_factory=list)
    by_grade: bool = False
    target_error: float | None = Field(default=None, gt=0, lt=1)
    min_confidence: Limit = 0.0
    notes: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_sets_or_none(self) -> "Calibration":
        if (self.coverage is None) != (not self.thresholds):
            raise ValueError("coverage and thresholds of a calibration go together")
        rows = [len(self.biases), *(len(row) for row in self.mixing)] if self.mixing else []
        if len({*rows, *([len(self.mixing)] if rows else [])}) > 1:
            raise ValueError("mixing and biases of a calibration must be of one number of grades")
        if 1 + _ROUNDING < self.min_confidence < math.inf:
            raise ValueError(f"min_confidence={self.min_confidence:g} of a calibration is no probability")
        highest = len(self.thresholds) - 1 + _ROUNDING  # the score of a film that is K-1 grades off
        if odd := [threshold for threshold in self.thresholds if highest < threshold < math.inf]:
            raise ValueError(f"thresholds of a calibration reach up to {highest:.0f}, not {odd[0]:g}")
        return self

    def check_fits(self, rule: Rule, classes: int) -> None:
        """Raise ValueError if it was fitted for a network of another rule, or of other grades than 0..`classes`-1."""
        lengths = len(self.thresholds), len(self.biases)
        if self.rule != rule or any(length not in (0, classes) for length in lengths):
            raise ValueError(
                f"the calibration is of another network: its rule is {self.rule} with {len(self.thresholds)} "
                f"thresholds, the network's is {rule} with {classes} grades"
            )

    def probabilities(self, raw: Floats) -> Floats:
        """Calibrated probabilities [N, K] of `raw` [N, K]."""
        fitted = tempered(raw, self.temperature, self.rule)
        if not self.biases:
            return fitted
        logs = np.log(fitted.clip(LEAST))
        logs = (logs @ np.asarray(self.mixing).T if self.mixing else logs) + np.asarray(self.biases)
        powers = np.exp(logs - logs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)

    def deciding(self, raw: Floats) -> Floats:
        """The probabilities [N, K] that grades follow from: `raw`, unless biases may change a grade."""
        return self.probabilities(raw) if self.biases else raw

    def grades(self, raw: Floats) -> Ints:
        """The grades [N] of `raw` [N, K]."""
        return grades_of(self.deciding(raw), self.rule)

    def sets(self, probabilities: Floats, grades: Ints) -> Ints | None:
        """Lowest and highest grade [N, 2] of each prediction set; None if there are none.

        The grades whose score is below their threshold, the film's own grade, and all between them.
        """
        if self.coverage is None:
            return None
        inside = nonconformity(probabilities) <= np.asarray(self.thresholds)
        inside[np.arange(len(grades)), grades] = True
        low = inside.argmax(axis=1)
        high = inside.shape[1] - 1 - inside[:, ::-1].argmax(axis=1)
        return np.stack([low, high], axis=1).astype(np.int64)


def tempered(raw: Floats, temperature: float, rule: Rule) -> Floats:
    """Sharpen or soften `raw` [N, K] so that the grade by `rule` stays what it is.

    For the mode, log probabilities are divided by the temperature (Guo et al. 2017, arXiv:1706.04599). For the median,
    the log odds of P(grade > k) are: they keep their order and their side of 1/2.
    """
    raw = np.asarray(raw, np.float64)
    if temperature == 1.0:
        return raw
    if rule == "mode":
        logs = np.log(raw.clip(LEAST)) / temperature
        powers = np.exp(logs - logs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    at_most = raw.cumsum(axis=1)[:, :-1].clip(LEAST)
    above = raw[:, ::-1].cumsum(axis=1)[:, -2::-1].clip(LEAST)  # and not 1 - at_most, which a float32 rounds away
    above = 1 / (1 + np.exp(-np.log(above / at_most) / temperature))
    edges = np.pad(np.pad(above, ((0, 0), (1, 0)), constant_values=1.0), ((0, 0), (0, 1)))
    return edges[:, :-1] - edges[:, 1:]


def nonconformity(probabilities: Floats) -> Floats:
    """How badly each grade 0..K-1 fits `probabilities` [N, K]: the ranked probability score it would have, [N, K].

    It is convex in the grade, so that {score <= threshold} is contiguous (Haas et al. 2026, PMLR 337).
    """
    classes = probabilities.shape[1]
    cumulative = probabilities.cumsum(axis=1)[:, None, :-1]
    truths = np.arange(classes)[:, None] <= np.arange(classes - 1)
    return np.square(cumulative - truths).sum(axis=2)


def fit_calibration(
    raw: Floats, labels: Ints, rule: Rule, *, coverage: float = 0.9, target_error: float = 0.25
) -> Calibration:
    """Fit temperature, prediction sets and referral threshold on validation knees.

    Args:
        raw: The network's probabilities [N, K].
        labels: True grades [N].
        rule: How its grades follow from them.
        coverage: Wanted share of prediction sets that hold the true grade, 0-1. Split conformal prediction (Vovk et
            al. 2005): for each grade (class-conditional) if all have `MIN_PER_GRADE` knees, else on average.
        target_error: Wanted share of wrong grades among films that are not referred, 0-1.

    Returns:
        The calibration; what too few knees don't allow is left out, and `notes` says so.
    """
    films, classes = raw.shape
    if films < MIN_FILMS:
        note = f"not calibrated: {films} validation knees are fewer than the {MIN_FILMS} needed"
        return Calibration(rule=rule, films=films, notes=[note])
    notes = []
    counts = np.bincount(labels, minlength=classes)
    temperature = 1.0
    if np.count_nonzero(counts) < 2:
        notes.append("temperature not fitted: all validation knees have one grade")
    else:
        temperature = fit_temperature(raw, labels, rule)
        if not _TEMPERATURES[0] * 1.01 < temperature < _TEMPERATURES[1] / 1.01:
            notes.append(f"temperature is at its limit, {temperature:.2g}")
    probabilities = tempered(raw, temperature, rule)

    scores = nonconformity(probabilities)[np.arange(films), labels]
    by_grade = bool((counts >= MIN_PER_GRADE).all())
    if by_grade:
        thresholds = [conformal_quantile(scores[labels == grade], coverage) for grade in range(classes)]
    else:
        rare = ", ".join(f"{count} of grade {grade}" for grade, count in enumerate(counts) if count < MIN_PER_GRADE)
        notes.append(f"sets cover {coverage:.0%} on average, not for each grade: only {rare}")
        thresholds = [conformal_quantile(scores, coverage)] * classes
    if math.inf in thresholds:
        notes.append(
            f"too few validation knees for a coverage of {coverage:g}: sets hold more grades than they need to"
        )

    grades = grades_of(raw, rule)
    confidence = probabilities[np.arange(films), grades]
    min_confidence = referral_threshold(confidence, grades != labels, target_error)
    if min_confidence > 1:
        notes.append(f"no validation knees are graded with an error rate of at most {target_error:g}: all are referred")
    return Calibration(
        rule=rule,
        films=films,
        temperature=temperature,
        coverage=coverage,
        thresholds=thresholds,
        by_grade=by_grade,
        target_error=target_error,
        min_confidence=min_confidence,
        notes=notes,
    )


def fit_temperature(raw: Floats, labels: Ints, rule: Rule) -> float:
    """The temperature at which `labels` [N] are likeliest under `tempered` probabilities of `raw` [N, K]."""
    from scipy.optimize import minimize_scalar  # late: only fitting needs it, and it is slow to import

    def loss(log_temperature: float) -> float:
        fitted = tempered(raw, math.exp(log_temperature), rule)[np.arange(len(labels)), labels]
        return float(-np.log(fitted.clip(LEAST)).mean())

    low, high = map(math.log, _TEMPERATURES)
    return float(math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded").x))


def referral_threshold(
    confidence: Floats, wrong: npt.NDArray[np.bool_], target_error: float, *, spare: float = 0.0
) -> float:
    """Lowest confidence that can be accepted: of the knees at or above it at most `target_error` are wrong.

    One knee more is counted as wrong than was, and `spare` standard errors are added, against choosing by luck; above 1
    where nothing can be accepted.
    """
    order = np.argsort(-confidence, kind="stable")
    accepted = np.arange(1, len(order) + 1)
    error = (wrong[order].cumsum() + 1) / (accepted + 1)
    fine = error + spare * np.sqrt(error * (1 - error) / accepted) <= target_error
    last_of_ties = np.append(confidence[order][1:] < confidence[order][:-1], True)
    enough = np.flatnonzero(fine & last_of_ties)
    if not len(enough):
        return math.inf
    # all were fine: no film will be less sure than what the knees allow to judge
    return 0.0 if enough[-1] == len(order) - 1 else float(confidence[order][enough[-1]])
