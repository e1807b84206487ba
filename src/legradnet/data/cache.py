"""Films decoded once: their squares in one file that every later epoch, run and process reads.

A cache is a folder that only its owner may enter, with two files for each way to make a square. `*.films` is one uint8
array [slots, S * S + T * T], a film's square and its thumbnail (zeros where the square is the whole film, which saves
the time) in each slot; `*.index` has a record for each slot. Both
only grow: first a slot is written, then its record, and a slot that has a record is never written again. So readers
need no lock, writers lock only while they append, and one that is killed leaves at most slots without a record.

A record knows its film by path, size, modification and change time (which no program can set back), or by content. How
squares are made (code, packages, settings) is in the files' name. Checksums of the record and of its slot tell what a
power cut or a bad disk did to them. A film that isn't here, or not whole, is read from its own file.
"""
# Many films: os.path is many times faster than Path.
# ruff: noqa: PTH116

import errno
import hashlib
import logging
import os
import stat
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from inspect import getfile
from pathlib import Path
from struct import Struct
from typing import Literal, NamedTuple, get_args

import numpy as np

from legradnet.data import images
from legradnet.data.cached import RECORD, CachedFilms, megabytes, side_of, slot_size
from legradnet.data.film import THUMBNAIL, Fit, Gray, fingerprint, fit_image, thumbnail
from legradnet.data.images import read_film
from legradnet.data.sides import Side
from legradnet.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

CacheKey = Literal["stat", "hash"]

FOLDER = ".legradnet-cache"
SETTLED = 2.0  # seconds after a change in which another may leave no trace: the coarsest grain of time stamps

_log = logging.getLogger(__name__)
_SUM = Struct("<I")  # of the record and its place
_STEP = RECORD.size + _SUM.size
_PENDING = 1024**2  # bytes appended at once
_SHARE = 0.5  # of the free space, at most: checkpoints need some as well


@dataclass(frozen=True)
class CacheSettings:
    """How films become squares, where those are kept (None: beside the films), and what a film is known by."""

    image_size: int
    fit: Fit
    folder: Path | None = None
    key: CacheKey = "stat"


class Look(NamedTuple):
    """What a look at a film tells: its pixels' fingerprint, if they are known; its side, if it has one; its key."""

    pixels: bytes | None
    side: Side
    key: bytes = b""


class _Entry(NamedTuple):
    """A film on its way into the cache."""

    look: Look
    colour: float
    square: Gray
    small: Gray
    whole: bool


