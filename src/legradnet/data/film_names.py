r"""Names of films: as text that every file can hold, and as names of what is made of each film.

A name on Linux is any bytes. In Python those that are not UTF-8 are lone surrogates, which no file, page or terminal
takes: as text such a byte is `\xNN`, and a backslash that would read like one is `\x5c`, so that the text leads back.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import PurePosixPath
from unicodedata import normalize

from legradnet.tables import readable

_LONGEST_FILM, _LONGEST_SUFFIX, _LONGEST_FOLDER = 245, 10, 255  # bytes; with a number and an ending at most 255
_MARK = re.compile(r"\\(?=x(?:5c|[89a-f][0-9a-f]))", re.IGNORECASE)
_MARKED = re.compile(rb"\\x(5c|[89a-f][0-9a-f])", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def as_text(name: str) -> str:
    """A name from the file system as text; what is UTF-8 stays as it is."""
    return readable(_MARK.sub(r"\\x5c", name))


def as_name(text: str) -> str:
    """The name that `as_text` gave this text for."""
    if not _MARK.search(text):
        return text
    found = _MARKED.sub(lambda mark: bytes([int(mark[1], 16)]), text.encode("utf-8", "surrogateescape"))
    return found.decode("utf-8", "surrogateescape")


def output_names(filenames: Sequence[str], endings: Sequence[str]) -> list[str]:
    """The name, without its ending, of what is made of each film.

    That of the film below its folder, without its ending; with it where films have a name in common; and with a number
    where that is not enough. Names are relative and lead nowhere else, no part is longer than a file system takes, and
    none is that of another film or of a folder of theirs, whatever a file system makes of case and accents.

    Args:
        filenames: Of all films, as text, with `/` between folders.
        endings: What will be appended, as ".png".
    """
    safe = [_safe(name) for name in filenames]
    if len(safe) == 1:
        safe = [(PurePosixPath(), *safe[0][1:])]
    folders = {_alike(str(place)) for folder, _, _ in safe for place in (folder, *folder.parents)}
    wholes = [str(folder / f"{stem}{suffix}") for folder, stem, suffix in safe]

    def is_free(name: str) -> bool:
        return not any(_alike(name + ending) in folders for ending in endings)

    names = [str(folder / stem) for folder, stem, _ in safe]
    short = set(range(len(names)))
    while clashing := _clashing(names, short, is_free):
        for i in clashing:
            names[i] = wholes[i]
        short -= clashing
    wanted, taken = {_alike(name) for name in names}, set[str]()
    numbers: defaultdict[str, int] = defaultdict(lambda: 1)
    for i, name in enumerate(names):
        own = _alike(name)
        if own in taken or not is_free(name):
            numbered = name
            while _alike(numbered) in wanted or not is_free(numbered):
                numbers[own] += 1
                numbered = f"{name}_{numbers[own]}"
            names[i], own = numbered, _alike(numbered)
            wanted.add(own)
        taken.add(own)
    return names


def _clashing(names: Sequence[str], short: set[int], is_free: Callable[[str], bool]) -> set[int]:
    """Which of the `short` names are another's too, or a folder's."""
    times = Counter(map(_alike, names))
    return {i for i in short if times[_alike(names[i])] > 1 or not is_free(names[i])}


def _alike(name: str) -> str:
    """The same for names that some file system takes for one: in another case, or with accents put together."""
    return normalize("NFC", normalize("NFD", name).casefold())


def _safe(filename: str) -> tuple[PurePosixPath, str, str]:
    """Folder, stem and suffix that a film's outputs can have."""
    parts = [_CONTROL.sub("_", readable(part)) for part in filename.split("/") if part not in ("", ".", "..")]
    *folders, film = parts or ["film"]
    stem, suffix = PurePosixPath(film).stem, PurePosixPath(film).suffix
    if not stem.strip("."):
        stem, suffix = film, ""
    if len(film.encode()) > _LONGEST_FILM:
        suffix = suffix if len(suffix.encode()) <= _LONGEST_SUFFIX else ""
        stem = _shortened(film.removesuffix(suffix), _LONGEST_FILM - _LONGEST_SUFFIX)
    return PurePosixPath(*(_shortened(folder, _LONGEST_FOLDER) for folder in folders)), stem, suffix


def _shortened(name: str, most: int) -> str:
    """A name of at most `most` bytes: a longer one ends with a digest of the whole."""
    whole = name.encode()
    if len(whole) <= most:
        return name
    digest = blake2b(whole, digest_size=4).hexdigest()
    return f"{whole[: most - len(digest) - 1].decode(errors='ignore')}~{digest}"
