"""Lookup tables: modality, values of interest (PS3.3 C.11.1.1, C.11.2.1.1)."""

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from legradnet.data.dicom.elements import numbers

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class Table(NamedTuple):
    """A lookup table: the value that its first entry is for, its entries [N], and the bits that they are said to have.

    The number of entries in the descriptor is 0 for 65536; what there are counts.
    """

    first: int
    entries: npt.NDArray[np.int64]
    bits: int

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
    entries = _entries(item, count, bits, is_little=header.original_encoding[1] is not False)[:count]
    return Table(first, entries, bits) if 1 <= bits <= 16 and len(entries) else None


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
