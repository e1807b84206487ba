"""Reading a table of films: from a CSV file, or from folders named after grades."""
# Many films: os.path is many times faster than Path.
# ruff: noqa: PTH118, PTH122

import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from legradnet.data.checks import COLUMNS, SHOWN, Draft, check_quotes
from legradnet.data.film_names import as_text
from legradnet.data.film_tables import read_film_table
from legradnet.data.splits import SPLITS
from legradnet.errors import UserError
from legradnet.tables import TableError, shown

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
_REMEDY = "let its name begin with the grade, as 0 or 0Normal, or list the films in a CSV (data=csv)"
_NO_FILMS = {
    *(".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log"),
    *(".md", ".pdf", ".py", ".txt", ".xlsx", ".xml", ".yaml"),
}


class ManifestError(UserError):
    """All that is wrong with a data set, in one message."""


def read_csv(csv_path: Path, root: Path, *, labelled: bool = True) -> Draft:
    """Read a CSV or Parquet file of films, `labelled` with a column of grades; ManifestError where it is none."""
    import pandas as pd  # late: listing films to grade needs no tables

    if not csv_path.is_file():
        fault = "is not a file" if csv_path.exists() else "does not exist"
        raise ManifestError(f"data.csv_path={csv_path} {fault}")
    try:
        read = read_film_table(csv_path, COLUMNS[: 1 + labelled])
        check_quotes(read, str(root))
    except TableError as error:
        raise ManifestError(str(error)) from None
    if not read.rows:
        raise ManifestError(f"{csv_path} has a header and no rows")
    columns = {
        name: read.column(name) if name in COLUMNS else [cells[at] for cells in read.rows]
        for at, name in enumerate(read.header)
        if name
    }
    columns.setdefault("label", [""] * len(read.rows))
    draft = Draft(pd.DataFrame(columns, dtype=str), root, str(csv_path), read.numbers)
    width = len(read.header)
    draft.add_rows(
        "row has not as many cells as the header (a cell with a comma needs quotes)",
        list(read.uneven),
        lambda i: f"{read.uneven[i]}, not {width}",
    )
    draft.add_rows("row holds what no cell may hold", list(read.faults), lambda i: read.faults[i])
    return draft


def read_folders(root: Path, num_classes: int) -> Draft:
    """List `{train,val,test}/{0..K-1}/*`, or `{0..K-1}/*`, in a fixed order; a class folder may be called `0Normal`."""
    import pandas as pd

    top = _folders(root)
    splits: list[str] = [split for split in SPLITS if split in top]
    unused = [name for name in top if splits and name not in splits]
    films, wrong, named = [], [], []
    for split in splits or [""]:
        names = _folders(root / split)
        grades = {name: _grade_of(name, num_classes) for name in names}
        for name, grade in grades.items():
            folder = f"{split}/{name}" if split else name
            others = [] if grade is None else [other for other in names if grades[other] == grade and other != name]
            if grade is None and (split or name.isdecimal()):
                wrong.append(shown(folder))
            elif grade is None or (str(grade) != name and str(grade) in others):
                unused.append(folder)
            elif others and str(grade) != name:
                wrong.append(f"{shown(folder)} and {shown(others[0])} both begin with {grade}")
            else:
                named += [f"{shown(folder)} = {grade}"] if str(grade) != name else []
                unused += [f"{folder}/{below}" for below in _folders(root / folder)]
                films += [(as_text(f"{folder}/{film}"), str(grade), split) for film in _films(root / folder)]
    if unused:
        are = "folder in %s is" if len(unused) == 1 else "folders in %s are"
        gradeless = not splits and any(_grade_of(folder, num_classes) is None for folder in unused)
        remedy = f" (a class folder: {_REMEDY})" if gradeless else ""
        told = ", ".join(map(shown, unused[:SHOWN]))
        _log.warning(f"%d {are} not used: %s%s", len(unused), root, told, remedy)
    if named:
        _log.info("Class folders are taken by the number that they begin with: %s", ", ".join(named[:SHOWN]))
    draft = Draft(pd.DataFrame(films, columns=["filename", "label", "split"], dtype=str), root, str(root))
    draft.add(f"class folder is not one of 0 to {num_classes - 1} ({_REMEDY})", len(wrong), wrong)
    if not films and not wrong:
        layout = f"{{train,val,test}}/{{0..{num_classes - 1}}}/* or {{0..{num_classes - 1}}}/*"
        found = ", ".join(map(shown, top[:SHOWN])) or "no folders"
        raise ManifestError(f"{root} holds no films as {layout}; found: {found}. A class folder: {_REMEDY}")
    return draft


def has_grades(root: Path, num_classes: int) -> bool:
    """Whether folders in `root` are named after splits or grades."""
    return any(name in SPLITS or _grade_of(name, num_classes) is not None for name in _folders(root))


def read_all(root: Path) -> Draft:
    """List every film in a folder and in those below it, whatever their names; ManifestError where there is none."""
    import pandas as pd

    names = []
    for place, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [os.path.relpath(os.path.join(place, name), root) for name in files if not is_other_file(name)]
    if not names:
        raise ManifestError(f"{root} holds no films")
    told = [as_text(name.replace(os.sep, "/")) for name in sorted(names)]
    return Draft(pd.DataFrame({"filename": told, "label": [""] * len(told)}, dtype=str), root, str(root))


def _grade_of(folder: str, num_classes: int) -> int | None:
    """The number that a class folder's name begins with; None if that is no grade."""
    number = re.match(r"0*([0-9]{1,9})(?![0-9])", folder)
    grade = int(number[1]) if number else num_classes
    return grade if grade < num_classes else None


def _films(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.is_dir() and not is_other_file(entry.name))


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def is_other_file(name: str) -> bool:
    """Whether a file's name says that it is no film (hidden, text, tables, pages)."""
    return name.startswith(".") or os.path.splitext(name)[1].lower() in _NO_FILMS


def with_patients(table: "pd.DataFrame", patient_regex: str) -> "pd.DataFrame":
    """Fill missing patient and side columns from the films' base names."""
    try:
        pattern = re.compile(patient_regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"data.patient_regex={patient_regex!r} is not a regular expression: {error}") from None
    if "patient" not in pattern.groupindex:
        raise UserError(f"data.patient_regex={patient_regex!r} has no group (?P<patient>...)")
    bases = [name.rpartition("/")[2] for name in table["filename"]]
    missing = [name for name in ("patient", "side") if name in pattern.groupindex and name not in table]
    matches = [pattern.search(base) for base in bases]
    columns = {name: [(match[name] or "") if match else "" for match in matches] for name in missing}
    if unknown := columns.get("patient", []).count(""):
        _log.warning("%d of %d file names tell no patient by data.patient_regex=%s", unknown, len(table), patient_regex)
    return table.assign(**columns)
