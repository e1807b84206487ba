"""Does a film look like those that a network was trained on? A few plain measures, with limits from the training films.

It finds what can't be graded (blank, inverted, colour photograph, some other picture), not what is hard to grade.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.data.film import THUMBNAIL, Film, thumbnail

MIN_FILMS = 30
_BINS = 16
_TAIL = 0.02  # share of the training films that count for no limit: public sets hold inverted films too
_MARGIN = 0.7  # added to each limit, in units of its distance from the median
_REASONS = {
    "contrast": ("blank: it has almost no contrast", "its contrast is far above that of the training films"),
    "brightness": ("far darker than the training films", "far brighter than the training films"),
    "likeness": ("does not look like the training films (inverted, on its side, or no knee)", ""),
    "histogram": ("", "its grays are distributed unlike those of the training films"),
    "colour": ("", "a colour picture, not a radiograph"),
}


@dataclass(frozen=True)
class FilmCheck:
    """Limits of each measure and the training films' mean look.

    Attributes:
        limits: {measure: (lowest, highest)} that is not referred.
        mean_look: Mean of the training films' standardised thumbnails, [THUMBNAIL * THUMBNAIL] row by row.
        mean_histogram: Their mean cumulative histogram, [16].
        films: Training films it was fitted on.
    """

    limits: Mapping[str, tuple[float, float]]
    mean_look: tuple[float, ...]
    mean_histogram: tuple[float, ...]
    films: int

    def reason(self, film: Film) -> str:
        """Why `film`, or its thumbnail, should be looked at by a reader; "" if nothing is wrong with its look."""
        found = self._measures(*_look(film))
        for name, value in found.items():
            low, high = self.limits[name]
            below, above = _REASONS[name]
            if value < low and below:
                return below
            if value > high and above:
                return above
        return ""

    def _measures(self, thumbnail: npt.NDArray[np.float64], colour: float) -> dict[str, float]:
        """Measures of a thumbnail [THUMBNAIL, THUMBNAIL] in 0-1, the most telling first."""
        mean = np.reshape(self.mean_look, (THUMBNAIL, THUMBNAIL))
        look = _standardised(thumbnail)
        return {
            "colour": colour,
            "contrast": float(thumbnail.std()),
            "likeness": float(max(_correlation(look, mean), _correlation(look[:, ::-1], mean))),
            "brightness": float(thumbnail.mean()),
            "histogram": float(np.abs(_cumulative_histogram(thumbnail) - self.mean_histogram).mean()),
        }

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return {
            "limits": {name: list(pair) for name, pair in self.limits.items()},
            "mean_look": list(self.mean_look),
            "mean_histogram": list(self.mean_histogram),
            "films": self.films,
        }

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> "FilmCheck":
        """From what `to_plain` gave."""
        return cls(
            limits={name: (float(low), float(high)) for name, (low, high) in values["limits"].items()},
            mean_look=tuple(values["mean_look"]),
            mean_histogram=tuple(values["mean_histogram"]),
            films=int(values["films"]),
        )


def fit_film_check(films: Iterable[Film]) -> FilmCheck | None:
    """Fit the limits on training films as they are in their files, or on their thumbnails; None for under `MIN_FILMS`.

    A limit is the measure's 2 % or 98 % quantile, moved away from the median by 0.7 of its own distance from it (but a
    lower limit at most to its half).
    """
    looks = [_look(film) for film in films]
    if len(looks) < MIN_FILMS:
        return None
    mean_look = np.mean([_standardised(thumbnail) for thumbnail, _ in looks], axis=0)
    mean_histogram = np.mean([_cumulative_histogram(thumbnail) for thumbnail, _ in looks], axis=0)
    unlimited = FilmCheck({}, tuple(mean_look.ravel().tolist()), tuple(mean_histogram.tolist()), len(looks))
    measured = [unlimited._measures(*look) for look in looks]
    limits = {}
    for name in _REASONS:
        low, middle, high = np.quantile([measures[name] for measures in measured], [_TAIL, 0.5, 1 - _TAIL])
        lowest, highest = low - _MARGIN * (middle - low), high + _MARGIN * (high - middle)
        limits[name] = (float(max(lowest, low / 2) if low > 0 else lowest), float(highest))
    likely = float(np.median([measures["likeness"] for measures in measured]))
    limits["likeness"] = (max(limits["likeness"][0], likely / 2), limits["likeness"][1])  # however many are inverted
    limits["colour"] = (0.0, max(0.05, limits["colour"][1]))  # scanners and JPEG tint a gray film a little
    return FilmCheck(limits, unlimited.mean_look, unlimited.mean_histogram, len(looks))


def _look(film: Film) -> tuple[npt.NDArray[np.float64], float]:
    return thumbnail(film).gray.astype(np.float64) / 255, film.colour


def _standardised(thumbnail: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return (thumbnail - thumbnail.mean()) / (thumbnail.std() + 1e-3)


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).sum() / (np.linalg.norm(one) * np.linalg.norm(other) + 1e-12))


def _cumulative_histogram(thumbnail: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.histogram(thumbnail, bins=_BINS, range=(0, 1))[0].cumsum() / thumbnail.size
