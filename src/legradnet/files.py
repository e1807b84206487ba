"""Every file that a command leaves goes through here: whole or not at all, and told in a sentence where that fails.

Until a file is whole it has a name that nobody can guess, and nothing that lies in its place is followed or opened. It
is readable by its owner alone, unless it is said to name no films.
"""

import errno
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from yaml import YAMLError  # type: ignore[import-untyped] # comes with OmegaConf

from legradnet.errors import UserError

NOT_YAML = (YAMLError, UnicodeError, RecursionError)

PARTIAL = ".legradnet-"  # what a file's name begins with until it is whole; more than a kill leaves it behind

# folders that this process has claimed: what is written below them goes through no link that lies in them
guarded: set[Path] = set()

_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)  # Windows has neither

OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE)  # too many open files, whichever is opened next

_HARDLY_ANY = 64_000  # bytes


class NotWrittenError(UserError):
    """Something can't be written where it belongs: the disk is full, read-only, not ours."""


@contextmanager
def written_whole(target: Path, *, shared: bool = False) -> Iterator[BinaryIO]:
    """Open a file beside `target` that takes its place, safe on disk, only when all went well; folders are made.

    A disk that is full is told at the end, when it is known how much space is needed.

    Args:
        target: Where it belongs.
        shared: Whether others may read it, as far as the umask lets them: it names no films.

    Raises:
        NotWrittenError: It can't be written; what was at `target` is still there.
    """
    with told(target):
        make_folder(target.parent)
        partial, file_number = _new(target.parent, 0o666 if shared else 0o600)
        raw = _Counted(file_number, "wb")
    try:
        with io.BufferedWriter(raw, 1 << 20) as file:
            yield file
            file.flush()
            if raw.failure is None:
                try:
                    os.fsync(raw.fileno())
                except OSError as error:  # some disks tell only now that they are full
                    raw.failure = error
        if raw.failure is None:
            with told(target):
                partial.replace(target)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    if raw.failure is not None:
        raise not_written(target, raw.failure, needed=size_in_words(raw.size)) from raw.failure


def write_text(path: Path, text: str, *, shared: bool = False) -> None:
    """Write a file whole or not at all, as `written_whole` does."""
    with written_whole(path, shared=shared) as file:
        file.write(text.encode())


def not_yaml(path: Path, error: Exception) -> UserError:
    """What is wrong with a file that is no YAML, without quoting it: it need not be the file that it was taken for."""
    mark = getattr(error, "problem_mark", None)
    place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    words = getattr(error, "problem", None) or "it is nested too deep"
    words = "it is no UTF-8 text" if isinstance(error, UnicodeError) else words
    return UserError(f"{path} can't be read as YAML{place}: {words}.")


class GrowingFile:
    """A file that grows by whole pieces: each is safe on disk when `add` is over, or no part of it is in the file.

    Args:
        path: Of a file that is there.

    Raises:
        NotWrittenError: It can't be written, or is a link.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with told(path):
            self._file = opened_without_links(path, os.O_RDWR | os.O_APPEND)

    def add(self, text: str) -> None:
        """Write `text` behind all that is there.

        Raises:
            NotWrittenError: It can't be written.
        """
        content = memoryview(text.encode())
        before = os.fstat(self._file).st_size
        try:
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        except BaseException as error:
            with suppress(OSError):
                os.ftruncate(self._file, before)
            if isinstance(error, OSError):
                raise not_written(self.path, error, needed=size_in_words(len(text.encode()))) from error
            raise

    def __enter__(self) -> "GrowingFile":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)


def make_folder(folder: Path, *, mode: int = 0o777) -> None:
    """Make a folder and those above it; below a claimed folder none of them may be a link.

    Raises:
        OSError: It can't be made.
        NotWrittenError: It is a link, or below one.
    """
    whole = Path(os.path.abspath(folder))  # noqa: PTH100 links are not to be resolved
    if root := next((place for place in (whole, *whole.parents) if place in guarded), None):
        for depth in range(1, len(whole.parts) - len(root.parts) + 1):
            inner = root.joinpath(*whole.parts[len(root.parts) :][:depth])
            if inner.is_symlink():
                raise NotWrittenError(f"{inner} is a link, and nothing is written through links inside {root}.")
    folder.mkdir(mode=mode, parents=True, exist_ok=True)


def check_writable(folder: Path) -> None:
    """See whether files can be made in a folder, or where it is going to be made.

    Raises:
        NotWrittenError: They can't.
    """
    with told(folder):
        with suppress(FileNotFoundError):
            folder.lstat()  # a name that is too long
        probe, file = _new(next(place for place in (folder, *folder.parents) if os.path.lexists(place)), 0o600)
        os.close(file)
        probe.unlink()


def opened_without_links(path: Path, how: int) -> int:
    """Open `path` itself, as `os.open` does with the flags `how`; a new file is its owner's alone.

    Raises:
        OSError: It can't be opened, or is a link.
    """
    return os.open(path, how | _AS_IT_IS, 0o600)


@contextmanager
def told(path: Path) -> Iterator[None]:
    """Tell in words what keeps `path` from being written, in place of an OSError.

    Raises:
        NotWrittenError: There was an OSError.
    """
    try:
        yield
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError, needed: str = "space") -> NotWrittenError:
    """Why `path` can't be written, in a sentence with what is needed, `3.0 MB`."""
    return NotWrittenError(f"{path} can't be written: {reason(path, error, needed)}.")


