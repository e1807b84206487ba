"""Metal on a film: a prosthesis, which has no KL grade, or something small.

Metal is told from bone by what bone never is at once: flat within, and falling off as steeply as a cut along nearly all
of its border. Only shares of the film's own range count, so that the window it was saved with does not matter.
"""

from collections.abc import Iterator
from typing import Literal, NamedTuple

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
_MOST_SPREAD, _MOST_CUT, _LEAST_FALL, _LEAST_FAR_FALL = 0.1, 0.3, 0.55, 0.45  # of a `Region` that may be metal
_ONES = np.ones((3, 3), bool)


class Region(NamedTuple):
    """Connected pixels above one gray level.

    Attributes:
        radius: Of the largest circle within, pixels.
        steep: Share of its border where the gray falls by a quarter of the film's range, and soon little more.
        fall: Share of its border where the gray falls by 15 % of the range.
        far_fall: Same by a quarter.
        step: Median fall along the border, share of the range.
        spread: Standard deviation within, share of the range.
        cut: Share of its border that is the film's edge.
        x: Its centre, share of the width.
        y: Same of the height.
    """

    radius: float
    steep: float
    fall: float
    far_fall: float
    step: float
    spread: float
    cut: float
    x: float
    y: float

    def is_large_metal(self, joint: float) -> bool:
        """Sharp all around, or, where it glows, flat and less sharp; `joint` is the side of a joint cut close, pixels.

        Bone that is sharp all around, as it is drawn, is cut by the film's edge, and not as thick as a whole hinge.
        """
        radius = self.radius / joint
        is_sharp = self.steep >= 0.7 and self.cut < 0.1
        is_flat = self.spread <= 0.025 and self.fall >= _LEAST_FALL and self.far_fall >= _LEAST_FAR_FALL
        is_hinge = self.steep >= 0.97 and self.cut < 0.2 and radius >= 0.29
        return radius >= _LARGE and (is_sharp or is_flat or is_hinge)

    def is_small_metal(self, joint: float) -> bool:
        """Same of what is thin: lines of dense bone are thinner, or less sharp."""
        radius = self.radius / joint
        is_screw = radius >= 0.026 and self.steep >= 0.8 and self.step >= 0.3
        is_staple = radius >= 0.015 and self.steep >= 0.85 and self.step >= 0.45
        is_rod = radius >= 0.033 and (self.steep >= 0.74 or (self.far_fall >= 0.7 and self.spread <= 0.035))
        return radius < _LARGE and (is_screw or is_staple or is_rod)

    def is_within(self, margin: float) -> bool:
        """Whether the centre is off all four edges by `margin`, share of the film."""
        return margin <= self.x <= 1 - margin and margin <= self.y <= 1 - margin

    def is_central(self) -> bool:
        """Whether the centre is in the ellipse that leaves the film's corners, where letters lie, free."""
        return ((self.x - 0.5) / 0.45) ** 2 + ((self.y - 0.5) / 0.48) ** 2 <= 1


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
    regions = steep_regions(gray, least=np.pi * (_LARGE * joint) ** 2)
    return any(region.is_large_metal(joint) and region.is_within(_MARGIN) for region in regions)


def _has_small_metal(gray: Gray) -> bool:
    gray = _shrunk(gray, _FINE_SIDE)
    regions = steep_regions(gray, least=0.002 * gray.size)
    return any(region.is_small_metal(max(gray.shape)) and region.is_central() for region in regions)


def _shrunk(gray: Gray, longest: float) -> Gray:
    scale = longest / max(gray.shape)
    if scale >= 1:
        return gray
    size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
    return np.array(Image.fromarray(gray).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def steep_regions(gray: Gray, least: float) -> Iterator[Region]:
    """Connected pixels of a film [H, W] above one of `_LEVELS` levels, `least` or more, that may be metal."""
    low, high = np.percentile(gray, (1, 99.9))
    span = float(high - low)
    if span < _LEAST_RANGE:
        return
    near, wide = (_largest(gray, side) + _largest(~gray, side) - 255 for side in (_STEP, _AROUND))
    fall, far_fall = near > 0.15 * span, near > 0.25 * span
    steep = far_fall & (near > 0.6 * wide)
    rim_least = 0.7 * np.sqrt(least)  # of what any metal's border has of `far_fall`, however round it is
    if np.count_nonzero(steep) < np.sqrt(least):
        return
    for level in np.linspace(low + 0.3 * span, low + 0.97 * span, _LEVELS):
        above = gray >= level
        rim = _rim(above)
        if np.count_nonzero(rim & far_fall) < rim_least:
            continue
        labels, count = ndimage.label(above)
        areas, borders, falls, far_falls = (
            np.bincount(labels[some], minlength=count + 1) for some in (above, rim, rim & fall, rim & far_fall)
        )
        likely = (areas >= least) & (areas <= _LARGEST_AREA * gray.size) & (borders > 0)
        likely &= (falls >= _LEAST_FALL * borders) & (far_falls >= _LEAST_FAR_FALL * borders)
        places = ndimage.find_objects(labels) if likely[1:].any() else []
        for number in (np.flatnonzero(likely[1:]) + 1).tolist():
            around = tuple(slice(max(0, side.start - 3), side.stop + 3) for side in places[number - 1])
            region, border = labels[around] == number, int(borders[number])
            own_rim = region & rim[around]
            inner = ndimage.binary_erosion(region, _ONES, iterations=2, border_value=1)
            within = gray[around][inner if inner.any() else region]
            spread, edge = float(within.std()) / span, _on_edge(labels, number)
            if spread > _MOST_SPREAD or edge >= _MOST_CUT * (edge + border):
                continue  # before what takes longest
            y, x = ndimage.center_of_mass(region)
            yield Region(
                radius=float(ndimage.distance_transform_edt(np.pad(region, 1)).max()),
                steep=np.count_nonzero(steep[around][own_rim]) / border,
                fall=float(falls[number]) / border,
                far_fall=np.count_nonzero(far_fall[around][own_rim]) / border,
                step=float(np.median(near[around][own_rim])) / span,
                spread=spread,
                cut=edge / (edge + border),
                x=(x + around[1].start) / gray.shape[1],
                y=(y + around[0].start) / gray.shape[0],
            )


def _largest(gray: Gray, side: int) -> npt.NDArray[np.int16]:
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