class FilmCache:
    """The cache of a data set while its films are looked at. Threads may share it.

    Args:
        root: The resolved folder that holds every film.
        settings: Where, and how films are read.

    Raises:
        OSError: There can be no cache in this place.
    """

    def __init__(self, root: Path, settings: CacheSettings) -> None:
        self.root, self.settings = str(root), settings
        folder = _private_folder(root, settings.folder)
        self.path = folder / f"{settings.fit}-{settings.image_size}-{_reading()}.films"
        self._size = slot_size(settings.image_size)
        self._lock = threading.Lock()
        self._pending: list[_Entry] = []
        self._records: list[bytes] = []  # b"" for one that is damaged
        self._places: dict[bytes, int] = {}  # key -> slot
        self._takes_more = True
        try:
            self._open(os.O_RDWR | os.O_CREAT)
        except OSError:  # a cache of earlier, where nothing can be written any more
            self._open(os.O_RDONLY)
            self._takes_more = False
        self._refresh()
        self._is_new = not self._records

    def _open(self, how: int) -> None:
        how |= os.O_NOFOLLOW | os.O_CLOEXEC
        self._array = os.open(self.path, how, 0o600)
        try:
            self._index = os.open(self.path.with_suffix(".index"), how, 0o600)
        except OSError:
            os.close(self._array)
            raise

    def close(self) -> None:
        """Write what is pending and close the files."""
        self._append()
        os.close(self._index)
        os.close(self._array)

    def expect(self, films: int) -> None:
        """Take none of so many `films` if that would need more than half of the free space."""
        needed = max(0, films - len(self._places)) * self._size
        space = os.statvfs(self.path.parent)
        if self._takes_more and needed > _SHARE * space.f_bavail * space.f_frsize:
            self._takes_more = False
            _tell(f"{megabytes(needed)} are more than half of the free space at {self.path.parent}")

    def look(self, path: str) -> Look:
        """Look at a film: in the cache, else in its file, and then it is put into the cache.

        Args:
            path: Resolved, and inside the root.

        Raises:
            ImageError: As `read_film`.
        """
        stamp = _settled_stamp(path)
        key = self._key(path, stamp)
        if found := self._known(key):
            return found
        film = read_film(Path(path))
        look = Look(fingerprint(film.gray), film.side)
        if not key or not self._takes_more:
            return look
        square = fit_image(film.gray, self.settings.image_size, self.settings.fit)
        small = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8) if square is film.gray else thumbnail(film).gray
        if _stamp(path) != stamp:  # changed while it was read
            return look
        look = look._replace(key=key)
        with self._lock:
            self._pending.append(_Entry(look, film.colour, square, small, square is film.gray))
            is_much = len(self._pending) * self._size >= _PENDING
        if is_much:
            self._append()
        return look

    def find(self, path: str) -> Look | None:
        """What the cache knows of a film; None if it hasn't got it."""
        return self._known(self._key(path, _settled_stamp(path)))

    def films(self, keys: Sequence[bytes]) -> CachedFilms | None:
        """The films with these keys; None if none of them is cached."""
        self._append()
        slots = np.array([self._places.get(key, -1) for key in keys], np.int64)
        if (slots < 0).all():
            return None
        records = [self._records[slot] if slot >= 0 else None for slot in slots.tolist()]
        size = os.fstat(self._array).st_size + os.fstat(self._index).st_size
        return CachedFilms(self.path, records, slots, self.settings.image_size, size)

    def _known(self, key: bytes) -> Look | None:
        place = self._places.get(key)
        if place is None:
            return None
        _, pixels, _, side, _, _ = RECORD.unpack(self._records[place])
        return Look(pixels, side_of(side), key)

    def _key(self, path: str, stamp: "_Stamp | None") -> bytes:
        """What a film is known by; b"" if it can't be cached."""
        if stamp is None:
            return b""
        if self.settings.key == "hash":
            try:
                with open(path, "rb") as file:  # noqa: PTH123
                    return hashlib.file_digest(file, "sha256").digest()[:16]
            except OSError:
                return b""
        return _digest(repr((path[len(self.root) :], stamp)).encode())

    def _refresh(self) -> None:
        """Take in the records that other processes have appended."""
        known = len(self._records)
        whole = os.fstat(self._array).st_size // self._size
        tail = os.pread(self._index, max(0, os.fstat(self._index).st_size - known * _STEP), known * _STEP)
        for place, start in enumerate(range(0, len(tail) - _STEP + 1, _STEP), known):
            record = tail[start : start + RECORD.size]
            is_good = place < whole and tail[start + RECORD.size : start + _STEP] == _sum(record, place)
            self._records.append(record if is_good else b"")
            if is_good:
                self._places[record[:16]] = place

    def _append(self) -> None:
        """Write the pending films that no other process has written meanwhile."""
        with self._lock:
            pending, self._pending = self._pending, []
            if not pending or not self._takes_more:
                return
            try:
                fcntl.flock(self._index, fcntl.LOCK_EX)  # the system takes it from a killed process
                try:
                    self._refresh()
                    self._write({entry.look.key: entry for entry in pending if entry.look.key not in self._places})
                    self._refresh()
                except OSError:
                    self._give_back()
                    raise
                finally:
                    fcntl.flock(self._index, fcntl.LOCK_UN)
            except OSError as error:
                self._takes_more = False
                _tell(f"{self.path.parent}: {error.strerror}")

    def _write(self, fresh: dict[bytes, _Entry]) -> None:
        first = len(self._records)
        records = b""
        for place, (key, entry) in enumerate(fresh.items(), first):
            look, square, small = entry.look, entry.square, entry.small
            _write(self._array, square.data.cast("B"), place * self._size)
            _write(self._array, small.data.cast("B"), place * self._size + square.size)
            total = zlib.crc32(small.data, zlib.crc32(square.data))
            side = look.side.encode() or b"\0"
            record = RECORD.pack(key, look.pixels or b"", entry.colour, side, entry.whole, total)
            records += record + _sum(record, place)
        _write(self._index, memoryview(records), first * _STEP)

    def _give_back(self) -> None:
        """After a full disk: take back what has no record, and a cache that this build began."""
        with suppress(OSError):
            os.ftruncate(self._array, len(self._records) * self._size)
        if self._is_new:
            self._places.clear()
            for path in (self.path.with_suffix(".index"), self.path):
                path.unlink(missing_ok=True)


