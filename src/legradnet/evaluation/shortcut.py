"""The joint-masked test: what a network still knows when it can't see the joint is a shortcut."""

import numpy as np

from legradnet.data.film import Gray

JOINT_BAND = (0.35, 0.65)  # of a knee crop's height, from the top; the joint space lies in its middle


def blank_joint(film: Gray) -> Gray:
    """A copy of `film` [H, W] whose rows in `JOINT_BAND` have the film's mean gray."""
    top, bottom = (round(share * film.shape[0]) for share in JOINT_BAND)
    masked = film.copy()
    masked[top:bottom] = np.uint8(round(float(film.mean())))
    return masked
