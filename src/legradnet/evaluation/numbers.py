"""Every number of an evaluation, from graded films, as plain values for JSON; None where a number isn't defined."""

import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from legradnet.data.remarks import by_kind
from legradnet.errors import UserError
from legradnet.evaluation.graded import Graded
from legradnet.grades import Floats
from legradnet.statistics.bootstrap import bootstrap, percentile_interval
from legradnet.statistics.metrics import (
    ARTHRITIS,
    ECE_BINS,
    EDGES,
    REFERRAL_RATES,
    arthritis_score,
    coverage_by_grade,
    likeliest,
    referral_curve,
    sums_by_score,
    weighted_metrics,
)

MOST_SUBGROUPS = 20
SURE = 0.9
_UNSURE = re.compile(r"(^|; )unsure(:|;|$)")  # as a grader says, or crossfit
_OF_A_GRADE = ("accuracy", "mae", "within_one", "coverage", "set_size", "referral_rate", "accepted_accuracy")

Estimate = dict[str, float | None]


def measure(
    graded: Graded, *, resamples: int = 2000, seed: int = 0, threshold: float = 0.5, confidence_level: float = 0.95
) -> dict[str, Any]:
    """Measure graded films, with bootstrap intervals over patients (None where there is one patient only).

    Args:
        graded: At least one film.
        resamples: Bootstrap resamples.
        seed: Of the resamples.
        threshold: Calibrated P(KL >= 2) from which a film is called KL >= 2.
        confidence_level: Of the intervals, 0-1.

    Returns:
        `films`, `patients`, `by_grade` (films of each true grade); the settings; `metrics` (as `metric_intervals`);
        `coverage_by_grade`, `confusion` (rows: true grades), `roc` (of P(KL >= 2); the first threshold is None:
        nothing is called positive), `reliability` of the likeliest grade, `referral_curve`, and `gate_by_grade`
        (mean weight of each backbone).

    Raises:
        UserError: There is no film.
    """
    _check_any(graded)

    def statistics(weights: Floats) -> dict[str, Floats]:
        curves = {"curve": referral_curve(weights, graded.confidence, graded.grades != graded.labels)}
        if graded.sets is not None:
            curves["by_grade"] = coverage_by_grade(weights, graded.labels, graded.sets, graded.classes)
        return weighted_metrics(graded.weighted(weights, threshold)) | curves

    samples = bootstrap(statistics, graded.patients, resamples=resamples, seed=seed)
    values = statistics(np.ones((1, len(graded))))
    errors = _estimates(values.pop("curve")[0], samples["curve"], confidence_level)
    coverage = None
    if "by_grade" in values:
        coverage = _estimates(values.pop("by_grade")[0], samples["by_grade"], confidence_level)
    films = np.bincount(graded.labels, minlength=graded.classes).tolist()
    confusion = np.zeros((graded.classes, graded.classes), np.int64)
    np.add.at(confusion, (graded.labels, graded.grades), 1)
    return {
        "films": len(graded),
        "patients": int(graded.patients.max()) + 1,
        "by_grade": films,
        "resamples": resamples,
        "seed": seed,
        "confidence_level": confidence_level,
        "threshold": threshold,
        "metrics": _metrics({name: float(value[0]) for name, value in values.items()}, samples, confidence_level),
        "coverage_by_grade": coverage
        and [{"grade": grade, "films": films[grade], **estimate} for grade, estimate in enumerate(coverage)],
        "confusion": confusion.tolist(),
        "roc": _roc(graded),
        "reliability": {
            "calibrated": _reliability(graded, graded.probabilities),
            "uncalibrated": _reliability(graded, graded.raw),
        },
        "referral_curve": [
            {"referral_rate": rate, "error": error["value"], "low": error["low"], "high": error["high"]}
            for rate, error in zip(REFERRAL_RATES.tolist(), errors, strict=True)
        ],
        "gate_by_grade": _gate_by_grade(graded),
    }


