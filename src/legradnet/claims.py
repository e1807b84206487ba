"""A folder belongs to one run at a time, which claims it before it looks at what is in it.

The claim is a lock (`flock`) on a file in the folder, which says who holds it. The system takes it from a process that
ends, however it ends, so that a run that was killed is gone on with by its own command. Tried on ext4, tmpfs and
overlayfs. On NFS it needs version 4, or a lock service beside version 3; where a file system has no such locks, this is
told, and only a folder made for the run is safe.
"""

import errno
import logging
import os
import shutil
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from legradnet.errors import UserError
from legradnet.files import (
    PARTIAL,
    NotWrittenError,
    guarded,
    is_full,
    not_written,
    opened_without_links,
    size_in_words,
    told,
)

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

LOCK = f"{PARTIAL}lock"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
_WRITTEN_IN = (".hydra", "checkpoints", "figures", "maps")  # folders in a run's folder
_RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
_PATIENCE = 1.0  # seconds in which a run that has just claimed a folder writes who it is

_held: dict[Path, "_Claim"] = {}  # what this process holds, for those that it forks
_handed: dict[Path, "_Claim"] = {}  # claimed by a command for the run that it is about to start


class HeldError(UserError):
    """The folder is another run's."""


class _Claim:
    def __init__(self, path: Path, file: int, is_new: bool) -> None:
        self.path, self.file, self.is_new = path, file, is_new
        _held[path] = self
        guarded.add(path)

    def release(self) -> None:
        """Give the folder back: the lock is gone when its file is closed, whether or not that can be deleted."""
        with suppress(OSError):
            (self.path / LOCK).unlink()
        self.forget()
        if self.is_new:  # a mistake was found before anything was written
            with suppress(OSError):
                self.path.rmdir()

    def forget(self) -> None:
        _held.pop(self.path, None)
        guarded.discard(self.path)
        with suppress(OSError):
            os.close(self.file)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, while the block runs.

    Raises:
        HeldError: Another run holds it; the message says who.
        NotWrittenError: Nothing can be written there.
    """
    path = _absolute(folder)
    claim = _handed.pop(path, None) or _claim(path)
    try:
        yield
    finally:
        claim.release()


def claim_for_run(folder: Path, *, numbered: bool) -> Path:
    """Claim a folder for a run that this process is about to start, whose own `claimed` then takes it over.

    Args:
        folder: The folder.
        numbered: Whether it has to be a new one: where it is taken `_2`, `_3` ... is added to its name.

    Returns:
        The folder that was claimed.

    Raises:
        HeldError: As `claimed`.
        NotWrittenError: As `claimed`.
    """
    path = make_numbered(_absolute(folder)) if numbered else _absolute(folder)
    if path not in _handed:
        _handed[path] = _claim(path, is_new=numbered)
    return path


@contextmanager
def filled_whole(output: Path, last: str, *, durable: bool = True) -> Iterator[Path]:
    """A folder inside `output`, whose files are moved up into it when all went well; else `output` is left as it was.

    Args:
        output: A folder that is empty, or not there, as only another's own is overwritten by nobody.
        last: The file without which `output` counts as nothing: it is moved last.
        durable: Whether the files are to be safe on disk before.

    Raises:
        UserError: There is something in `output`, or another run fills it.
        NotWrittenError: It can't be written.
    """
    with claimed(output):
        with told(output):
            for left in output.iterdir():
                if not left.name.startswith(PARTIAL):
                    words = "is not empty, and nothing in it is overwritten: choose another folder."
                    raise UserError(f"output={output} {words}")
                if left.name != LOCK:  # of a run that was killed
                    shutil.rmtree(left, ignore_errors=True)
            inner = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=output))
        full = ""
        try:
            yield inner
            with told(output):
                for path in sorted(inner.iterdir(), key=lambda path: path.name == last):
                    if durable:
                        with path.open("rb") as file:
                            os.fsync(file.fileno())
                    path.replace(output / path.name)
        except Exception as error:  # whatever a library makes of a full disk
            if isinstance(error, UserError) or not is_full(output):
                raise
            full = f"more than {size_in_words(sum(path.stat().st_size for path in inner.iterdir()))}"
        finally:
            shutil.rmtree(inner, ignore_errors=True)
        if full:
            raise not_written(output, OSError(errno.ENOSPC, ""), needed=full)


def give_back_unused() -> None:
    """Release what was claimed for a run that never began."""
    while _handed:
        _handed.popitem()[1].release()


def make_numbered(folder: Path) -> Path:
    """Make a folder that was not there: `folder`, or where that is taken the first of `_2`, `_3` ...

    Raises:
        NotWrittenError: It can't be made.
    """
    with told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder if number == 1 else folder.with_name(f"{folder.name}_{number}")
            with suppress(FileExistsError):
                path.mkdir()
                return path
    raise AssertionError("unreachable")


def is_later_process(devices: object, nodes: object = 1) -> bool:
    """Whether this is one of several processes of a training, and not the first of them, which claims its folder.

    Args:
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.
    """
    if devices == 1 and nodes in (None, 1):  # whatever has started it, it trains alone
        return False
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # as Lightning and torchrun set
    return next((rank for rank in ranks if rank), "0") != "0"


def is_restarted() -> bool:
    """Whether this command has run before: in a SLURM job that was requeued, or as torchrun starts it again."""
    return any(os.environ.get(count) not in (None, "", "0") for count in _RESTARTS)


def _claim(path: Path, *, is_new: bool = False) -> _Claim:
    lock = path / LOCK
    while True:
        with told(path):
            if not os.path.lexists(path):
                path.mkdir(parents=True, exist_ok=True)
                is_new = True
            elif not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
        if (file := _opened(lock)) is None:
            continue
        try:
            _take(file, path)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), lock.lstat()):  # else its last holder has just deleted it
                    break
        except BaseException:
            os.close(file)
            raise
        os.close(file)
    claim = _Claim(path, file, is_new)
    try:
        with told(lock):
            os.ftruncate(file, 0)
            os.pwrite(file, _who().encode(), 0)
        _tidy(path)
    except BaseException:
        claim.release()
        raise
    return claim


def _opened(lock: Path) -> int | None:
    """The lock's file, made if need be, and none that somebody else has put in its place; None: the folder is gone."""
    try:
        file = opened_without_links(lock, os.O_RDWR | os.O_CREAT)
    except PermissionError as error:
        if os.path.lexists(lock):
            words = f"{lock.parent} is held by another user's run. If that is over, delete {lock}."
            raise HeldError(words) from error
        raise not_written(lock.parent, error) from error
    except FileNotFoundError:
        return None
    except OSError as error:
        raise not_written(lock, error) from error
    status = os.fstat(file)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(file)
        raise HeldError(f"{lock} is not a file that a run of yours has made: delete it, or choose another folder.")
    return file


