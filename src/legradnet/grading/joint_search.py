"""Is a film a joint cut close? In a whole film some part looks more like the training films than the film does."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from legradnet.data.film import Gray
from legradnet.grades import Floats

_SIDE = 16  # pixels of the square that is looked for: less sees no joint, more takes longer and finds no more
_NOISE = 2.0  # grays: of a part with less contrast nothing is likely
_SHARES = (0.25, 0.3, 0.35, 0.42, 0.5, 0.6, 0.7, 0.8)  # sides of the square, shares of the film's longer side
_CLOSE = 0.65  # a joint that fills more may be called cut close
_LONG = 1.4  # longer side by shorter
_LIKELY, _SURE = 0.74, 0.79  # likeness of a joint
_MARGIN = 0.12  # that a part of a film which is not long must be likelier by: as much as in no val film of OAI
_INVERTED = 0.1


class Joint(NamedTuple):
    """What was found; a likeness is a correlation with the mean look of training films, -1 to 1.

    Attributes:
        film: Likeness of the film as a whole.
        part: Likeness of its likeliest square of at most `_CLOSE` of the longer side.
        part_share: Side of that square, share of the longer side.
        share: Same of the likeliest square of all; 1.0 where that is the film.
        is_long: Whether the film is longer than a cut joint.
        is_inverted: Whether all of this is true of the film with black and white exchanged.
    """

    film: float
    part: float
    part_share: float
    share: float
    is_long: bool
    is_inverted: bool

    def why_not_close(self, looks_odd: bool) -> str:
        """Why the film is no joint cut close; "" if nothing tells so, for which a film that `looks_odd` needs less."""
        if self.part < (_SURE if looks_odd else _LIKELY) or self.part - self.film < (0 if self.is_long else _MARGIN):
            return ""
        return (
            f"not a joint cut close: a whole film, it seems, where a joint fills {100 * self.part_share:.0f} % of the "
            "longer side; cut it to one joint"
        )


def search_joint(gray: Gray, mean_look: Floats) -> Joint:
    """Look for a joint in `gray` [H, W] by the mean look [T, T] of training films, as it is and mirrored."""
    look = np.array(Image.fromarray(mean_look.astype(np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BOX))
    look -= look.mean()
    look /= np.linalg.norm(look) + 1e-6
    looks = np.stack([look.ravel(), look[:, ::-1].ravel()], axis=1)
    longer, shorter = max(gray.shape), min(gray.shape)
    most = 2 * _SIDE / _SHARES[0]
    base = _shrunk(gray, most / longer) if longer > most else gray
    whole = _likenesses(base, (_SIDE, _SIDE), looks)
    found = {1.0: whole}
    for share in _SHARES:
        if shorter >= 0.8 * share * longer:
            height, width = (max(_SIDE, round(_SIDE * side / (share * longer))) for side in gray.shape)
            found[share] = _likenesses(base, (height, width), looks)
    lowest, highest = min(low for low, _ in found.values()), max(high for _, high in found.values())
    is_inverted = -lowest > highest + _INVERTED
    likeness = {share: -low if is_inverted else high for share, (low, high) in found.items()}
    part_share = max((share for share in likeness if share <= _CLOSE), key=lambda share: likeness[share])
    return Joint(
        film=likeness[1.0],
        part=likeness[part_share],
        part_share=part_share,
        share=max(likeness, key=lambda share: likeness[share]),
        is_long=longer >= _LONG * shorter,
        is_inverted=is_inverted,
    )


def _shrunk(gray: Gray, scale: float) -> Gray:
    height, width = (max(1, round(side * scale)) for side in gray.shape)
    return np.array(Image.fromarray(gray).resize((width, height), Image.Resampling.BOX, reducing_gap=2.0))


def _likenesses(gray: Gray, size: tuple[int, int], looks: Floats) -> tuple[float, float]:
    """Lowest and highest correlation of any square of `gray`, brought to `size`, with any of `looks` [T * T, N]."""
    small = np.array(Image.fromarray(gray).resize(size[::-1], Image.Resampling.BOX), np.float32)
    squares = sliding_window_view(small, (_SIDE, _SIDE)).reshape(-1, _SIDE**2)
    mean, power = (_sums(some) / _SIDE**2 for some in (small, small * small))
    contrast = np.sqrt(np.maximum(power - mean**2, 0)).ravel()
    correlations = (squares @ looks) / (_SIDE * (contrast + _NOISE))[:, None]
    return float(correlations.min()), float(correlations.max())


def _sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Of each square of `values` [H, W]."""
    total = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    values.cumsum(0, np.float64).cumsum(1, out=total[1:, 1:])
    sums: npt.NDArray[np.float64] = total[_SIDE:] - total[:-_SIDE]
    return sums[:, _SIDE:] - sums[:, :-_SIDE]
