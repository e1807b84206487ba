"""Two gradings of the same films against each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError
from legradnet.evaluation.graded import Graded
from legradnet.evaluation.numbers import metric_values, plain
from legradnet.grades import Floats, Ints
from legradnet.statistics.bootstrap import bootstrap, percentile_interval
from legradnet.statistics.metrics import weighted_metrics


def compare(
    a: Graded,
    b: Graded,
    *,
    resamples: int = 2000,
    seed: int = 0,
    threshold: float = 0.5,
    confidence_level: float = 0.95,
) -> dict[str, dict[str, Any]]:
    """How much `b` differs from `a`, in each metric that both have, with a paired bootstrap over patients.

    Both are measured on the same resamples, so that what makes films hard or easy for both cancels out.

    Args:
        a: Graded films.
        b: The same films, in any order.
        resamples: Bootstrap resamples.
        seed: Of the resamples.
        threshold: Calibrated P(KL >= 2) from which a film is called KL >= 2.
        confidence_level: Of the intervals, 0-1.

    Returns:
        {name: {"a": value, "b": value, "difference": b - a, "low", "high"}}, None where undefined; the interval is the
        difference's.

    Raises:
        UserError: Not the same films, true grades, patients or number of grades.
    """
    rows = _rows_in(a, b)
    values, others = metric_values(a, threshold), metric_values(b, threshold)
    names = [name for name in values if name in others]

    def differences(weights: Floats) -> dict[str, Floats]:
        before = weighted_metrics(a.weighted(weights, threshold))
        after = weighted_metrics(b.weighted(weights[:, rows], threshold))
        return {name: after[name] - before[name] for name in names}

    samples = bootstrap(differences, a.patients, resamples=resamples, seed=seed)
    differing = {}
    for name in names:
        low, high = percentile_interval(samples[name], confidence_level)
        differing[name] = {
            "a": plain(values[name]),
            "b": plain(others[name]),
            "difference": plain(others[name] - values[name]),
            "low": plain(float(low)),
            "high": plain(float(high)),
        }
    return differing


def _rows_in(a: Graded, b: Graded) -> Ints:
    """The row in `a` of each film of `b` [N]."""
    mine, theirs = (np.array(graded.names, str) for graded in (a, b))
    for names in (mine, theirs):
        distinct, times = np.unique(names, return_counts=True)
        if (times > 1).any():
            raise UserError(f"Two gradings can't be compared: {_some(distinct[times > 1])} there more than once.")
    if len(other := np.setxor1d(mine, theirs)):
        raise UserError(f"Two gradings can't be compared: they are not of the same films, {_some(other)} in one only.")
    if a.classes != b.classes:
        raise UserError(f"Two gradings can't be compared: one has {a.classes} grades, the other {b.classes}.")
    order = mine.argsort()
    rows = order[np.searchsorted(mine, theirs, sorter=order)]
    patients, others = (graded.table["patient"].astype(str).to_numpy(str) for graded in (a, b))
    for what, differs in (
        ("true grade", a.labels[rows] != b.labels),
        ("patient", patients[rows] != others),
    ):
        if differs.any():
            films = _some(theirs[differs])
            raise UserError(f"Two gradings can't be compared: not the same {what} in both, {films} different.")
    return rows


def _some(films: npt.NDArray[np.str_]) -> str:
    """A few of `films` by name, and how many more, with the verb that follows."""
    more = f" and {len(films) - 3} more" if len(films) > 3 else ""
    return ", ".join(films[:3]) + more + (" is" if len(films) == 1 else " are")
