"""A few numbers of a film by which films of two places, or of two weeks, can be compared without their labels."""

from typing import Any

import numpy as np

from legradnet.data.film import Film, Gray

MEASURES = ("brightness", "contrast", "sharpness", "width", "height")
_PIXELS = 65_536  # of a film are enough for its mean and spread
_DIGITS = 6
_MOST = 1e9  # of any of them, also of those that somebody else has written


def measures_of(film: Film, square: Gray) -> dict[str, float]:
    """Measure a film as read, and `square` [S, S], as a network sees it.

    Returns:
        `brightness` and `contrast`, mean and standard deviation of the film's gray, 0-1; `sharpness`, mean difference
        of neighbours' slopes in the square in units of its own contrast, which blur lowers and noise and the blocks of
        strong JPEG raise; `width` and `height` of the film in pixels.
    """
    height, width = film.gray.shape
    step = max(1, int(np.sqrt(film.gray.size / _PIXELS)))
    some = film.gray[::step, ::step].astype(np.float32) / 255
    seen = square.astype(np.float32) / 255
    bends = [float(np.abs(np.diff(seen, n=2, axis=axis)).mean()) for axis in (0, 1)]
    found = {
        "brightness": float(some.mean()),
        "contrast": float(some.std()),
        "sharpness": float(np.mean(bends) / (seen.std() + 1e-3)),
    }
    return {name: round(value, _DIGITS) for name, value in found.items()} | {"width": width, "height": height}


def are_measures(values: Any) -> bool:
    """Whether this is what `measures_of` gives, read back from a file."""
    return (
        isinstance(values, dict)
        and all(
            isinstance(values.get(name), (int, float)) and not isinstance(values.get(name), bool) for name in MEASURES
        )
        and all(abs(values[name]) < _MOST for name in MEASURES)
    )
