"""What there is to grade: one film, a folder of films, or a CSV that lists them. A bad one is a row, not the end."""
# Many films: os.path is many times faster than Path.
# ruff: noqa: PTH114, PTH118, PTH119, PTH206

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from legradnet.data.checks import OutsideError, parse_label, real_path
from legradnet.data.film import ImageError
from legradnet.data.images import HEAD, format_of
from legradnet.data.sides import SIDE_WORDS, Side
from legradnet.data.sources import is_other_file
from legradnet.errors import UserError


@dataclass(frozen=True)
class InputFilm:
    """A film to grade.

    Attributes:
        filename: As the user names it: relative to the folder, as in the CSV, or as given.
        film: Where it is, or what is wrong with it.
        label: Its true grade, if the CSV has one.
        side: L, R, or "" if nothing says so.
        patient: As the CSV says, or "".
    """

    filename: str
    film: Path | ImageError
    label: int | None = None
    side: Side = ""
    patient: str = ""


def list_films(source: Path, dataset_path: Path | None = None) -> list[InputFilm]:
    """List the films of a file, a folder (recursively, sorted by name) or a CSV.

    A file is taken by its content: an image, or text with a column `filename`. Nothing outside the folder, or outside
    `dataset_path`, is opened; links to it get an error.

    Args:
        source: File, folder or CSV.
        dataset_path: Folder that a CSV's names are relative to; None: the CSV's own.

    Raises:
        UserError: Nothing there, or a CSV without a column `filename`.
    """
    if source.is_dir():
        films = list(_in_folder(source))
        if not films:
            raise UserError(f"input={source}: there is no film in this folder.")
        return films
    if not source.is_file():
        raise UserError(f"input={source} does not exist.")
    header = _csv_header(source)
    if header is None:
        return [InputFilm(str(source), source)]
    return list(_in_csv(source, header, dataset_path or source.parent))


def _in_folder(folder: Path) -> Iterator[InputFilm]:
    root = os.path.realpath(folder)
    real_folders: dict[str, str] = {}
    names = []
    for place, folders, files in os.walk(root):
        files += [name for name in folders if os.path.islink(os.path.join(place, name))]  # not followed: a row each
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.relpath(os.path.join(place, name), root) for name in files]
    for name in sorted(names, key=lambda name: name.split(os.sep)):
        film = _find(root, name, real_folders)
        if is_other_file(os.path.basename(name)) and not (isinstance(film, Path) and _is_film(film)):
            continue
        yield InputFilm(name.replace(os.sep, "/"), film)


def _in_csv(path: Path, header: list[str], folder: Path) -> Iterator[InputFilm]:
    root = os.path.realpath(folder)
    real_folders: dict[str, str] = {}
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        rows = csv.reader(file)
        try:
            next(rows)
            for cells in rows:
                if not any(cells):
                    continue
                row = dict(zip(header, cells, strict=False))
                name = row.get("filename", "").strip()
                film = _find(root, name, real_folders)
                if len(cells) != len(header):
                    film = ImageError(f"row {rows.line_num} of the CSV has {len(cells)} cells, not {len(header)}")
                label = parse_label(row.get("label", "").strip(), 1000)
                side = SIDE_WORDS.get(row.get("side", "").strip().lower(), "")
                yield InputFilm(name, film, None if label < 0 else label, side, row.get("patient", "").strip())
        except csv.Error as error:
            raise UserError(f"{path}: row {rows.line_num}: {error}.") from None


def _find(root: str, name: str, real_folders: dict[str, str]) -> Path | ImageError:
    try:
        return Path(real_path(root, name, real_folders)) if name else ImageError("the file name is empty")
    except OutsideError:
        return ImageError(f"leads out of {root}")
    except OSError as error:
        return ImageError(error.strerror or str(error))
    except ValueError:  # a NUL byte
        return ImageError("no such file can exist")


def _csv_header(path: Path) -> list[str] | None:
    """The column names of a CSV that lists films; None if the file is something else."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if format_of(head):
        return None
    try:
        with path.open(encoding="utf-8-sig", errors="replace", newline="") as text:
            header = [name.strip() for name in next(csv.reader(text), [])]
    except csv.Error:
        header = []
    if "filename" in header:
        return header
    if path.suffix.lower() == ".csv":
        hint = "; save it as UTF-8" if b"\0" in head else ""
        raise UserError(f"input={path}: the CSV has no column filename in its first line{hint}.")
    return None


def _is_film(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return format_of(file.read(HEAD)) is not None
    except OSError:
        return False
