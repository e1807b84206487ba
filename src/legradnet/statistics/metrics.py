"""The metrics of an evaluation for many weightings of the same films at once: what a bootstrap needs.

A weighting says how often each film is there, so `weights` [R, N] are R data sets; integers in a bootstrap, all one for
the films as they are. A number that isn't defined is nan.
"""

import numpy as np
import numpy.typing as npt
import torch
from scipy.sparse import csr_array

from legradnet.evaluation.graded import Graded
from legradnet.grades import Floats, Ints
from legradnet.statistics.training_metrics import ECE_BINS

REFERRAL_RATES = np.arange(20) / 20
ARTHRITIS = 2  # the lowest Kellgren-Lawrence grade of definite osteoarthritis
# float32 as in `expected_calibration_error`: in float64 a film may fall on the other side of an edge
EDGES = torch.linspace(0, 1, ECE_BINS + 1).numpy()

Bools = npt.NDArray[np.bool_]


def weighted_metrics(graded: Graded, weights: Floats, threshold: float = 0.5) -> dict[str, Floats]:
    """Every metric of `graded` under `weights` [R, N]: {name: [R]}.

    Args:
        graded: N films.
        weights: How often each film counts.
        threshold: A film is called KL >= 2 where the calibrated P(KL >= 2) reaches it.

    Returns:
        Those of `grading_metrics`, by its conventions except that an undefined `qwk` is nan; F1 of
        each grade; `within_one` (share at most one grade off); sensitivity and specificity for KL >= 2; mean `coverage`
        and `set_size` of prediction sets; `referral_rate`; accuracy and error among films that were not referred.
    """
    calibrated, raw = graded.probabilities, graded.raw
    metrics = _grade_metrics(graded, weights)
    if graded.classes == 5:
        arthritis, score = graded.labels >= ARTHRITIS, arthritis_score(calibrated)
        negative, alarm, missed, found = film_sums(weights, 2 * arthritis + (score >= threshold), 4).T
        metrics["auroc_kl2"] = _auroc(weights, score, arthritis)
        metrics["sensitivity_kl2"] = share(found, missed + found)
        metrics["specificity_kl2"] = share(negative, negative + alarm)
    metrics["rps"] = _rps(weights, calibrated, graded.labels)
    metrics["ece"] = _ece(weights, calibrated, graded.labels)
    metrics["rps_uncalibrated"] = _rps(weights, raw, graded.labels)
    metrics["ece_uncalibrated"] = _ece(weights, raw, graded.labels)
    if graded.classes == 5:
        metrics["auroc_kl2_uncalibrated"] = _auroc(weights, arthritis_score(raw), arthritis)
    if graded.sets is not None and graded.covered is not None:
        metrics["coverage"] = _mean(weights, graded.covered)
        metrics["set_size"] = _mean(weights, graded.sets[:, 1] - graded.sets[:, 0] + 1)
    metrics["referral_rate"] = _mean(weights, graded.referred)
    right, wrong = film_sums(weights, 2 * graded.referred + (graded.grades != graded.labels), 4)[:, :2].T
    metrics["accepted_accuracy"] = share(right, right + wrong)
    metrics["accepted_error"] = share(wrong, right + wrong)
    return metrics


def coverage_by_grade(graded: Graded, weights: Floats) -> Floats:
    """Share of prediction sets that hold the true grade, for each true grade: [R, K]; nan without sets."""
    if graded.covered is None:
        return np.full((len(weights), graded.classes), np.nan)
    sums = film_sums(weights, 2 * graded.labels + graded.covered, 2 * graded.classes)
    return share(sums[:, 1::2], sums[:, ::2] + sums[:, 1::2])


def referral_curve(graded: Graded, weights: Floats) -> Floats:
    """Error rate of the rest when `REFERRAL_RATES` of the films are referred, the least sure first: [R, 20].

    Films of equal confidence are referred in equal parts, so that their order doesn't matter; where a rate falls inside
    a film, it counts in part.
    """
    right, wrong = sums_by_score(weights, graded.confidence, graded.grades != graded.labels)
    films, errors = (np.pad(sums.cumsum(axis=1), ((0, 0), (1, 0))) for sums in (right + wrong, wrong))
    referred = films[:, -1:] * REFERRAL_RATES
    caught = np.array([np.interp(*row) for row in zip(referred, films, errors, strict=True)])
    return share(errors[:, -1:] - caught, films[:, -1:] - referred)


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


