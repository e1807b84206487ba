"""What to watch while there are no grades to learn: how many directions features use, what a line reads in them."""

from collections.abc import Callable

import numpy as np

from legradnet.grades import Floats, Ints
from legradnet.statistics.metrics import grading_metrics

_FLOOR = 1e-7  # added to shares, as Garrido et al. do
RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def effective_rank(features: Floats) -> float:
    """How many directions features [N, D] use: the exponential of their singular values' entropy.

    RankMe (Garrido et al. 2023, arXiv:2210.02885): 1 where all films are told alike, at most min(N, D).
    """
    if not np.isfinite(features).all():
        return 1.0
    values = np.linalg.svd(features - features.mean(axis=0), compute_uv=False)
    if not values.sum():
        return 1.0
    shares = values / values.sum() + _FLOOR
    return float(np.exp(-(shares * np.log(shares)).sum()))


def linear_probe(
    train: Floats, train_labels: Ints, val: Floats, val_labels: Ints, num_classes: int
) -> dict[str, float]:
    """QWK and accuracy of a ridge regression on the grades, by a line in features; nan where there is nothing to learn.

    The strength of the ridge is chosen on a quarter of the training films, so that validation chooses nothing.

    Args:
        train: Features [N, D] of training films.
        train_labels: Their grades [N]; -1 = unknown, and not used.
        val: Features [M, D] of validation films.
        val_labels: Their grades [M].
        num_classes: K.
    """
    known, measured = train_labels >= 0, val_labels >= 0
    train, train_labels, val, val_labels = train[known], train_labels[known], val[measured], val_labels[measured]
    nothing = {"qwk": float("nan"), "accuracy": float("nan")}
    if len(np.unique(train_labels)) < 2 or len(val_labels) < 2 or not np.isfinite(train).all():
        return nothing
    mean, spread = train.mean(axis=0), train.std(axis=0) + 1e-6
    train, val = (train - mean) / spread, (val - mean) / spread
    held = np.arange(len(train)) % 4 == 0
    chosen = RIDGES[0]
    if held.any() and (~held).sum() >= 2:
        errors = [
            float(np.square(_line(train[~held], train_labels[~held], ridge)(train[held]) - train_labels[held]).mean())
            for ridge in RIDGES
        ]
        chosen = RIDGES[int(np.argmin(errors))]
    grades = np.clip(np.rint(_line(train, train_labels, chosen)(val)), 0, num_classes - 1).astype(np.int64)
    agreement = grading_metrics(np.eye(num_classes)[grades], grades, val_labels)
    return {name: float(agreement[name]) for name in nothing}


def _line(features: Floats, labels: Ints, ridge: float) -> Callable[[Floats], Floats]:
    middle = labels.mean()
    moments = features.T @ features / len(features)
    weights = np.linalg.solve(moments + ridge * np.eye(len(moments)), features.T @ (labels - middle) / len(features))
    return lambda others: others @ weights + middle
