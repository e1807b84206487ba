"""The values of a film before they became 8-bit gray, for whoever looks at it through windows of their own."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_KEPT = ContextVar("depth_kept", default=False)
_MOST = 65_535
_AT_ONCE = 2**20  # values that are floats at the same time
_ROUNDED = 1.01  # grays that rounding, of the gray and of the values, may be off a line

Gray = npt.NDArray[np.uint8]
Deep16 = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Deep:
    """A film in all its depth, bright = dense.

    Attributes:
        values: uint16 [H, W].
        bits: 8-16; values are below 2 ** bits.
        centre: Of the window that makes the film's 8-bit gray of them, which is linear: black at centre - width / 2,
            white at centre + width / 2.
        width: Of the same.
    """

    values: Deep16
    bits: int
    centre: float
    width: float


@contextmanager
def depth_kept() -> Iterator[None]:
    """Let films that are read here, in this thread, have their `deep`."""
    before = _KEPT.set(True)
    try:
        yield
    finally:
        _KEPT.reset(before)


def is_depth_kept() -> bool:
    """Whether `depth_kept` holds."""
    return _KEPT.get()


def deep_of(values: npt.NDArray[Any], gray: Gray) -> Deep | None:
    """The depth of a film whose `values` [H, W] became `gray` [H, W]; None where depth is not kept.

    Where gray follows from the values by a line, as through a window or a stretch, they stay what they are but for a
    shift, a scale where 16 bits can't hold them, and a turn where low is bright. Else, behind a table or a sigmoid,
    each gray has 256 values, in the order of those that became it. What is black though its value isn't, padding, is 0.
    """
    if not _KEPT.get():
        return None
    steps = _whole(values)
    grays = np.zeros(_MOST + 1, np.int64)
    grays[steps] = gray
    levels = np.flatnonzero(np.bincount(steps.reshape(-1), minlength=_MOST + 1))
    grays = grays[levels]
    table = np.zeros(_MOST + 1, np.uint16)
    table[levels], centre, width = _shown(levels, grays)
    deep = table[steps]
    return Deep(deep, max(8, int(deep.max()).bit_length()), centre, width)


def _whole(values: npt.NDArray[Any]) -> Deep16:
    """Values as whole numbers that 16 bits hold, in their order."""
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.uint16, order="C")
    low, high = values.min().item(), values.max().item()
    scale = 1.0 if values.dtype.kind in "bui" and high - low <= _MOST else _MOST / ((high - low) or 1)
    low = 0 if scale == 1 and low >= 0 and high <= _MOST else low
    steps = np.empty(values.shape, np.uint16)
    rows = max(1, _AT_ONCE * len(values) // values.size)
    for start in range(0, len(values), rows):
        place = slice(start, start + rows)
        steps[place] = np.rint((values[place].astype(np.float64) - low) * scale)
    return steps


def _shown(levels: npt.NDArray[np.int64], grays: npt.NDArray[np.int64]) -> tuple[Deep16, float, float]:
    """What each level [N] with its gray [N] becomes; centre and width of the window."""
    inside = (grays > 0) & (grays < 255)
    if inside.sum() >= 2 and len(set(grays[inside].tolist())) >= 2:
        slope, start = np.polyfit(levels[inside], grays[inside], 1)
        line = slope * levels + start
        is_line = np.abs(line - grays)[inside].max() <= _ROUNDED + abs(slope) / 2
        is_line &= bool((line[grays == 255] >= 255 - _ROUNDED - abs(slope)).all())
        if is_line:
            black, white = -start / slope, (255 - start) / slope
            padding = (grays == 0) & (line > _ROUNDED + abs(slope))
            top = int(levels.max())
            deep = (top - levels if slope < 0 else levels).astype(np.uint16)
            deep[padding] = 0
            ends = (top - black, top - white) if slope < 0 else (black, white)
            return deep, float(sum(ends)) / 2, max(1.0, float(ends[1] - ends[0]))
    turned = bool(grays[0] > grays[-1])
    order = np.lexsort((-levels if turned else levels, grays))
    ranks = np.empty(len(levels), np.int64)
    firsts = np.searchsorted(grays[order], np.arange(256))
    counts = np.bincount(grays, minlength=256)
    ranks[order] = np.arange(len(levels)) - firsts[grays[order]]
    return (256 * grays + 256 * ranks // counts[grays]).astype(np.uint16), 32_768.0, 65_536.0