def reason(path: Path | None, error: OSError, needed: str = "space") -> str:
    """What an error of the system means, and what is needed."""
    need = f"{needed} {'is' if needed == 'space' else 'are'} needed"
    folder = next((place for place in (path, *path.parents) if _is_folder(place)), None) if path else None
    match error.errno:
        case errno.ENOSPC:
            return f"the disk is full ({need}{_free(folder)})"
        case errno.EDQUOT:
            return f"your share of the disk (quota) is used up ({need})"
        case errno.EFBIG:
            return f"no file may be so large here (ulimit -f; {need})"
        case errno.EROFS:
            return "the file system is read-only; it needs a place that can be written"
        case errno.EACCES | errno.EPERM:
            return f"permission denied; it needs the right to write in {folder}" if folder else "permission denied"
        case errno.ENAMETOOLONG:
            longest = max((len(os.fsencode(part)) for part in path.parts), default=0) if path else 0
            return f"its name is too long ({longest} bytes, at most {_longest_name(folder)} between two /)"
        case errno.EMFILE:
            return f"this process has too many files open; it needs a higher limit than {_file_limit()} (ulimit -n)"
        case errno.ENFILE:
            return "too many files are open on this machine"
        case errno.EEXIST | errno.ENOTDIR:
            return "there is a file where a folder should be"
        case errno.ELOOP:
            return "it is a link, and nothing is written through links"
        case _:
            return error.strerror or str(error) or type(error).__name__


def is_full(folder: Path) -> bool:
    """Whether there is hardly any space left on the disk of `folder`."""
    if not hasattr(os, "statvfs"):
        return False
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize < _HARDLY_ANY or bool(space.f_files and not space.f_favail)


def of_the_system(error: OSError) -> str:
    """A sentence about what the system refused outside of the files that are written here."""
    if isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
        return f"{path}: {reason(path, error)}."
    words = reason(None, error)
    return f"{words[:1].upper()}{words[1:]}."


def size_in_words(size: int) -> str:
    """A size in bytes, `3.0 MB` or `12.5 kB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"


def _new(folder: Path, mode: int) -> tuple[Path, int]:
    """A new file in `folder` under a name that nobody can guess, open to be written."""
    path = folder / f"{PARTIAL}{secrets.token_hex(8)}.partial"
    return path, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _AS_IT_IS, mode)


class _Counted(io.FileIO):
    """A file that takes all that is written, whether or not the disk does, and knows its size and what went wrong.

    Libraries that write into it lose an error on the way, or tell it on stderr when they are collected.
    """

    failure: OSError | None = None
    size = 0

    def write(self, content: Any) -> int:
        try:
            written = super().write(content) if self.failure is None else self._pass_over(content)
        except OSError as error:
            self.failure = error
            written = self._pass_over(content)
        self.size = max(self.size, self.tell())
        return written or 0

    def _pass_over(self, content: Any) -> int:
        length = memoryview(content).nbytes
        self.seek(length, os.SEEK_CUR)
        return length


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 False, too, for a name that is too long


def _free(folder: Path | None) -> str:
    if folder is None or not hasattr(os, "statvfs"):
        return ""
    space = os.statvfs(folder)
    if space.f_files and not space.f_favail:
        return ", but not one more file has a place on it: no inodes are left"
    return f", {size_in_words(space.f_bavail * space.f_frsize)} are free on the disk of {folder}"


def _longest_name(folder: Path | None) -> int:
    try:
        return os.pathconf(folder or "/", "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return 255


def _file_limit() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "now"
    return str(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