def metric_intervals(
    graded: Graded, *, resamples: int = 2000, seed: int = 0, threshold: float = 0.5, confidence_level: float = 0.95
) -> dict[str, Estimate]:
    """The `metrics` of `measure` alone: {name: {"value", "low", "high"}}."""
    values = metric_values(graded, threshold)
    samples = bootstrap(
        lambda weights: weighted_metrics(graded.weighted(weights, threshold)),
        graded.patients,
        resamples=resamples,
        seed=seed,
    )
    return _metrics(values, samples, confidence_level)


def metric_values(graded: Graded, threshold: float = 0.5) -> dict[str, float]:
    """Every metric of `METRICS` for the films as they are, nan where undefined.

    Raises:
        UserError: There is no film.
    """
    _check_any(graded)
    values = weighted_metrics(graded.weighted(np.ones((1, len(graded))), threshold))
    return {name: float(value[0]) for name, value in values.items()}


def _check_any(graded: Graded) -> None:
    if not len(graded):
        raise UserError("There is no labelled film to measure.")


def subgroups(graded: Graded, columns: Sequence[str], **settings: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure each value of some columns by itself: {column: {value: {"films", "patients", "metrics"}}}.

    Args:
        graded: Films; an empty cell of theirs is "unknown", which comes last.
        columns: Of `graded.table`.
        **settings: Of `metric_intervals`.

    Raises:
        UserError: A column that isn't there, or with more than 20 values.
    """
    measured: dict[str, dict[str, dict[str, Any]]] = {}
    for column, names in group_names(graded.table, columns).items():
        measured[column] = {}
        for value in sorted(set(names.tolist()), key=lambda value: (value == "unknown", value)):
            films = graded.subset(names == value)
            measured[column][value] = {
                "films": len(films),
                "patients": int(films.patients.max()) + 1,
                "metrics": metric_intervals(films, **settings),
            }
    return measured


def by_true_grade(graded: Graded, **settings: Any) -> list[dict[str, Any]]:
    """Measure the films of each true grade by themselves: how many there are, and the metrics of `_OF_A_GRADE`.

    Args:
        graded: Films.
        **settings: Of `metric_intervals`.
    """
    rows: list[dict[str, Any]] = []
    for grade in range(graded.classes):
        films = graded.subset(graded.labels == grade)
        metrics = metric_intervals(films, **settings) if len(films) else {}
        found = {name: metrics[name] for name in _OF_A_GRADE if name in metrics}
        rows.append({"grade": grade, "films": len(films), **found})
    return rows


def mistakes(graded: Graded) -> dict[str, int]:
    """Counts of the mistakes that cost most.

    Returns:
        `far_and_kept`: films two or more grades off that are not referred; `sure`: films whose grade has a calibrated
        probability of `SURE` or more; `sure_and_wrong`: the wrong ones of these.
    """
    away, sure = np.abs(graded.grades - graded.labels), graded.confidence >= SURE
    return {
        "far_and_kept": int(((away > 1) & ~graded.referred).sum()),
        "sure": int(sure.sum()),
        "sure_and_wrong": int((sure & (away > 0)).sum()),
    }


def referred_for(graded: Graded, looks: Sequence[str]) -> dict[str, int]:
    """How many films are referred for each reason: what is wrong with their `looks` [N], and unsure grades.

    A film with several reasons counts for each; what differs in numbers alone is one reason.
    """
    reasons = []
    for reason, look, referred in zip(graded.reasons, looks, graded.referred.tolist(), strict=True):
        unsure = "unsure of the grade" if referred and _UNSURE.search(reason) else ""
        reasons.append(("", filter(None, [*look.split("; "), unsure])))
    said = sorted(by_kind(reasons), key=lambda kind: -len(kind.names))
    return {kind.text: len(kind.names) for kind in said}


def group_names(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, npt.NDArray[np.str_]]:
    """The subgroup of each film [N] by each of some columns of their table; "unknown" for an empty cell.

    Raises:
        UserError: A column that isn't there, or with more than 20 values.
    """
    if missing := [name for name in columns if name not in table]:
        raise UserError(
            f"subgroups: the films have no column {', '.join(missing)}; they have {', '.join(map(str, table))}."
        )
    groups = {}
    for name in columns:
        cells = table[name]
        groups[name] = cells.astype(str).where(cells.notna() & (cells.astype(str) != ""), "unknown").to_numpy(str)
        if (count := len(set(groups[name].tolist()))) > MOST_SUBGROUPS:
            raise UserError(
                f"subgroups: column {name} has {count} values, more than {MOST_SUBGROUPS}: it is no subgroup "
                "column. Group its values in a column of their own."
            )
    return groups


def worst_mistakes(graded: Graded, count: int = 10) -> list[int]:
    """Rows of the `count` worst wrong grades: most grades off first, then the surest, then in row order."""
    away = np.abs(graded.grades - graded.labels)
    order = np.lexsort((-graded.confidence, -away))
    return [int(row) for row in order if away[row]][:count]


def plain(value: float) -> float | None:
    """None where `value` is not a finite number."""
    return float(value) if math.isfinite(value) else None


def _metrics(
    values: Mapping[str, float], samples: Mapping[str, Floats], confidence_level: float
) -> dict[str, Estimate]:
    names = list(values)
    together = np.stack([samples[name] for name in names], axis=1)
    estimates = _estimates(np.array([values[name] for name in names]), together, confidence_level)
    return dict(zip(names, estimates, strict=True))


def _estimates(values: Floats, samples: Floats, confidence_level: float) -> list[Estimate]:
    """`values` [M] with their intervals from `samples` [resamples, M]."""
    low, high = percentile_interval(samples, confidence_level)
    return [
        {"value": plain(value), "low": plain(low[i]), "high": plain(high[i])} for i, value in enumerate(values.tolist())
    ]


def _roc(graded: Graded) -> dict[str, list[float | None]] | None:
    """The ROC curve's corners, from the strictest threshold on; None if only one side of KL 2 occurs."""
    arthritis = graded.labels >= ARTHRITIS
    if graded.classes != 5 or arthritis.all() or not arthritis.any():
        return None
    scores = arthritis_score(graded.probabilities)
    sums_of_sides = sums_by_score(np.ones((1, len(graded))), scores, arthritis)
    alarms, hits = (sums[0, ::-1].cumsum() for sums in sums_of_sides)
    corner = np.ones(len(alarms), bool)  # a point on the line between its neighbours says nothing
    corner[1:-1] = (np.diff(alarms, 2) != 0) | (np.diff(hits, 2) != 0)
    return {
        "false_positive_rate": [0.0, *(alarms / alarms[-1])[corner].tolist()],
        "true_positive_rate": [0.0, *(hits / hits[-1])[corner].tolist()],
        "thresholds": [None, *np.unique(scores)[::-1][corner].tolist()],
    }


def _reliability(graded: Graded, probabilities: Floats) -> list[dict[str, float | int | None]]:
    """Mean confidence in the likeliest grade and how often that is right, for each bin of the calibration error."""
    sure, right, bins = likeliest(probabilities, graded.labels)
    bins = bins.clip(max=ECE_BINS - 1)
    ends = [round(float(edge), 6) for edge in EDGES]
    rows: list[dict[str, float | int | None]] = []
    for i, (low, high) in enumerate(pairwise(ends)):
        inside = bins == i
        films = int(inside.sum())
        means = (float(sure[inside].mean()), float(right[inside].mean())) if films else (None, None)
        rows.append({"low": low, "high": high, "films": films, "confidence": means[0], "accuracy": means[1]})
    return rows


def _gate_by_grade(graded: Graded) -> dict[str, list[float | None]] | None:
    if graded.gate_weights is None:
        return None
    mine = [graded.gate_weights[graded.labels == grade] for grade in range(graded.classes)]
    means = [weights.mean(axis=0) if len(weights) else np.full(len(graded.backbones), np.nan) for weights in mine]
    return {
        backbone: [plain(mean) for mean in column]
        for backbone, column in zip(graded.backbones, np.transpose(means), strict=True)
    }
