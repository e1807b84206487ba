"""What reading processes claim of the machine: memory, and to be alone.

A claim is a lock on bytes of a nameless file that all readers of a process, of its threads and of its forks share. The
system itself gives it back when a reader ends, however it ends. Without such locks (Windows) nobody waits for anybody.
"""

import math
import os
import tempfile
import time
from contextlib import suppress
from typing import BinaryIO

from legradnet import machine

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

UNIT = 64 * 1024**2  # bytes of memory for which one byte of the file stands
MOST = 2 * 1024**3  # the largest film takes half of it
_READING, _DOOR, _QUEUE, _UNITS = 0, 1, 2, 3  # places in the file
_LOOK_AGAIN = 0.005  # seconds


def new_file() -> BinaryIO:
    """The file that readers share."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("legradnet"), "r+b", 0)
    return tempfile.TemporaryFile(buffering=0)


def units_here() -> int:
    """Units of memory that all readers together may use: half of what there is, and not more than `MOST`."""
    return max(1, min(MOST, machine.memory() // 2) // UNIT)


class Claims:
    """The claims of one reading process.

    Args:
        file: Descriptor of the shared file.
        units: Units of memory that there are for all.
    """

    def __init__(self, file: int, units: int) -> None:
        self._file, self._units = file, units

    def enter(self, alone: bool) -> None:
        """Wait for whoever reads alone; or, to be `alone`, for all others, and let none begin."""
        self._wait(_DOOR)
        self._wait(_READING, shared=not alone)
        self._leave(_DOOR, 1)

    def take(self, memory: int) -> None:
        """Wait until so many bytes are free; all that there are, if it is more. For once in a film."""
        wanted = min(self._units, math.ceil(memory / UNIT))
        self._wait(_QUEUE)  # one at a time, in turn: who needs much would wait for ever
        held: set[int] = set()
        while len(held) < wanted:
            held |= {unit for unit in range(self._units) if unit not in held and len(held) < wanted and self._got(unit)}
            if len(held) < wanted:
                time.sleep(_LOOK_AGAIN)
        self._leave(_QUEUE, 1)

    def leave(self) -> None:
        """Give all of it back."""
        self._leave(_READING, 0)

    def _wait(self, place: int, shared: bool = False) -> None:
        if fcntl:
            fcntl.lockf(self._file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, 1, place, os.SEEK_SET)

    def _got(self, unit: int) -> bool:
        if fcntl is None:
            return True
        with suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _UNITS + unit, os.SEEK_SET)
            return True
        return False

    def _leave(self, place: int, length: int) -> None:
        if fcntl:
            fcntl.lockf(self._file, fcntl.LOCK_UN, length, place, os.SEEK_SET)
