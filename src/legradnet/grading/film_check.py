"""Does a film look like those that a network was trained on? A few plain measures, with limits from the training films.

It finds what can't be graded (blank, inverted, colour photograph, some other picture), not what is hard to grade.
"""

from collections.abc import Iterable
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from legradnet.data.film import THUMBNAIL, Film, thumbnail
from legradnet.grades import Floats
from legradnet.settings import Settings

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
# each measure is between -1 and 1, and its limits at most `_MARGIN` of their distance from the median beyond
Span = Annotated[list[Annotated[float, Field(ge=-3, le=3)]], Field(min_length=2, max_length=2)]
_STANDARDISED = float(THUMBNAIL)  # how far one of n values can be from their mean, in standard deviations, is < sqrt(n)


def _complete(limits: dict[str, Span]) -> dict[str, Span]:
    if limits.keys() != _REASONS.keys():
        raise ValueError(f"must have {', '.join(_REASONS)}, and nothing else")
    if crossed := [name for name, (low, high) in limits.items() if low > high]:
        raise ValueError(f"must each be [lowest, highest]; {crossed[0]} is not")
    return limits


class FilmCheck(Settings):
    """Limits of each measure and the training films' mean look.

    Attributes:
        limits: {measure: [lowest, highest]} that is not referred.
        mean_look: Mean of the training films' standardised thumbnails, [THUMBNAIL * THUMBNAIL] row by row.
        mean_histogram: Their mean cumulative histogram, [16].
        films: Training films it was fitted on.
    """

    limits: Annotated[dict[str, Span], AfterValidator(_complete)]
    mean_look: list[Annotated[float, Field(ge=-_STANDARDISED, le=_STANDARDISED)]] = Field(
        min_length=THUMBNAIL**2, max_length=THUMBNAIL**2
    )
    mean_histogram: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=_BINS, max_length=_BINS)
    films: int = Field(ge=1)

    @property
    def mean_film(self) -> Floats:
        """`mean_look` as a picture, [THUMBNAIL, THUMBNAIL]."""
        return np.asarray(self.mean_look).reshape(THUMBNAIL, THUMBNAIL)

    def reason(self, film: Film) -> str:
        """Why `film`, or its thumbnail, should be looked at by a reader; "" if nothing is wrong with its look."""
        measures = _measures(*_look(film), np.asarray(self.mean_look), np.asarray(self.mean_histogram))
        for name, value in measures.items():
            low, high = self.limits[name]
            below, above = _REASONS[name]
            if below and not value >= low:  # and not `value < low`, which nan is not
                return below
            if above and not value <= high:
                return above
        return ""


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
    measured = [_measures(*look, mean_look, mean_histogram) for look in looks]
    limits = {}
    for name in _REASONS:
        low, middle, high = np.quantile([measures[name] for measures in measured], [_TAIL, 0.5, 1 - _TAIL])
        lowest, highest = low - _MARGIN * (middle - low), high + _MARGIN * (high - middle)
        limits[name] = [float(max(lowest, low / 2) if low > 0 else lowest), float(highest)]
    likely = float(np.median([measures["likeness"] for measures in measured]))
    limits["likeness"][0] = max(limits["likeness"][0], likely / 2)  # however many are inverted
    limits["colour"] = [0.0, max(0.05, limits["colour"][1])]  # scanners and JPEG tint a gray film a little
    return FilmCheck(
        limits=limits, mean_look=mean_look.ravel().tolist(), mean_histogram=mean_histogram.tolist(), films=len(looks)
    )


def mean_look_of(films: Iterable[Film]) -> Floats:
    """Mean of the standardised thumbnails of `films`, [THUMBNAIL, THUMBNAIL]."""
    return np.mean([_standardised(_look(film)[0]) for film in films], axis=0)


def _look(film: Film) -> tuple[Floats, float]:
    return thumbnail(film).gray.astype(np.float64) / 255, film.colour


def _measures(gray: Floats, colour: float, mean_look: Floats, mean_histogram: Floats) -> dict[str, float]:
    """Measures of a thumbnail [THUMBNAIL, THUMBNAIL] in 0-1, the most telling first."""
    look, mean = _standardised(gray), mean_look.reshape(THUMBNAIL, THUMBNAIL)
    return {
        "colour": colour,
        "contrast": float(gray.std()),
        "likeness": float(max(_correlation(look, mean), _correlation(look[:, ::-1], mean))),
        "brightness": float(gray.mean()),
        "histogram": float(np.abs(_cumulative_histogram(gray) - mean_histogram).mean()),
    }


def _standardised(thumbnail: Floats) -> Floats:
    return (thumbnail - thumbnail.mean()) / (thumbnail.std() + 1e-3)


def _correlation(ours: Floats, theirs: Floats) -> float:
    ours, theirs = ours - ours.mean(), theirs - theirs.mean()
    return float((ours * theirs).sum() / (np.linalg.norm(ours) * np.linalg.norm(theirs) + 1e-12))


def _cumulative_histogram(thumbnail: Floats) -> Floats:
    return np.histogram(thumbnail, bins=_BINS, range=(0, 1))[0].cumsum() / thumbnail.size
