"""Metal on a film: a prosthesis, which has no KL grade, or something small.

Metal is told from bone by what bone never is at once: flat within, and falling off as steeply as a cut along nearly all
of its border. Only shares of the film's own range count, so that the window it was saved with does not matter.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from legradnet.data.film import Gray

PROSTHESIS = "metal as large as a prosthesis: a replaced joint has no grade"

Metal = Literal["", "small", "prosthesis"]
Mask = npt.NDArray[np.bool_]

_SIDE = 128  # pixels that a joint is looked at with: sharp borders are still sharp, and the glow around them is not
_FINE_SIDE = 192  # for what is thin
_MOST = 400  # pixels of a film's longer side
_LEAST = 96  # of the shorter: fewer say nothing of borders
_LEAST_RANGE = 20  # grays
_STEP = 5  # pixels within which a border falls off
_AROUND = 13  # and within which it falls little more
_LEVELS = 14
_LARGEST_AREA = 0.6  # of the film
_LARGE = 0.085  # radius, share of the side of a joint cut close: screws, rods and plates have at most 0.08
_MARGIN = 0.12
_MOST_SPREAD, _MOST_CUT, _LEAST_FALL = 0.1, 0.3, 0.55  # of a `Region` that may be metal
_LEAST_FAR_FALL, _SMALL_FAR_FALL = 0.45, 0.7  # same, of what is large and small


class _Film:
    """A film [H, W] and how steeply its gray falls off.

    Attributes:
        gray: The film.
        low: Its darkest gray, but for one pixel of a hundred.
        span: From there to its brightest, but for one of a thousand.
        near: How far the gray falls within `_STEP` pixels.
        falls: Where that is 15 % of the range.
        far_falls: Where it is a quarter.
        is_steep: Where it is a quarter, and soon little more.
    """

    def __init__(self, gray: Gray) -> None:
        self.gray = gray
        self.low, high = np.percentile(gray, (1, 99.9)).tolist()
        self.span = high - self.low

    def measure(self) -> None:
        """Find out where it falls off."""
        self.near, wide = (_largest(self.gray, side) + _largest(~self.gray, side) - 255 for side in (_STEP, _AROUND))
        self.falls, self.far_falls = self.near > 0.15 * self.span, self.near > 0.25 * self.span
        self.is_steep = self.far_falls & (self.near > 0.6 * wide)


class Region:
    """Connected pixels above one gray level; what takes long to know of it is found out when it is asked for.

    The rules below rely on what `steep_regions` leaves out: borders that fall off on too small a share of their length.

    Args:
        film: The film it is part of.
        around: The part of the film that it lies in.
        own: Its pixels there.
        rim: Those of them that are its border.
        cut: Share of its border that is the film's edge.
    """

    def __init__(self, film: _Film, around: tuple[slice, slice], own: Mask, rim: Mask, cut: float) -> None:
        self._film, self._around, self._own, self._rim, self.cut = film, around, own, rim, cut

    def is_large_metal(self, joint: float) -> bool:
        """Sharp all around, or, where it glows, flat and less sharp; `joint` is the side of a joint cut close, pixels.

        Bone that is sharp all around, as it is drawn, is cut by the film's edge, and not as thick as a whole hinge.
        """
        if (self.steep >= 0.7 and self.cut < 0.1) or self.spread <= 0.025:
            return self._is_metal_of(_LARGE * joint)
        return self.steep >= 0.97 and self.cut < 0.2 and self._is_metal_of(0.29 * joint)

    def is_small_metal(self, joint: float) -> bool:
        """Same of what is thin: lines of dense bone are thinner, or less sharp."""
        if self.steep >= 0.85 and self.step >= 0.45:
            least = 0.015  # a staple
        elif self.steep >= 0.8 and self.step >= 0.3:
            least = 0.026  # a screw
        elif self.steep >= 0.74 or self.spread <= 0.035:
            least = 0.033  # a rod
        else:
            return False
        return self._is_metal_of(least * joint) and self.radius < _LARGE * joint

    def _is_metal_of(self, least: float) -> bool:
        """Whether it is as flat as any metal, and its radius has `least` pixels."""
        return self.spread <= _MOST_SPREAD and self.radius >= least

    def is_within(self, margin: float) -> bool:
        """Whether the centre is off all four edges by `margin`, share of the film."""
        x, y = self.centre
        return margin <= x <= 1 - margin and margin <= y <= 1 - margin

    def is_central(self) -> bool:
        """Whether the centre is in the ellipse that leaves the film's corners, where letters lie, free."""
        x, y = self.centre
        return ((x - 0.5) / 0.45) ** 2 + ((y - 0.5) / 0.48) ** 2 <= 1

    @cached_property
    def centre(self) -> tuple[float, float]:
        """Share of the film's width, and of its height."""
        y, x = (
            float(pixels.mean() + part.start) / side
            for pixels, part, side in zip(np.nonzero(self._own), self._around, self._film.gray.shape, strict=True)
        )
        return x, y

    @cached_property
    def steep(self) -> float:
        """Share of its border where the gray falls by a quarter of the film's range, and soon little more."""
        return np.count_nonzero(self._film.is_steep[self._around] & self._rim) / np.count_nonzero(self._rim)

    @cached_property
    def step(self) -> float:
        """Median fall along the border, share of the range."""
        return float(np.median(self._film.near[self._around][self._rim])) / self._film.span

    @cached_property
    def spread(self) -> float:
        """Standard deviation within, share of the range."""
        inner = self._own & (_largest(~self._own, _STEP) == 0)
        return float(self._film.gray[self._around][inner if inner.any() else self._own].std()) / self._film.span

    @cached_property
    def radius(self) -> float:
        """Of the largest circle within, pixels."""
        return float(ndimage.distance_transform_edt(np.pad(self._own, 1)).max())


