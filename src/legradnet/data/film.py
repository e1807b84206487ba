"""A radiograph in memory: 8-bit gray, how deep values become that, and how it becomes a square."""

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from legradnet.data.depth import Deep
from legradnet.data.sides import Side
from legradnet.errors import UserError

Fit = Literal["pad", "crop", "stretch"]
Gray = npt.NDArray[np.uint8]

MIN_SIDE = 16
MAX_PIXELS = (
    100_000_000  # a film is 10 to 30 million, a leg from hip to ankle up to 100; Pillow itself warns from 89 on
)
DEEP_PERCENTILES = (0.5, 99.5)
THUMBNAIL = 32  # pixels a side
_AT_ONCE = 2**20  # values that are floats at the same time


class ImageError(UserError):
    """A source that is not a usable radiograph; says which and why."""


@dataclass(frozen=True)
class Film:
    """One radiograph as read.

    Attributes:
        gray: uint8 [H, W].
        side: "L" or "R" where the file itself says so (DICOM), else "".
        colour: Mean over the pixels of (largest - smallest RGB channel) / 255 before the film became gray, 0-1; 0.0
            for gray.
        remarks: What its reader has to say of it, as "the first of 12 frames".
        doubts: Those of the remarks that tell why this is perhaps not the picture that was meant, as two statements of
            what is black: they refer the film, the others are only told.
        patient: The same for films of one patient, while a command runs, where the file tells (`patients`), else "".
        deep: What became `gray`, where that was asked for (`depth_kept`) and was more than 8-bit gray.
    """

    gray: Gray
    side: Side = ""
    colour: float = 0.0
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    patient: str = ""
    deep: Deep | None = None


# What a reader calls before it decodes, with the seconds of a processor and the bytes that this may take, from what is
# checked of the film: see `legradnet.data.reading`. None instead of it: only what can be known without is asked for.
Allow = Callable[[float, int], None]

NO_PIXELS = Film(np.empty((0, 0), np.uint8))  # of a film whose header alone was looked at


def fingerprint(gray: Gray) -> bytes:
    """Hash the picture of a film, not its file: equal pixels in an equal shape give equal 16 bytes."""
    picture = hashlib.sha256(repr(gray.shape).encode())  # most processors have instructions for it
    picture.update(gray.data)
    return picture.digest()[:16]


def thumbnail(film: Film) -> Film:
    """Shrink a film to [THUMBNAIL, THUMBNAIL] whatever its aspect, for a look at it; a thumbnail stays as it is."""
    side = (THUMBNAIL, THUMBNAIL)
    small = Image.fromarray(film.gray).resize(side, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return replace(film, gray=np.array(small))


def fit_image(image: Gray, size: int, fit: Fit) -> Gray:
    """Bring `image` [H, W] to [size, size] with an antialiased bilinear resize.

    Args:
        image: 8-bit gray; one that is [size, size] is given back as it is.
        size: Side of the result in pixels.
        fit: "pad" scales the long side to `size` and centres on black, "crop" scales the short side and cuts the
            centre out, "stretch" ignores the aspect.
    """
    height, width = image.shape
    if fit in get_args(Fit) and height == width == size:
        return image
    film = Image.fromarray(image)
    match fit:
        case "stretch":
            film = film.resize((size, size), Image.Resampling.BILINEAR)
        case "crop":  # cut before scaling, so that a very long film cannot grow
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            film = film.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        case "pad":
            scale = size / max(height, width)
            inner = max(1, round(width * scale)), max(1, round(height * scale))
            scaled, film = film.resize(inner, Image.Resampling.BILINEAR), Image.new("L", (size, size))
            film.paste(scaled, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        case _:
            raise UserError(f"data.fit={fit!r} is not one of pad, crop, stretch")
    return np.array(film)


def check_size(width: int, height: int) -> None:
    """Raise ImageError for a size beyond `MAX_PIXELS` or `MIN_SIDE`."""
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} is too small, a side has at least {MIN_SIDE} pixels")


def film_of_colour(rgb: Gray) -> Film:
    """Make a gray film of `rgb` [H, W, 3]."""
    red, green, blue = (rgb[..., channel] for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    return Film(np.array(Image.fromarray(rgb).convert("L")), colour=float(spread.mean()) / 255)


def stretch_range(
    deep: npt.NDArray[np.generic],
    ignored: npt.NDArray[np.bool_] | None = None,
    counts: npt.NDArray[np.int64] | None = None,
) -> Gray:
    """Map the `DEEP_PERCENTILES` of `deep` [...] linearly to 0-255.

    Args:
        deep: Values.
        ignored: Where they do not count [...].
        counts: How often each is there, of values [N] that stand for more; None: once.
    """
    if not all(np.isfinite(rows).all() for _, rows in by_rows(deep)):
        raise ImageError("holds NaN or infinite values")
    counted = slice(None) if ignored is None or ignored.all() else ~ignored
    low, high = deep_percentiles(deep[counted], None if counts is None else counts[counted])
    if low == high:  # nearly all of the film is one value; use whatever contrast is left
        low, high = float(deep[counted].min()), float(deep[counted].max())
    if low == high:
        return np.zeros(deep.shape, np.uint8)
    if not np.isfinite(high - low):
        raise ImageError("holds too large values")
    gray = np.empty(deep.shape, np.uint8)
    for place, rows in by_rows(deep):
        rows -= low
        rows *= 255 / (high - low)
        gray[place] = np.clip(np.rint(rows, out=rows), 0, 255, out=rows)
    return gray


def by_rows(deep: npt.NDArray[np.generic]) -> Iterator[tuple[slice, npt.NDArray[np.float64]]]:
    """Some rows of `deep` at a time as floats, and which they are: all at once would be eight bytes a pixel."""
    step = max(1, _AT_ONCE * len(deep) // deep.size)
    for start in range(0, len(deep), step):
        place = slice(start, start + step)
        yield place, deep[place].astype(np.float64)


def deep_percentiles(
    values: npt.NDArray[np.generic], counts: npt.NDArray[np.int64] | None = None
) -> tuple[float, float]:
    """The `DEEP_PERCENTILES` of `values` [...], each there as often as `counts` says.

    They are those of `np.percentile`, which would first make float64 of the values, and copy these.
    """
    total = values.size if counts is None else int(counts.sum())
    places = [percent / 100 * (total - 1) for percent in DEEP_PERCENTILES]
    below = [math.floor(place) for place in places]
    above = [min(place + 1, total - 1) for place in below]
    if counts is None:
        ordered = values.flatten()
        ordered.partition(below + above)
        at = below + above
    else:
        order = np.argsort(values, axis=None, kind="stable")
        ordered = values.reshape(-1)[order]
        at = np.searchsorted(counts[order].cumsum(), below + above, side="right").tolist()
    found = [float(ordered[place]) for place in at]
    low, high = (_between(found[i], found[i + 2], places[i] - below[i]) for i in range(2))
    return low, high


def _between(first: float, second: float, share: float) -> float:
    way = second - first
    return second - way * (1 - share) if share >= 0.5 else first + way * share
