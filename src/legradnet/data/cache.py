"""Films decoded once: their squares in one file that every later epoch, run and process reads.

A cache is a folder that only its owner may enter, with three files (`legradnet.data.cache_files`) for each way to make
a square: code, packages and settings are in their name. A film is known by path, size, modification and change time
(which no program can set back), or by content. One that isn't in the cache, or not whole, is read from its own file.
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
from typing import NamedTuple

import numpy as np

from legradnet.data import images
from legradnet.data.cache_files import CacheFiles, Entry, Record, can_lock
from legradnet.data.cached import CachedFilms, megabytes
from legradnet.data.film import THUMBNAIL, Fit, fingerprint, fit_image, thumbnail
from legradnet.data.images import read_film
from legradnet.data.settings import CacheKey
from legradnet.data.sides import Side
from legradnet.errors import UserError

FOLDER = ".legradnet-cache"
SETTLED = 2.0  # seconds after a change in which another may leave no trace: the coarsest grain of time stamps

_log = logging.getLogger(__name__)
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
    """What a look at a film tells: its pixels' fingerprint, if they are known; its side, if it has one; its key.

    And what its reader had to say, as `Film.remarks`.
    """

    pixels: bytes | None
    side: Side
    key: bytes = b""
    remarks: tuple[str, ...] = ()


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
        name = f"{settings.fit}-{settings.image_size}-{_reading()}.films"
        self._files = CacheFiles(_private_folder(root, settings.folder) / name, settings.image_size)
        self._lock = threading.Lock()
        self._pending: list[Entry] = []
        self._takes_more = self._files.is_writable

    def close(self) -> None:
        """Write what is pending and close the files."""
        self._append()
        self._files.close()

    def expect(self, films: int) -> None:
        """Take none of so many `films` if that would need more than half of the free space."""
        needed = max(0, films - len(self._files.places)) * self._files.slot_size
        folder = self._files.path.parent
        space = os.statvfs(folder)
        if self._takes_more and needed > _SHARE * space.f_bavail * space.f_frsize:
            self._takes_more = False
            _tell(f"{megabytes(needed)} are more than half of the free space at {folder}")

    def look(self, path: str) -> Look:
        """Look at a film: in the cache, else in its file, and then it is put into the cache.

        Args:
            path: Resolved, and inside the root.

        Raises:
            ImageError: As `read_film`.
        """
        stamp = _settled_stamp(path)
        key = self._key(path, stamp)
        if look := self._cached(key):
            return look
        film = read_film(Path(path))
        pixels = fingerprint(film.gray)
        look = Look(pixels, film.side, b"", film.remarks)
        if not key or not self._takes_more:
            return look
        square = fit_image(film.gray, self.settings.image_size, self.settings.fit)
        is_whole = square is film.gray
        small = np.zeros((THUMBNAIL, THUMBNAIL), np.uint8) if is_whole else thumbnail(film).gray
        if _stamp(path) != stamp:  # changed while it was read
            return look
        checksum = zlib.crc32(small.data, zlib.crc32(square.data))
        with self._lock:
            record = Record(key, pixels, film.colour, film.side, is_whole, checksum, film.remarks, film.doubts)
            self._pending.append(Entry(record, square, small))
            is_much = len(self._pending) * self._files.slot_size >= _PENDING
        if is_much:
            self._append()
        return look._replace(key=key)

    def find(self, path: str) -> Look | None:
        """What the cache knows of a film; None if it hasn't got it."""
        return self._cached(self._key(path, _settled_stamp(path)))

    def films(self, keys: Sequence[bytes]) -> CachedFilms | None:
        """The films with these keys; None if none of them is cached."""
        self._append()
        slots = np.array([self._files.places.get(key, -1) for key in keys], np.int64)
        if (slots < 0).all():
            return None
        records = [self._files.record(slot) if slot >= 0 else None for slot in slots.tolist()]
        return CachedFilms(self._files.path, records, slots, self.settings.image_size, self._files.size)

    def _cached(self, key: bytes) -> Look | None:
        slot = self._files.places.get(key)
        if slot is None:
            return None
        record = self._files.record(slot)
        return Look(record.pixels, record.side, key, record.remarks)

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

    def _append(self) -> None:
        """Hand the pending films to the files."""
        with self._lock:
            entries, self._pending = self._pending, []
            if not entries or not self._takes_more:
                return
            try:
                self._files.append(entries)
            except OSError as error:
                self._takes_more = False
                _tell(f"{self._files.path.parent}: {error.strerror}")


@contextmanager
def opened_cache(root: Path, settings: CacheSettings | None) -> Iterator[FilmCache | None]:
    """The cache of the films in `root`; None if `settings` is, or, with a warning, where there can't be one.

    Raises:
        UserError: The folder that they name can't be used.
    """
    if settings is None:
        yield None
        return
    try:
        if not can_lock():
            raise OSError("this system has no file locks")
        store = FilmCache(root, settings)
    except OSError as error:
        why = f"{error.filename or settings.folder or root}: {error.strerror or error}"
        if settings.folder is not None:
            raise UserError(f"data.cache_dir={settings.folder} can't hold a cache: {why}") from None
        _tell(why)
        yield None
        return
    try:
        yield store
    finally:
        store.close()


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
        folder = named / _digest(os.fsencode(root)).hex()
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


def _tell(why: str) -> None:
    _log.warning(
        "Films are not cached (%s): every epoch decodes them again. data.cache_dir=FOLDER names a place, "
        "data.cache=off does without.",
        why,
    )
