"""What there is to grade: one film, a folder of films, or a table that lists them. A bad one is a row, not the end."""
# Many films: os.path is many times faster than Path.
# ruff: noqa: PTH114, PTH118, PTH119, PTH206

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from legradnet.data.checks import SHOWN, check_quotes, parse_label
from legradnet.data.film import ImageError
from legradnet.data.film_names import as_text
from legradnet.data.film_tables import PARQUET, read_film_table
from legradnet.data.images import HEAD, format_of
from legradnet.data.places import OutsideError, missing, real_path
from legradnet.data.sides import SIDE_WORDS, Side
from legradnet.data.sources import is_other_file
from legradnet.errors import UserError
from legradnet.files import OF_THE_PROCESS
from legradnet.tables import PATHS, Table, shown

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InputFilm:
    """A film to grade.

    Attributes:
        filename: As the user names it: relative to the folder, as in the CSV, or as given.
        film: Where it is, or what is wrong with it.
        label: Its true grade, if the CSV has one.
        side: L, R, or "" if nothing says so.
        patient: As the CSV says, or "".
        knee: Which knee of a whole film is asked for, as the CSV says: R or L; "" for all.
    """

    filename: str
    film: Path | ImageError
    label: int | None = None
    side: Side = ""
    patient: str = ""
    knee: Side = ""


class FilmList:
    """Films to grade that are named, of which parts are looked up: a long list takes little more than its names.

    Args:
        names: Of all films, in order, as the user names them.
        part: Gives the films of a range of positions.
    """

    def __init__(self, names: Sequence[str], part: Callable[[range], Iterator[InputFilm]]) -> None:
        self.names = names
        self._part = part

    def __len__(self) -> int:
        return len(self.names)

    def part(self, positions: range) -> list[InputFilm]:
        """The films at some of the positions; rows whose label, side or knee can't be read are told together."""
        return list(self._part(positions))

    def digest(self) -> str:
        """Of all names, in their order."""
        digest = hashlib.sha256()
        for name in self.names:
            digest.update(name.encode() + b"\0")
        return digest.hexdigest()


def list_films(source: Path, dataset_path: Path | None = None) -> list[InputFilm]:
    """List the films of a file, a folder (recursively, sorted by name), a CSV or a Parquet table.

    A file is taken by its content: an image, or a table with a column `filename`. Nothing outside the folder, or
    outside `dataset_path`, is opened; links to it get an error.

    Args:
        source: File, folder or table.
        dataset_path: Folder that a table's names are relative to; None: the table's own.

    Raises:
        UserError: Nothing there, or a table without a column `filename`.
    """
    films = name_films(source, dataset_path)
    return films.part(range(len(films)))


def name_films(source: Path, dataset_path: Path | None = None) -> FilmList:
    """As `list_films`, but no film is looked up before it is asked for."""
    if source.is_dir():
        films = _in_folder(source)
        if not films.names:
            raise UserError(f"input={source}: there is no film in this folder.")
        return films
    if not source.is_file():
        raise UserError(f"input={source} does not exist.")
    table = listed_table(source)
    if table is None:
        name = as_text(str(source))
        return FilmList([name], lambda positions: (InputFilm(name, source) for _ in positions))
    return _in_table(table, dataset_path or source.parent)


def listed_table(source: Path) -> Table | None:
    """The table that `source` is, of whose rows `list_films` makes a film each; None for a film or a folder.

    Raises:
        UserError: A table without a column `filename`.
    """
    return read_film_table(source, [PATHS]) if source.is_file() and _is_table(source) else None


def _in_folder(folder: Path) -> FilmList:
    root = os.path.realpath(folder)
    real_folders: dict[str, str] = {}
    names = []
    for place, folders, files in os.walk(root):
        files += [name for name in folders if os.path.islink(os.path.join(place, name))]  # not followed: a row each
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.relpath(os.path.join(place, name), root) for name in files]
    told = []
    for name in sorted(names, key=lambda name: name.split(os.sep)):
        text = as_text(name.replace(os.sep, "/"))
        if is_other_file(os.path.basename(name)):
            film = _find(root, text, real_folders)
            if not (isinstance(film, Path) and _is_film(film)):
                continue
        told.append(text)
    return FilmList(
        told, lambda positions: (InputFilm(told[at], _find(root, told[at], real_folders)) for at in positions)
    )


def _in_table(table: Table, folder: Path) -> FilmList:
    root = os.path.realpath(folder)
    check_quotes(table, root)
    if not table.rows:
        raise UserError(f"input={table.path} has a header and no rows.")
    names = table.column(PATHS)
    return FilmList(names, lambda positions: _rows(table, root, names, positions))


def _rows(table: Table, root: str, names: Sequence[str], positions: range) -> Iterator[InputFilm]:
    real_folders: dict[str, str] = {}
    known = {name: table.column(name) for name in ("label", "side", "patient", "knee") if name in table.header}
    odd: dict[str, list[str]] = {"label": [], "side": [], "knee": []}
    for position in positions:
        row = table.numbers[position]
        film = _find(root, names[position], real_folders)
        if position in table.uneven:
            cells, columns = table.uneven[position], len(table.header)
            remedy = "; a cell with a comma needs quotes" if cells > columns else ""
            film = ImageError(f"row {row} of the CSV has {cells} cells, not {columns}{remedy}")
        if position in table.faults:
            film = ImageError(f"row {row} of the CSV holds {table.faults[position]}")
        given = {name: column[position] for name, column in known.items()}
        label = parse_label(given.get("label", ""), 1000)
        side, knee = (SIDE_WORDS.get(given.get(name, "").lower()) for name in ("side", "knee"))
        if label < 0 and given.get("label"):
            odd["label"].append(f"row {row}: {shown(given['label'])}")
        if side is None:
            odd["side"].append(f"row {row}: {shown(given['side'])}")
        if knee is None:
            odd["knee"].append(f"row {row}: {shown(given['knee'])}")
        yield InputFilm(names[position], film, None if label < 0 else label, side or "", given.get("patient", ""),
                        knee or "")  # fmt: skip
    sides_are = "L, R, left or right"
    for kind, right in (("label", "a whole number"), ("side", sides_are), ("knee", sides_are)):
        if odd[kind]:
            _log.warning("%d rows have a %s that is not %s, and count as without: %s", len(odd[kind]), kind, right,
                         ", ".join(odd[kind][:SHOWN]))  # fmt: skip


def _find(root: str, name: str, real_folders: dict[str, str]) -> Path | ImageError:
    try:
        return Path(real_path(root, name, real_folders)) if name else ImageError("the file name is empty")
    except OutsideError as error:
        return ImageError(f"leads out of its folder: {error}")
    except OSError as error:
        return ImageError(missing(name, error))
    except ValueError:  # a NUL byte
        return ImageError("no such file can exist")


def _is_table(path: Path) -> bool:
    """Whether a file is, or wants to be, a CSV or a Parquet table that lists films."""
    with path.open("rb") as file:
        head = file.read(max(HEAD, 4096))
    if head.startswith(PARQUET):
        return True
    if format_of(head):
        return False
    first = head.replace(b"\0", b"").strip().splitlines()[:1]  # without the zeros of UTF-16
    return path.suffix.lower() in (".csv", ".tsv") or any(PATHS.encode() in line for line in first)


def _is_film(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return format_of(file.read(HEAD)) is not None
    except OSError as error:
        if error.errno in OF_THE_PROCESS:
            raise
        return False