@contextmanager
def opened_cache(root: Path, settings: CacheSettings | None) -> Iterator[FilmCache | None]:
    """The cache of the films in `root`; None if `settings` is, or, with a warning, where there can't be one.

    Raises:
        UserError: A setting is unknown, or the folder that it names can't be used.
    """
    if settings is None:
        yield None
        return
    if settings.key not in get_args(CacheKey):
        raise UserError(f"data.cache_key={settings.key!r} is not one of {', '.join(get_args(CacheKey))}")
    try:
        if fcntl is None:
            raise OSError("this system has no file locks")
        found = FilmCache(root, settings)
    except OSError as error:
        why = f"{error.filename or settings.folder or root}: {error.strerror or error}"
        if settings.folder is not None:
            raise UserError(f"data.cache_dir={settings.folder} can't hold a cache: {why}") from None
        _tell(why)
        yield None
        return
    try:
        yield found
    finally:
        found.close()


_Stamp = tuple[int, ...]


def _stamp(path: str) -> _Stamp | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _settled_stamp(path: str) -> _Stamp | None:
    """A film's stamp, once every later change would give it another one; None if that can't be known."""
    for _ in range(2):
        stamp = _stamp(path)
        if stamp is None:
            return None
        age = time.time() - stamp[2] / 1e9
        if age >= SETTLED:
            return stamp
        if age < 0:  # another machine's clock
            return None
        time.sleep(SETTLED - age)
    return None


def _private_folder(root: Path, named: Path | None) -> Path:
    """The folder of a data set's cache, which nobody but its owner may enter."""
    folder = root / FOLDER
    if named is not None:
        named.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = named / _digest(str(root).encode()).hex()
    if not os.path.lexists(folder):
        if named is None and not root.stat().st_mode & stat.S_IWUSR:  # root could write there all the same
            raise OSError(errno.EROFS, "is marked as read-only", str(root))
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise OSError(0, "is not a folder of yours that nobody else may enter", str(folder))
    return folder


@cache
def _reading() -> str:
    """Digest of all that turns a file into a square, besides the settings."""
    here = Path(__file__).parent
    code = {here / "film.py", here / "images.py"}
    for film_format in images.FORMATS:
        reader = Path(getfile(film_format.read))
        code |= {reader} if reader.parent == here else set(reader.parent.glob("*.py"))
    parts = [path.read_bytes() for path in sorted(code)]
    for name in sorted({"numpy"}.union(*(film_format.packages for film_format in images.FORMATS))):
        with suppress(PackageNotFoundError):
            parts.append(f"{name} {version(name)}".encode())
    return _digest(b"\0".join(parts)).hex()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _sum(record: bytes, place: int) -> bytes:
    return _SUM.pack(zlib.crc32(record, place))


def _write(file: int, content: memoryview, position: int) -> None:
    """Write all of `content`: a nearly full disk takes a part of it before it says that it is full."""
    while content:
        written = os.pwrite(file, content, position)
        content, position = content[written:], position + written


def _tell(why: str) -> None:
    _log.warning(
        "Films are not cached (%s): every epoch decodes them again. data.cache_dir=FOLDER names a place, "
        "data.cache=off does without.",
        why,
    )