def confusions(weights: Floats, labels: Ints, grades: Ints, classes: int) -> Floats:
    """Weight of the films [R, K, K] of each true grade (rows) and given grade."""
    return film_sums(weights, classes * labels + grades, classes**2).reshape(-1, classes, classes)


def quadratic_weighted_kappa(confusion: Floats) -> Floats:
    """Cohen's kappa with quadratic weights (Cohen 1968, doi:10.1037/h0026256) of [R, K, K]: [R], nan if undefined."""
    true, given = confusion.sum(axis=2), confusion.sum(axis=1)
    by_chance = share(true[:, :, None] * given[:, None, :], confusion.sum(axis=(1, 2))[:, None, None])
    away = np.square(np.arange(confusion.shape[1])[:, None] - np.arange(confusion.shape[1]))
    return 1 - share((confusion * away).sum(axis=(1, 2)), (by_chance * away).sum(axis=(1, 2)))


def share(part: Floats, whole: Floats) -> Floats:
    """`part` / `whole`, nan where there is no whole."""
    return np.divide(part, whole, out=np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan), where=whole > 0)


def arthritis_score(probabilities: Floats) -> Floats:
    """P(KL >= 2) of `probabilities` [N, 5]: [N]."""
    return np.asarray(probabilities, np.float64)[:, ARTHRITIS:].sum(axis=1).clip(0, 1)


def likeliest(probabilities: Floats, labels: Ints) -> tuple[Floats, Bools, Ints]:
    """Probability of each film's likeliest grade [N], whether that is right [N], and its bin of `EDGES` [N].

    A probability of exactly 1 has a bin of its own, number `ECE_BINS`.
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    return sure, right, np.searchsorted(EDGES, sure.astype(np.float32), side="right") - 1


def _grade_metrics(graded: Graded, weights: Floats) -> dict[str, Floats]:
    """Metrics that follow from the R confusion matrices alone."""
    classes = graded.classes
    confusion = confusions(weights, graded.labels, graded.grades, classes)
    films = confusion.sum(axis=(1, 2))
    true, given = confusion.sum(axis=2), confusion.sum(axis=1)
    hits = confusion.diagonal(axis1=1, axis2=2)
    f1 = share(2 * hits, true + given)
    away = np.abs(np.arange(classes)[:, None] - np.arange(classes))

    def total(per_pair: npt.NDArray[np.int64]) -> Floats:
        return (confusion * per_pair).sum(axis=(1, 2))

    return {
        "accuracy": share(hits.sum(axis=1), films),
        "balanced_accuracy": _mean_defined(share(hits, true)),
        "macro_f1": _mean_defined(f1),
        **{f"f1_{grade}": f1[:, grade] for grade in range(classes)},
        "mae": share(total(away), films),
        "qwk": quadratic_weighted_kappa(confusion),
        "within_one": share(total((away <= 1).astype(np.int64)), films),
    }


def _auroc(weights: Floats, scores: Floats, positive: Bools) -> Floats:
    """Share of pairs in which the positive film scores higher, ties half (Mann-Whitney): [R]."""
    negatives, positives = sums_by_score(weights, scores, positive)
    lower = negatives.cumsum(axis=1) - negatives / 2
    return share((positives * lower).sum(axis=1), positives.sum(axis=1) * negatives.sum(axis=1))


def _rps(weights: Floats, probabilities: Floats, labels: Ints) -> Floats:
    truth = labels[:, None] <= np.arange(probabilities.shape[1] - 1)
    cumulative = np.asarray(probabilities, np.float64).cumsum(axis=1)[:, :-1]
    return _mean(weights, np.square(cumulative - truth).mean(axis=1))


def _ece(weights: Floats, probabilities: Floats, labels: Ints) -> Floats:
    sure, right, bins = likeliest(probabilities, labels)
    return share(np.abs(film_sums(weights, bins, ECE_BINS + 1, right - sure)).sum(axis=1), weights.sum(axis=1))


def _mean(weights: Floats, values: npt.ArrayLike) -> Floats:
    return share(weights @ np.asarray(values, np.float64), weights.sum(axis=1))


def _mean_defined(values: Floats) -> Floats:
    """Mean over the classes that have a value: [R, K] to [R]."""
    defined = ~np.isnan(values)
    return share(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1))
