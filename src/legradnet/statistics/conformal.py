"""Conformal prediction with films of two kinds: those of a site, and older ones that count for less.

Where films are not exchangeable, weights that are fixed before the scores are seen keep the promise of coverage up to
the weights' share of older films times how unlike the site's they are (Barber, Candes, Ramdas and Tibshirani 2023,
"Conformal prediction beyond exchangeability", arXiv:2202.13415, theorem 2). Likelihood ratios (Tibshirani et al. 2019,
arXiv:1904.06019) would keep it whole, but have to be estimated, which needs more films than a site with few has.
"""

import math

import numpy as np

from legradnet.grades import Floats


def conformal_quantile(scores: Floats, coverage: float, weights: Floats | None = None) -> float:
    """The smallest score that the next film's is at most with a probability of `coverage`; infinite if none is known.

    Args:
        scores: Of films whose truth is known [N].
        coverage: 0-1.
        weights: What each counts, 0-1 [N], beside 1 for the next film; None: 1 each, which is split conformal
            prediction (Vovk et al. 2005), whose quantile is the ceil((N + 1) * coverage)-th smallest score.
    """
    order = np.argsort(scores, kind="stable")
    counted = np.arange(1, len(scores) + 1) if weights is None else weights[order].cumsum()
    total = (counted[-1] if len(scores) else 0) + 1
    place = int(np.searchsorted(counted, total * coverage, side="left"))
    return float(scores[order[place]]) if place < len(scores) else math.inf


def weight_of_older(site: int, older: int, enough: int) -> float:
    """What each of `older` films counts beside `site` films, 0-1: what the site lacks of `enough`, in equal parts."""
    return min(1.0, max(0, enough - site) / older) if older else 0.0
