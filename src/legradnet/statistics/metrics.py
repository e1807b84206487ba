"""How good grades are: every metric of training and evaluation, on plain arrays, for many weightings of films at once.

A weighting says how often each film is there, so `weights` [R, N] are R data sets: whole numbers in a bootstrap, ones
for the films as they are. What isn't defined is nan. A metric is a function of `WeightedFilms` and a row of `METRICS`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from legradnet.grades import Floats, Ints

REFERRAL_RATES = np.arange(20) / 20
ARTHRITIS = 2  # the lowest Kellgren-Lawrence grade of definite osteoarthritis
ECE_BINS = 15
EDGES = np.linspace(0, 1, ECE_BINS + 1, dtype=np.float32)  # as a network's probabilities are

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class WeightedFilms:
    """N films, graded 0..K-1, in R weightings.

    Attributes:
        weights: How often each film counts [R, N].
        labels: The true grades [N].
        grades: The grades given [N].
        probabilities: Of the grades [N, K], each row sums to 1.
        raw: The same before calibration; None where none was.
        sets: Lowest and highest grade of each prediction set [N, 2]; None where there are none.
        referred: Whether a film was referred to a reader [N]; None where that wasn't asked.
        threshold: A film is called KL >= 2 where P(KL >= 2) reaches it.
    """

    weights: Floats
    labels: Ints
    grades: Ints
    probabilities: Floats
    raw: Floats | None = None
    sets: Ints | None = None
    referred: Bools | None = None
    threshold: float = 0.5

    @property
    def classes(self) -> int:
        """K."""
        return self.probabilities.shape[1]

    @cached_property
    def confusion(self) -> Floats:
        """Weight of the films of each true grade (rows) and given grade [R, K, K]."""
        return confusions(self.weights, self.labels, self.grades, self.classes)

    @cached_property
    def called(self) -> Floats | None:
        """Weight of the films [R, 2, 2] below KL 2 and from it on (rows), called so; None without KL grades."""
        if self.classes != 5:
            return None
        positive = arthritis_score(self.probabilities) >= self.threshold
        return film_sums(self.weights, 2 * (self.labels >= ARTHRITIS) + positive, 4).reshape(-1, 2, 2)

    @cached_property
    def accepted(self) -> Floats | None:
        """Weight of the films [R, 2] that were not referred, graded right and wrong."""
        if self.referred is None:
            return None
        return film_sums(self.weights, 2 * self.referred + (self.grades != self.labels), 4)[:, :2]


Metric = Callable[[WeightedFilms], Floats | None]


def accuracy(films: WeightedFilms) -> Floats:
    """Share of films with the true grade."""
    return _mean(films.weights, films.grades == films.labels)


def balanced_accuracy(films: WeightedFilms) -> Floats:
    """Mean recall over the grades that occur."""
    return _mean_defined(share(films.confusion.diagonal(axis1=1, axis2=2), films.confusion.sum(axis=2)))


def f1(films: WeightedFilms) -> Floats:
    """F1 of each grade [R, K]; undefined where no film has it and none was given it."""
    given, true = films.confusion.sum(axis=1), films.confusion.sum(axis=2)
    return share(2 * films.confusion.diagonal(axis1=1, axis2=2), true + given)


def macro_f1(films: WeightedFilms) -> Floats:
    """Mean of the F1 that are defined."""
    return _mean_defined(f1(films))


def mean_absolute_error(films: WeightedFilms) -> Floats:
    """Mean distance from the true grade, in grades."""
    return _mean(films.weights, np.abs(films.grades - films.labels))


def within_one(films: WeightedFilms) -> Floats:
    """Share of films at most one grade off."""
    return _mean(films.weights, np.abs(films.grades - films.labels) <= 1)


def auroc_kl2(films: WeightedFilms) -> Floats | None:
    """Share of pairs in which the film of KL >= 2 has the higher P(KL >= 2), ties half (Mann-Whitney)."""
    if films.classes != 5:
        return None
    scores = arthritis_score(films.probabilities)
    negatives, positives = sums_by_score(films.weights, scores, films.labels >= ARTHRITIS)
    lower = negatives.cumsum(axis=1) - negatives / 2
    return share((positives * lower).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def sensitivity_kl2(films: WeightedFilms) -> Floats | None:
    """Share of the films of KL >= 2 that are called so."""
    return None if films.called is None else share(films.called[:, 1, 1], films.called[:, 1].sum(axis=1))


def specificity_kl2(films: WeightedFilms) -> Floats | None:
    """Share of the films below KL 2 that are called so."""
    return None if films.called is None else share(films.called[:, 0, 0], films.called[:, 0].sum(axis=1))


def ranked_probability_score(films: WeightedFilms) -> Floats:
    """Mean squared distance of cumulative distributions over K-1 thresholds (Epstein 1969); 0 is best."""
    truth = films.labels[:, None] <= np.arange(films.classes - 1)
    cumulative = np.asarray(films.probabilities, np.float64).cumsum(axis=1)[:, :-1]
    return _mean(films.weights, np.square(cumulative - truth).mean(axis=1))


def expected_calibration_error(films: WeightedFilms) -> Floats:
    """Mean gap of confidence and accuracy in 15 bins of the likeliest grade (Naeini et al. 2015)."""
    sure, right, bins = likeliest(films.probabilities, films.labels)
    gaps = film_sums(films.weights, bins, ECE_BINS + 1, right - sure)
    return share(np.abs(gaps).sum(axis=1), films.weights.sum(axis=1))


def coverage(films: WeightedFilms) -> Floats | None:
    """Share of prediction sets that hold the true grade."""
    return None if films.sets is None else _mean(films.weights, covered(films.sets, films.labels))


def set_size(films: WeightedFilms) -> Floats | None:
    """Mean number of grades in a prediction set."""
    return None if films.sets is None else _mean(films.weights, films.sets[:, 1] - films.sets[:, 0] + 1)


def referral_rate(films: WeightedFilms) -> Floats | None:
    """Share of films that were referred to a reader."""
    return None if films.referred is None else _mean(films.weights, films.referred)


def accepted_accuracy(films: WeightedFilms) -> Floats | None:
    """Accuracy among the films that were not referred."""
    return None if films.accepted is None else share(films.accepted[:, 0], films.accepted.sum(axis=1))


def accepted_error(films: WeightedFilms) -> Floats | None:
    """Error rate among the films that were not referred."""
    return None if films.accepted is None else share(films.accepted[:, 1], films.accepted.sum(axis=1))


def uncalibrated(metric: Metric) -> Metric:
    """The same metric of the probabilities before calibration."""
    return lambda films: None if films.raw is None else metric(replace(films, probabilities=films.raw))


# in the order of the report; a metric [R], or [R, K] with a value for each grade, or None where films have none
METRICS: dict[str, Metric] = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
    "f1": f1,
    "mae": mean_absolute_error,
    "qwk": lambda films: quadratic_weighted_kappa(films.confusion),
    "within_one": within_one,
    "auroc_kl2": auroc_kl2,
    "sensitivity_kl2": sensitivity_kl2,
    "specificity_kl2": specificity_kl2,
    "rps": ranked_probability_score,
    "ece": expected_calibration_error,
    "rps_uncalibrated": uncalibrated(ranked_probability_score),
    "ece_uncalibrated": uncalibrated(expected_calibration_error),
    "auroc_kl2_uncalibrated": uncalibrated(auroc_kl2),
    "coverage": coverage,
    "set_size": set_size,
    "referral_rate": referral_rate,
    "accepted_accuracy": accepted_accuracy,
    "accepted_error": accepted_error,
}
# those that training logs as val/<name> and test/<name>
IN_TRAINING = ("accuracy", "balanced_accuracy", "macro_f1", "mae", "qwk", "rps", "ece", "auroc_kl2")


def weighted_metrics(films: WeightedFilms, names: Iterable[str] = METRICS) -> dict[str, Floats]:
    """The metrics of some `names` that these films have: {name: [R]}; those of each grade are <name>_<grade>."""
    values: dict[str, Floats] = {}
    for name in names:
        value = METRICS[name](films)
        if value is not None and value.ndim == 2:
            values |= {f"{name}_{grade}": column for grade, column in enumerate(value.T)}
        elif value is not None:
            values[name] = value
    return values


def grading_metrics(probabilities: Floats, grades: Ints, labels: Ints) -> dict[str, float]:
    """The metrics of training for `probabilities` [N, K], the grades given [N] and the true ones [N]."""
    films = WeightedFilms(np.ones((1, len(labels))), labels, grades, probabilities)
    return {name: float(value[0]) for name, value in weighted_metrics(films, IN_TRAINING).items()}


def coverage_by_grade(weights: Floats, labels: Ints, sets: Ints, classes: int) -> Floats:
    """Share of prediction sets [N, 2] that hold the true grade, for each true grade: [R, K]."""
    sums = film_sums(weights, 2 * labels + covered(sets, labels), 2 * classes)
    return share(sums[:, 1::2], sums[:, ::2] + sums[:, 1::2])


def referral_curve(weights: Floats, confidence: Floats, wrong: Bools) -> Floats:
    """Error rate of the rest when `REFERRAL_RATES` of the films are referred, the least sure first: [R, 20].

    Films of equal confidence are referred in equal parts, so that their order doesn't matter; where a rate falls inside
    a film, it counts in part.
    """
    right_films, wrong_films = sums_by_score(weights, confidence, wrong)
    cumulated = ((right_films + wrong_films).cumsum(axis=1), wrong_films.cumsum(axis=1))
    films, errors = (np.pad(sums, ((0, 0), (1, 0))) for sums in cumulated)
    referred = films[:, -1:] * REFERRAL_RATES
    caught = np.array([np.interp(*row) for row in zip(referred, films, errors, strict=True)])
    return share(errors[:, -1:] - caught, films[:, -1:] - referred)


def quadratic_weighted_kappa(confusion: Floats) -> Floats:
    """Cohen's kappa with quadratic weights (Cohen 1968, doi:10.1037/h0026256) of [R, K, K]: [R]."""
    true, given = confusion.sum(axis=2), confusion.sum(axis=1)
    by_chance = share(true[:, :, None] * given[:, None, :], confusion.sum(axis=(1, 2))[:, None, None])
    away = np.square(np.arange(confusion.shape[1])[:, None] - np.arange(confusion.shape[1]))
    return 1 - share((confusion * away).sum(axis=(1, 2)), (by_chance * away).sum(axis=(1, 2)))