def find_metal(gray: Gray, joint_share: float = 1.0) -> Metal:
    """Look for metal in a film [H, W] whose bone is bright.

    Args:
        gray: The film as read, any size.
        joint_share: Side of the square that would cut one joint close, share of the film's longer side.

    Returns:
        "prosthesis", "small" (screw, staple, rod, plate), or "" for none, for a lead letter at the margin, and for a
        film of fewer than 96 pixels a side.
    """
    if min(gray.shape) < _LEAST:
        return ""
    if _has_large_metal(gray, 1.0) or (joint_share < 1 and _has_large_metal(gray, joint_share)):
        return "prosthesis"
    return "small" if joint_share == 1 and _has_small_metal(gray) else ""


def _has_large_metal(gray: Gray, joint_share: float) -> bool:
    gray = _shrunk(gray, min(_SIDE / joint_share, _MOST))
    joint = joint_share * max(gray.shape)
    regions = steep_regions(gray, np.pi * (_LARGE * joint) ** 2, _LEAST_FAR_FALL)
    return any(region.is_within(_MARGIN) and region.is_large_metal(joint) for region in regions)


def _has_small_metal(gray: Gray) -> bool:
    gray = _shrunk(gray, _FINE_SIDE)
    regions = steep_regions(gray, 0.002 * gray.size, _SMALL_FAR_FALL)
    return any(region.is_central() and region.is_small_metal(max(gray.shape)) for region in regions)


def _shrunk(gray: Gray, longest: float) -> Gray:
    scale = longest / max(gray.shape)
    if scale >= 1:
        return gray
    size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
    return np.array(Image.fromarray(gray).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def steep_regions(gray: Gray, least: float, far_fall: float) -> Iterator[Region]:
    """Connected pixels of a film [H, W] above one of `_LEVELS` levels, `least` or more, whose border falls off.

    On a share `far_fall` of the border it does so by a quarter of the range. Left out are
    regions that are most of the film, or that its edge cuts along much of their border.
    """
    film = _Film(gray)
    if film.span < _LEAST_RANGE:
        return
    film.measure()
    if np.count_nonzero(film.is_steep) < np.sqrt(least):
        return
    rim_least = 0.7 * np.sqrt(least)  # of what any metal's border has of `far_falls`, however round it is
    for share in np.linspace(0.3, 0.97, _LEVELS):
        above = gray >= film.low + share * film.span
        rim = _rim(above)
        if np.count_nonzero(rim & film.far_falls) < rim_least:
            continue
        labels, count = ndimage.label(above)
        on_rim = np.flatnonzero(rim)
        whose = labels.ravel()[on_rim]
        borders, falls, far_falls = (
            np.bincount(some, minlength=count + 1)
            for some in (whose, whose[film.falls.ravel()[on_rim]], whose[film.far_falls.ravel()[on_rim]])
        )
        likely = (borders > 0) & (falls >= _LEAST_FALL * borders) & (far_falls >= far_fall * borders)
        if not likely.any():
            continue
        areas = np.bincount(labels.ravel(), minlength=count + 1)
        likely &= (areas >= least) & (areas <= _LARGEST_AREA * gray.size)
        places = ndimage.find_objects(labels) if likely.any() else []
        for number in np.flatnonzero(likely).tolist():
            edge = _on_edge(labels, number)
            if edge < _MOST_CUT * (edge + borders[number]):
                around = _wider(*places[number - 1])
                own = labels[around] == number
                yield Region(film, around, own, own & rim[around], edge / (edge + borders[number]))


def _wider(down: slice, across: slice) -> tuple[slice, slice]:
    """A part of a film with three pixels around."""
    return slice(max(0, down.start - 3), down.stop + 3), slice(max(0, across.start - 3), across.stop + 3)


def _largest(gray: npt.NDArray[Any], side: int) -> npt.NDArray[np.int16]:
    """Largest gray of the square around each pixel, as SciPy's filter gives it, far sooner for 8 bits."""
    for _ in range(2):
        reach, gray = 1, np.pad(gray, ((side // 2, side // 2), (0, 0)))
        while reach < side:
            step = min(reach, side - reach)
            gray, reach = np.maximum(gray[:-step], gray[step:]), reach + step
        gray = gray.T
    return gray.astype(np.int16)


def _rim(above: Mask) -> Mask:
    """Pixels beside one that is not above; SciPy's erosion takes far longer."""
    inner = above.copy()
    inner[1:] &= above[:-1]
    inner[:-1] &= above[1:]
    inner[:, 1:] &= above[:, :-1]
    inner[:, :-1] &= above[:, 1:]
    return above & ~inner


def _on_edge(labels: npt.NDArray[np.int32], number: int) -> int:
    """Pixels of a region on the film's edge."""
    return sum(int(np.count_nonzero(line == number)) for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