def _take(file: int, path: Path) -> None:
    """Lock the file.

    Raises:
        HeldError: Another run holds it.
    """
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        end = time.monotonic() + _PATIENCE
        while not (holder := _shown(os.pread(file, 300, 0))) and time.monotonic() < end:
            time.sleep(0.02)
        raise HeldError(
            f"{path} is held by {holder or 'another run'}: wait until that has ended, or choose another folder."
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise not_written(path, error) from error
        log.warning("%s has no file locks (%s): see to it that no other run writes there.", path, error.strerror)


def _who() -> str:
    command = Path(sys.argv[0]).name or "python"
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{command} (process {os.getpid()} on {socket.gethostname()}, since {since})\n"


def _shown(content: bytes) -> str:
    return "".join(filter(str.isprintable, content.decode(errors="replace")))


def _tidy(path: Path) -> None:
    """Check the folders that a run writes in, and delete what a killed one left half written."""
    for folder in (path, *(path / name for name in _WRITTEN_IN)):
        if folder != path and folder.is_symlink():
            raise NotWrittenError(f"{folder} is a link, and nothing is written through links inside {path}.")
        for left in folder.glob(f"{PARTIAL}*.partial"):
            with suppress(OSError):
                left.unlink()


def _absolute(folder: Path) -> Path:
    return Path(os.path.abspath(folder))  # noqa: PTH100 links are not to be resolved


def _forget_all() -> None:
    """In a forked process: its parent's claims end with the parent, whatever becomes of it."""
    for claim in list(_held.values()):
        claim.forget()
    _handed.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
