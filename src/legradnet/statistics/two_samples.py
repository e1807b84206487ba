"""Are films of two places alike? Tests for each number of theirs, and how many of them may be wrong together."""

from collections.abc import Sequence

import numpy as np

from legradnet.grades import Floats
from legradnet.statistics.metrics import Bools

_RESAMPLES = 400


def distributions_differ(ours: Floats, theirs: Floats) -> float:
    """P-value of the hypothesis that two samples [N] and [M] are of one distribution (Kolmogorov and Smirnov).

    Where values are there more than once it is on the safe side: the test is made for values that are all different.
    """
    from scipy.stats import ks_2samp  # late: scipy.stats is slow to import

    if not len(ours) or not len(theirs):
        return 1.0
    return float(ks_2samp(ours, theirs).pvalue)


def shares_differ(ours: Bools, theirs: Bools) -> float:
    """P-value of the hypothesis that two samples [N] and [M] have one share of true ones (Fisher's exact test)."""
    from scipy.stats import fisher_exact

    if not len(ours) or not len(theirs):
        return 1.0
    counts = [[int(sample.sum()), int((~sample).sum())] for sample in (ours, theirs)]
    return float(fisher_exact(counts).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values that hold for all of them together, whatever depends on what, each in the place of its own.

    That any is below a level where its hypothesis is true has at most that probability (Holm 1979, "A simple
    sequentially rejective multiple test procedure").
    """
    order = np.argsort(p_values, kind="stable")
    times = np.arange(len(order), 0, -1)
    together = np.minimum(np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * times), 1.0)
    adjusted = np.empty(len(order))
    adjusted[order] = together
    return adjusted.tolist()


def accuracy_without_labels(
    confidence: Floats, right: Bools, of_others: Floats, *, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """How many of some films are graded right, by how sure the network is: the average thresholded confidence.

    Garg et al. 2022, arXiv:2201.04234: the threshold is that above which as many labelled films lie as are graded
    right. It holds where confidence means the same for both; what makes a network sure and wrong it can't see.

    Args:
        confidence: Of films whose truth is known [N].
        right: Whether these are graded right [N].
        of_others: Confidence of the others [M].
        level: Of the interval.
        seed: Of its bootstrap, of both samples.

    Returns:
        The estimate, and the interval's two ends.
    """
    random = np.random.default_rng(seed)
    known = random.integers(len(confidence), size=(_RESAMPLES, len(confidence)))
    thresholds = [threshold_of(*film) for film in zip(confidence[known], right[known], strict=True)]
    # how many of the others are above each is drawn from them as whole resamples would be
    shares = np.array([share_above(of_others, threshold) for threshold in thresholds])
    estimates = random.binomial(len(of_others), shares) / len(of_others)
    low, high = np.quantile(estimates, [(1 - level) / 2, (1 + level) / 2])
    return share_above(of_others, threshold_of(confidence, right)), float(low), float(high)


def threshold_of(confidence: Floats, right: Bools) -> float:
    """The confidence above which as many films lie as are graded right; between two films', or infinite for none."""
    order = np.sort(confidence)[::-1]
    count = int(right.sum())
    if count == 0:
        return np.inf
    return float(order[-1]) - 1.0 if count == len(order) else float(order[count - 1] + order[count]) / 2


def share_above(confidence: Floats, threshold: float) -> float:
    """Share of films that are surer than a threshold; those at it count half."""
    return float((confidence > threshold).mean() + (confidence == threshold).mean() / 2)
