"""Films that were dropped on the page: on disk while the command runs, and longer only in a folder of the user's."""

import os
import re
import secrets
import shutil
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from legradnet.claims import LOCK, claimed
from legradnet.errors import UserError
from legradnet.files import make_folder, reason, told
from legradnet.tables import readable

UPLOAD_LIMIT = 512 * 2**20  # bytes
MOST_UPLOADS = 10_000
KEPT = "films"
_TEMPORARY = "legradnet-view-"
_LONGEST = 120  # bytes of a name
_LEFT_FREE = 256 * 2**20  # bytes on the disk
_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f/\\\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


class FullError(UserError):
    """There is no place for more."""


class Uploads:
    """The folder of the films that were dropped.

    Args:
        output: The user's own folder, where they are kept; None: a temporary one, which `close` deletes.
    """

    def __init__(self, output: Path | None) -> None:
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self.count = 0
        self._coming = 0  # bytes of films that are being sent
        self._is_kept = output is not None
        if output is None:
            _sweep()
            self.folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
            self._claim = claimed(self.folder)
            self._claim.__enter__()
        else:
            self.folder = output / KEPT
            with told(self.folder):
                make_folder(self.folder, mode=0o700)
            for left in self.folder.glob(".*.part"):
                left.unlink(missing_ok=True)

    def begin(self, size: int) -> tuple[Path, BinaryIO]:
        """A new file for a film of `size` bytes.

        Raises:
            FullError: There is no place for it.
        """
        if self.count >= MOST_UPLOADS:
            raise FullError(f"There are {MOST_UPLOADS:,} films here already, and no more are taken.")
        path = self.folder / f".{secrets.token_hex(8)}.part"
        try:
            if shutil.disk_usage(self.folder).free < self._coming + size + _LEFT_FREE:
                raise FullError("The disk of the server is full.")
            file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        except OSError as error:
            raise FullError(f"The film can't be stored: {reason(None, error)}.") from None
        self._coming += size
        return path, file

    def end(self, part: Path, size: int) -> None:
        """What `begin` gave for a film of `size` bytes is kept, or not wanted any more."""
        self._coming -= size
        with suppress(OSError):
            part.unlink(missing_ok=True)

    def keep(self, part: Path, name: str, taken: set[str]) -> tuple[Path, str]:
        """Take a whole film under a name that is nobody's; gives its path, and the name.

        Args:
            part: What `begin` gave.
            name: What the user calls it.
            taken: Names that others in the list have.
        """
        name = shown_name(name)
        stem, dot, ending = name.rpartition(".") if "." in name else (name, "", "")
        known = {other.casefold() for other in taken}
        with self._lock:
            number, free = 1, name
            while free.casefold() in known | self._names or (self._is_kept and (self.folder / free).exists()):
                number += 1
                free = f"{stem} ({number}){dot}{ending}"
            self._names.add(free.casefold())
            self.count += 1
        path = self.folder / (free if self._is_kept else secrets.token_hex(8))
        with told(path):
            part.replace(path)
        return path, free

    def close(self) -> None:
        """Delete what is not to be kept."""
        if not self._is_kept:
            self._claim.__exit__(None, None, None)
            shutil.rmtree(self.folder, ignore_errors=True)


def shown_name(name: str) -> str:
    """What a user calls a film, as a name without folders and signs that mislead."""
    bare = _ODD.sub("", readable(name).replace("\\", "/").rpartition("/")[2]).strip(" .")
    while len(bare.encode()) > _LONGEST:
        bare = bare[1:]  # its end tells what kind of file it is
    return bare.strip(" .") or "film"


def _sweep() -> None:
    """Delete what commands that were killed have left."""
    for left in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
        with suppress(UserError, OSError):  # another's, or held
            if (left / LOCK).is_file() and not left.is_symlink() and left.stat().st_uid == os.getuid():
                with claimed(left):
                    shutil.rmtree(left, ignore_errors=True)