def confusions(weights: Floats, labels: Ints, grades: Ints, classes: int) -> Floats:
    """Weight of the films [R, K, K] of each true grade (rows) and given grade."""
    return film_sums(weights, classes * labels + grades, classes**2).reshape(-1, classes, classes)


def film_sums(weights: Floats, groups: Ints, count: int, values: Floats | None = None) -> Floats:
    """Weight of each group of films, times `values` [N] if given: [R, N] and group numbers [N] to [R, count]."""
    films = len(groups)
    values = np.ones(films) if values is None else values
    return weights @ csr_array((values, groups, np.arange(films + 1)), shape=(films, count))


def sums_by_score(weights: Floats, scores: Floats, positive: Bools) -> tuple[Floats, Floats]:
    """Weight of the negative and positive films at each of the U distinct scores, lowest first: two of [R, U]."""
    distinct, groups = np.unique(scores, return_inverse=True)
    sums = film_sums(weights, 2 * groups + positive, 2 * len(distinct))
    return sums[:, ::2], sums[:, 1::2]


def covered(sets: Ints, labels: Ints) -> Bools:
    """Whether prediction sets [N, 2] hold the true grades [N]."""
    return (sets[:, 0] <= labels) & (labels <= sets[:, 1])


def arthritis_score(probabilities: Floats) -> Floats:
    """P(KL >= 2) of `probabilities` [N, 5]: [N]."""
    return np.asarray(probabilities, np.float64)[:, ARTHRITIS:].sum(axis=1).clip(0, 1)


def likeliest(probabilities: Floats, labels: Ints) -> tuple[Floats, Bools, Ints]:
    """Probability of each film's likeliest grade [N], whether that is right [N], and its bin of `EDGES` [N].

    A probability of exactly 1 has a bin of its own, number `ECE_BINS`.
    """
    sure = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    return sure, right, np.searchsorted(EDGES, sure.astype(np.float32), side="right") - 1


def share(part: Floats, whole: Floats) -> Floats:
    """`part` / `whole`, nan where there is no whole."""
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def _mean(weights: Floats, values: npt.ArrayLike) -> Floats:
    return share(weights @ np.asarray(values, np.float64), weights.sum(axis=1))


def _mean_defined(values: Floats) -> Floats:
    """Mean over the classes that have a value: [R, K] to [R]."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))
