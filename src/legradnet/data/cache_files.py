"""The three files of a cache of films, which many processes read and extend at once.

`*.films` is one uint8 array [slots, S * S + T * T], a film's square and its thumbnail (zeros where the square is the
whole film, which saves the time) in each slot; `*.index` has a record for each slot; `*.remarks` has a line for each
text that readers of films had to say, which records name by its checksum. All only grow: first a slot and its line are
written, then its record, and a slot that has a record is never written again. So readers need no lock, writers lock
only while they append, and one that is killed leaves at most slots without a record. Checksums of the record, of its
slot and of its line tell what a power cut or a bad disk did to them.

Ours and not LMDB, which maps its file: where that is cut off, training ends by a bus error. LMDB is not for network
folders, where films often lie, and gives a flipped bit without a word; with a checksum it is hardly faster.
"""

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from legradnet.data.film import THUMBNAIL, Gray
from legradnet.data.sides import Side

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_RECORD = Struct("<16s16sdc?II")  # the fields of `Record`, with the checksum of a line in the place of texts
_SUM = Struct("<I")  # of the record and its place
_NOTHING = b"[[], []]"  # said of a film
_STEP = _RECORD.size + _SUM.size


class Record(NamedTuple):
    """What the index says of a slot.

    Attributes:
        key: What its film is known by, 16 bytes.
        pixels: The fingerprint of the film's picture, 16 bytes.
        colour: As `Film.colour`.
        side: As `Film.side`.
        is_whole: Whether the square is the whole film.
        checksum: CRC-32 of the slot.
        remarks: As `Film.remarks`.
        doubts: As `Film.doubts`.
    """

    key: bytes
    pixels: bytes
    colour: float
    side: Side
    is_whole: bool
    checksum: int
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


class Entry(NamedTuple):
    """A film on its way into the cache: `square` [S, S] and `small` [T, T]."""

    record: Record
    square: Gray
    small: Gray


class CacheFiles:
    """The files of a cache, opened to read and, where that is allowed, to extend them.

    Args:
        path: Of the array; the index is beside it.
        image_size: Side S of a square.

    Raises:
        OSError: They can't be opened.
    """

    def __init__(self, path: Path, image_size: int) -> None:
        self.path, self.slot_size = path, slot_size(image_size)
        self.places: dict[bytes, int] = {}  # key -> slot
        self._records: list[bytes] = []  # b"" for one that is damaged
        self._said = {0: _NOTHING}  # checksum -> line of JSON
        self._said_bytes = 0  # of whole lines
        self.is_writable = True
        try:
            self._open(os.O_RDWR | os.O_CREAT)
        except OSError:  # a cache of earlier, where nothing can be written any more
            self._open(os.O_RDONLY)
            self.is_writable = False
        self._refresh()
        self._own = None if self._records else 0  # films in a cache that this object began; None: in another's

    def _open(self, how: int) -> None:
        how |= os.O_NOFOLLOW | os.O_CLOEXEC
        self._array = os.open(self.path, how, 0o600)
        self._others: list[int] = []
        try:
            for ending in (".index", ".remarks"):
                self._others.append(os.open(self.path.with_suffix(ending), how, 0o600))
        except OSError:
            self.close()
            raise
        self._index, self._remarks = self._others

    def close(self) -> None:
        """Close the files."""
        for file in (*self._others, self._array):
            os.close(file)

    @property
    def size(self) -> int:
        """Bytes of the files."""
        return sum(os.fstat(file).st_size for file in (self._array, *self._others))

    def record(self, slot: int) -> Record:
        """The record of a slot that `places` names."""
        key, pixels, colour, side, is_whole, checksum, line = _RECORD.unpack(self._records[slot])
        known: Side = "L" if side == b"L" else "R" if side == b"R" else ""
        return Record(key, pixels, colour, known, is_whole, checksum, *map(tuple, json.loads(self._said[line])))

    def append(self, entries: Sequence[Entry]) -> None:
        """Write the films that no other process has written meanwhile.

        Raises:
            OSError: They can't be written; the files are as they were before, or gone if this object began them and no
            other has added to them.
        """
        fcntl.flock(self._index, fcntl.LOCK_EX)  # the system takes it from a killed process
        try:
            self._refresh()
            fresh = {entry.record.key: entry for entry in entries if entry.record.key not in self.places}
            self._write(fresh)
            self._refresh()
            self._own = None if self._own is None else self._own + len(fresh)
        except OSError:
            self._give_back()
            raise
        finally:
            fcntl.flock(self._index, fcntl.LOCK_UN)

    def _refresh(self) -> None:
        """Take in the records that other processes have appended, and the lines that they name."""
        first = len(self._records)
        whole = os.fstat(self._array).st_size // self.slot_size
        tail = os.pread(self._index, max(0, os.fstat(self._index).st_size - first * _STEP), first * _STEP)
        said = os.pread(self._remarks, max(0, os.fstat(self._remarks).st_size - self._said_bytes), self._said_bytes)
        said = said[: said.rfind(b"\n") + 1]
        self._said_bytes += len(said)
        self._said |= {zlib.crc32(line): line for line in said.splitlines()}
        for place, start in enumerate(range(0, len(tail) - _STEP + 1, _STEP), first):
            record = tail[start : start + _RECORD.size]
            is_good = place < whole and tail[start + _RECORD.size : start + _STEP] == _sum(record, place)
            is_good = is_good and _RECORD.unpack(record)[-1] in self._said
            self._records.append(record if is_good else b"")
            if is_good:
                self.places[record[:16]] = place

    def _write(self, fresh: dict[bytes, Entry]) -> None:
        first = len(self._records)
        records = b""
        for place, (record, square, small) in enumerate(fresh.values(), first):
            _write(self._array, square.data.cast("B"), place * self.slot_size)
            _write(self._array, small.data.cast("B"), place * self.slot_size + square.size)
            key, pixels, colour, side, is_whole, checksum, *said = record
            line = self._line(json.dumps(said).encode()) if any(said) else 0
            packed = _RECORD.pack(key, pixels, colour, side.encode() or b"\0", is_whole, checksum, line)
            records += packed + _sum(packed, place)
        _write(self._index, memoryview(records), first * _STEP)

    def _line(self, line: bytes) -> int:
        """The checksum of a line, which is written if nobody has said it yet."""
        checksum = zlib.crc32(line)
        if checksum not in self._said:
            _write(self._remarks, memoryview(line + b"\n"), self._said_bytes)
            self._said_bytes += len(line) + 1
            self._said[checksum] = line
        return checksum

    def _give_back(self) -> None:
        """After a full disk: take back what has no record, and a cache that is all this object's."""
        with suppress(OSError):
            os.ftruncate(self._array, len(self._records) * self.slot_size)
        if self._own == len(self._records):
            self.places.clear()
            for ending in (".index", ".remarks", self.path.suffix):
                self.path.with_suffix(ending).unlink(missing_ok=True)


def can_lock() -> bool:
    """Whether this system has the locks that writers need."""
    return fcntl is not None


def slot_size(image_size: int) -> int:
    """Bytes of a film: its square and its thumbnail."""
    return image_size**2 + THUMBNAIL**2


def _sum(record: bytes, place: int) -> bytes:
    return _SUM.pack(zlib.crc32(record, place))


def _write(file: int, content: memoryview, position: int) -> None:
    """Write all of `content`: a nearly full disk takes a part of it before it says that it is full."""
    while content:
        written = os.pwrite(file, content, position)
        content, position = content[written:], position + written
