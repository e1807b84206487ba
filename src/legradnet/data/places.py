"""Where a film that a table or a folder names is: inside the folder that the user named, or told why not."""
# A million Path objects would take longer than all other checks together, hence os.path:
# ruff: noqa: PTH114, PTH116, PTH117, PTH118, PTH206

import os
import stat
from contextlib import suppress

from legradnet.data.film_names import as_name
from legradnet.tables import shown

_LONGEST_NAME = 4096


class OutsideError(Exception):
    """A name that leads out of the folder it should be in; says how, if it is asked.

    Args:
        root: The folder.
        name: Relative to it, or absolute.
    """

    def __init__(self, root: str, name: str) -> None:
        super().__init__(root, name)

    def __str__(self) -> str:
        return _way_out(*self.args)


def real_path(root: str, name: str, folders: dict[str, str]) -> str:
    """Resolve `name` inside `root` with one look at each folder and, unless it is a link, one at the film.

    Args:
        root: The resolved folder.
        name: Relative to it, or absolute; one that isn't UTF-8 as `as_text` tells it.
        folders: Folders that were looked at already; kept from call to call.

    Raises:
        OutsideError: It leads out of `root`.
        OSError: It is not a file, or its name is too long.
    """
    if "\\" in name and (told := as_name(name)) != name:
        with suppress(FileNotFoundError):
            return _real_path(root, told, folders)
    return _real_path(root, name, folders)


def _real_path(root: str, name: str, folders: dict[str, str]) -> str:
    if len(name) > _LONGEST_NAME:
        raise OSError(f"the name is longer than {_LONGEST_NAME:,} characters")
    folder, base = os.path.split(name)
    if base == os.pardir:
        folder, base = name, ""
    if folder not in folders:
        real = os.path.realpath(os.path.join(root, folder))
        folders[folder] = real if within(root, real) else ""
    if not folders[folder]:
        raise OutsideError(root, name)
    path = os.path.join(folders[folder], base)
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        path = os.path.realpath(path)
        if not within(root, path):
            raise OutsideError(root, name)
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return os.path.normcase(path)


def _way_out(root: str, name: str) -> str:
    """Say how a name leads out of `root`: by a link inside it, or of itself."""
    below = os.path.relpath(name, root) if os.path.isabs(name) else name
    place = root
    for part in below.split(os.sep):
        place = os.path.join(place, part)
        if within(root, os.path.normpath(place)) and os.path.islink(place):
            target = os.path.realpath(place)
            if not within(root, target):
                link = "" if place == os.path.join(root, below) else f"{shown(os.path.relpath(place, root))} "
                return f"{link}is a link to {target}, which is not in {root}"
    return f"is not in {root}"


def missing(name: str, error: OSError) -> str:
    """What is wrong with a film that cannot be found."""
    reason = error.strerror or str(error)
    return f"{reason}; write / instead of \\ between folders" if "\\" in name else reason


def within(root: str, path: str) -> bool:
    """Whether a resolved path is in the folder `root`, or is it."""
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
