"""The values that a film's pixels have, each once: thousands, where pixels are millions."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Gray

Counts = npt.NDArray[np.int64]

_MOST = 2**20  # between the lowest and the highest value: more is no film's, and not worth a table
_AT_ONCE = 2**20  # pixels


class Levels(NamedTuple):
    """What values there are in a film [H, W], ascending [N], and how many pixels have each [N].

    A film whose values lie too far apart has instead each pixel's, in their order.
    """

    film: npt.NDArray[Any]
    values: npt.NDArray[Any]
    counts: Counts
    is_each_pixel: bool

    def picture(self, grays: Gray) -> Gray:
        """The film [H, W] with the gray of each value, of `grays` [N]."""
        if self.is_each_pixel:
            return grays.reshape(self.film.shape)
        table = np.zeros(int(self.values[-1]) - int(self.values[0]) + 1, np.uint8)
        table[self.values.astype(np.int64) - int(self.values[0])] = grays
        picture = np.empty(self.film.shape, np.uint8)
        for place, steps in _by_rows(self.film, int(self.values[0])):
            picture[place] = table[steps]
        return picture


def levels_of(film: npt.NDArray[Any]) -> Levels:
    """The levels of a film of whole numbers."""
    low, high = int(film.min()), int(film.max())
    if high - low >= _MOST:
        return Levels(film, film.reshape(-1), np.ones(film.size, np.int64), True)
    counts = np.zeros(high - low + 1, np.int64)
    for _, steps in _by_rows(film, low):
        counts += np.bincount(steps.reshape(-1), minlength=len(counts))
    there = counts.nonzero()[0]
    return Levels(film, (there + low).astype(film.dtype), counts[there], False)


def _by_rows(film: npt.NDArray[Any], low: int) -> Iterator[tuple[slice, npt.NDArray[np.int64]]]:
    """Some rows of `film` at a time as steps above `low`, and which they are."""
    rows = max(1, _AT_ONCE * len(film) // film.size)
    for start in range(0, len(film), rows):
        place = slice(start, start + rows)
        yield place, film[place].astype(np.int64) - low
