"""Lookup tables: modality, values of interest (PS3.3 C.11.1.1, C.11.2.1.1)."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from legradnet.data.dicom.elements import numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_MOST_BEYOND = 0.02  # share of a film's pixels that any table may leave out
_FEWEST_BITS = 10  # of a film whose table has an entry for each value that it may have
_END = 64  # part of a table that is its end


class Table(NamedTuple):
    """A lookup table: the value that its first entry is for, its entries [N], and the bits that they are said to have.

    The number of entries in the descriptor, `stated`, is 0 for 65536; what there are counts.
    """

    first: int
    entries: npt.NDArray[np.int64]
    bits: int
    stated: int

    @property
    def range(self) -> tuple[int, int]:
        """What stands for black and white: that of its bits, or of its entries where these don't bear the bits out.

        They don't where an entry is beyond them, or where all lie within half of them, as a table of 12 bits in 16.
        """
        low, high, top = int(self.entries.min()), int(self.entries.max()), 2**self.bits - 1
        return (0, top) if high <= top and high - low >= top // 2 else (low, high)

    def look_up(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """Entries for `values` [H, W]; values beyond the table take its ends."""
        return self.entries[np.clip(np.rint(values).astype(np.int64) - self.first, 0, len(self.entries) - 1)]

    def matched(self, values: npt.NDArray[Any]) -> "Table":
        """This table, its first value read with the other sign where else all `values` would lie beyond one end.

        That value is signed where the values are (C.11.2.1.1), which rescaling changes and writers forget.
        """
        low, high = values.min(), values.max()
        for first in (self.first, self.first - 2**16, self.first + 2**16):
            if -(2**15) <= first < 2**16 and low < first + len(self.entries) and high >= first:
                return self._replace(first=first)
        return self

    def misses(self, values: npt.NDArray[Any], counts: npt.NDArray[np.int64], stored: int) -> bool:
        """Whether it is not for a film of `values` [N] of `stored` bits, each in so many pixels as `counts` [N] has.

        More than a few pixels lie beyond its entries, and that was not meant: entries are wanting, or there is one for
        each value, but for others than these, or its curve stops in the middle of the grays.
        """
        total, step = counts.sum(), max(1, len(self.entries) // _END)
        places = np.rint(values) - self.first
        before, behind = counts[places < 0].sum(), counts[places >= len(self.entries)].sum()
        if before + behind <= _MOST_BEYOND * total:
            return False
        is_for_others = len(self.entries) == 2**stored and stored >= _FEWEST_BITS
        if len(self.entries) < self.stated or is_for_others:
            return True
        steps = np.diff(self.entries)
        if steps.min(initial=0) < 0 < steps.max(initial=0):  # no curve of grays
            return False
        ends = [(before, self.entries[:step]), (behind, self.entries[-step:])]
        return any(beyond > _MOST_BEYOND / 2 * total and not self._ends_with(end) for beyond, end in ends)

    def _ends_with(self, end: npt.NDArray[np.int64]) -> bool:
        """Whether these entries at an end come to black or white, or change no more."""
        top = 2**self.bits - 1
        is_flat = np.ptp(end) <= np.ptp(self.entries) / _END / 4
        return bool(is_flat or end.min() <= top / _END or end.max() >= top - top / _END)


def table_of(item: "Dataset", header: "Dataset") -> Table | None:
    """Read an item of a sequence of tables; None if there is no table in it, or one without meaning."""
    descriptor = numbers(item, "LUTDescriptor")
    if len(descriptor) != 3 or not np.isfinite(descriptor).all():
        return None
    count, first, bits = (int(number) for number in descriptor)
    count %= 2**16
    count = count or 2**16
    if first >= 2**15 and header.PixelRepresentation == 1:  # read as unsigned
        first -= 2**16
    entries = _entries(item, count, bits, is_little=header.original_encoding[1] is not False)
    more = entries[count:]
    if not len(more) or more.min() == more.max():  # filled up; else there are more than the descriptor says
        entries = entries[:count]
    return Table(first, entries, bits, count) if 1 <= bits <= 16 and len(entries) else None


def _entries(item: "Dataset", count: int, bits: int, is_little: bool) -> npt.NDArray[np.int64]:
    """Entries in words, or, of up to 8 bits, two of them in a word, the first in its lower half."""
    data: Any = None
    with suppress(TypeError, ValueError):
        data = item.get("LUTData")
    if data is None:
        return np.empty(0, np.int64)
    if isinstance(data, bytes):
        packed = data if is_little else _swapped(data)
    else:
        packed = np.asarray(data, np.int64).reshape(-1).astype("<u2").tobytes()
    is_bytes = len(packed) < 2 * count and (bits <= 8 or len(packed) in (count, count + 1))
    return np.frombuffer(packed[: len(packed) // 2 * 2], np.uint8 if is_bytes else "<u2").astype(np.int64)


def _swapped(data: bytes) -> bytes:
    return np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
