"""Reading films out of a cache."""

import logging
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.data.cache_files import Record, slot_size
from legradnet.data.film import THUMBNAIL, Film, Gray, thumbnail

_log = logging.getLogger(__name__)


class CachedFilms:
    """Films of a manifest that are in a cache. Processes share the pages of memory that hold them.

    Args:
        path: The array's file.
        records: A record for each film, or None [N].
        slots: The films' places in the array, -1 for none, int64 [N].
        image_size: Side S of a square.
        size: Bytes of the whole cache.
    """

    def __init__(
        self, path: Path, records: Sequence[Record | None], slots: npt.NDArray[np.int64], image_size: int, size: int
    ) -> None:
        self.path, self.slots, self.image_size, self.size = path, slots, image_size, size
        filled = [record or Record(b"", b"", 0.0, "", False, 0) for record in records]
        self._colours = np.array([record.colour for record in filled], np.float64)
        self._sides = [record.side for record in filled]
        self._said = [(record.remarks, record.doubts) for record in filled]
        self._whole = np.array([record.is_whole for record in filled], bool)
        self._sums = np.array([record.checksum for record in filled], np.uint32)
        self._has_warned = False
        self._file: int | None = None
        with suppress(OSError):  # now, so that nobody who deletes it is in our way
            self._file = os.open(self.path, os.O_RDONLY)

    def __getstate__(self) -> dict[str, Any]:  # for a process that is started anew
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        if getattr(self, "_file", None) is not None:
            os.close(self._file)  # type: ignore[arg-type]

    @property
    def count(self) -> int:
        """Films that are cached."""
        return int((self.slots >= 0).sum())

    def describe(self) -> str:
        """Where the cache is and how big, in words."""
        return f"{self.count} of {len(self.slots)} films in {self.path.parent}, {megabytes(self.size)}"

    def square(self, row: int) -> Gray | None:
        """A film as `fit_image` gave it, [S, S]; None if its file must be read."""
        slot = self._slot(row)
        return None if slot is None else slot[: self.image_size**2].reshape(self.image_size, self.image_size)

    def thumbnail(self, row: int) -> Film | None:
        """A film as `images.thumbnail` gave it; None if its file must be read."""
        slot = self._slot(row)
        if slot is None:
            return None
        square, small = np.split(slot, [self.image_size**2])
        side, colour = self._sides[row], float(self._colours[row])
        if self._whole[row]:
            return thumbnail(Film(square.reshape(self.image_size, self.image_size), side, colour, *self._said[row]))
        return Film(small.reshape(THUMBNAIL, THUMBNAIL), side, colour, *self._said[row])

    def _slot(self, row: int) -> Gray | None:
        if self.slots[row] < 0:
            return None
        slot = np.empty(slot_size(self.image_size), np.uint8)
        with suppress(OSError):
            # Not a mapping: this is as fast, and where a file was cut off or a disk is lost it is no bus error.
            if self._file is None:
                self._file = os.open(self.path, os.O_RDONLY)
            length = os.preadv(self._file, [slot.data], int(self.slots[row]) * len(slot))
            if length == len(slot) and zlib.crc32(slot.data) == self._sums[row]:
                return slot
        if not self._has_warned:
            self._has_warned = True
            _log.warning("%s is damaged or gone: films are read from their own files. Delete it.", self.path)
        return None


def megabytes(size: int) -> str:
    """A size for people."""
    return f"{size / 1e6:,.1f} MB"
