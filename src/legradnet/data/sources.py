"""Reading a table of films: from a CSV file, or from folders named after grades."""
# Many films: os.path is many times faster than Path.
# ruff: noqa: PTH122

import csv
import io
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from legradnet.data.checks import COLUMNS, SHOWN, Draft, shown
from legradnet.data.splits import SPLITS
from legradnet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)
_NO_FILMS = {
    *(".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log"),
    *(".md", ".pdf", ".py", ".txt", ".xlsx", ".xml", ".yaml"),
}


class ManifestError(UserError):
    """All that is wrong with a data set, in one message."""


def read_csv(csv_path: Path, root: Path) -> Draft:
    """Read a UTF-8 CSV file as strings; raise ManifestError where that can't be done."""
    import pandas as pd  # late: listing films to grade needs no tables

    reader = csv.reader(io.StringIO(_csv_text(csv_path), newline=""), strict=True)
    records, rows, row = [], [], 1
    try:
        for cells in reader:
            if any(cells):
                records.append(cells)
                rows.append(row)
            row = reader.line_num + 1
    except csv.Error as error:
        raise ManifestError(f"{csv_path}: row {row}: {error}; is a quote missing?") from None
    header = [name.strip() for name in records.pop(0)] if records else []
    _check_header(csv_path, header)
    if not records:
        raise ManifestError(f"{csv_path} has a header and no rows")
    uneven = {i: len(cells) for i, cells in enumerate(records) if len(cells) != len(header)}
    for i in uneven:
        records[i] = (records[i] + [""] * len(header))[: len(header)]
    table = pd.DataFrame({name: [cells[i] for cells in records] for i, name in enumerate(header) if name}, dtype=str)
    for name in table.columns.intersection(COLUMNS):
        table[name] = table[name].str.strip()
    draft = Draft(table, root, str(csv_path), rows[1:])
    draft.add_rows("row has not as many cells as the header", list(uneven), lambda i: f"{uneven[i]}, not {len(header)}")
    return draft


def _csv_text(csv_path: Path) -> str:
    try:
        if not csv_path.is_file():
            fault = "is not a file" if csv_path.exists() else "does not exist"
            raise ManifestError(f"data.csv_path={csv_path} {fault}")
        content = csv_path.read_bytes()
    except OSError as error:
        raise ManifestError(f"data.csv_path={csv_path}: {error.strerror}") from None
    if (nul := content.find(0)) >= 0:
        at, fault = nul, "a NUL byte (a UTF-16 file?)"
    else:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            at, fault = error.start, f"byte 0x{error.object[error.start]:02x}"
    raise ManifestError(f"{csv_path}: row {1 + content.count(10, 0, at)} holds {fault}; save the file as UTF-8")


def _check_header(csv_path: Path, header: list[str]) -> None:
    if not header:
        raise ManifestError(f"{csv_path} is empty")
    problems = []
    if missing := [name for name in COLUMNS[:2] if name not in header]:
        problems.append(f"has no column {' and '.join(missing)}; found: {shown(', '.join(header))}")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        problems.append(f"has more than one column {shown(', '.join(twice))}")
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if missing and len(header) == 1 and mark in header[0]:
            problems.append(f"seems to be separated by {name}; save it with commas")
    if problems:
        raise ManifestError(f"{csv_path} " + "; it ".join(problems))


def read_folders(root: Path, num_classes: int) -> Draft:
    """List `{train,val,test}/{0..K-1}/*`, or `{0..K-1}/*`, in a fixed order."""
    import pandas as pd

    top = _folders(root)
    splits: list[str] = [split for split in SPLITS if split in top]
    unused = [name for name in top if name not in splits and (splits or not name.isdecimal())]
    classes = [(split, f"{split}/{name}") for split in splits for name in _folders(root / split)]
    classes = classes or [("", name) for name in top if name.isdecimal()]
    films, unknown = [], []
    for split, folder in classes:
        label = folder.rpartition("/")[2]
        if label not in map(str, range(num_classes)):
            unknown.append(folder)
            continue
        unused += [f"{folder}/{name}" for name in _folders(root / folder)]
        with os.scandir(root / folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.is_dir() and not is_other_file(entry.name))
        films += [(f"{folder}/{name}", label, split) for name in names]
    if unused:
        _log.warning("%d folders in %s are not used: %s", len(unused), root, ", ".join(map(shown, unused[:SHOWN])))
    draft = Draft(pd.DataFrame(films, columns=["filename", "label", "split"], dtype=str), root, str(root))
    draft.add(f"class folder is not one of 0 to {num_classes - 1}", len(unknown), map(shown, unknown))
    if not films and not unknown:
        layout = f"{{train,val,test}}/{{0..{num_classes - 1}}}/* or {{0..{num_classes - 1}}}/*"
        found = ", ".join(map(shown, top[:SHOWN])) or "no folders"
        raise ManifestError(f"{root} holds no films as {layout}; found: {found}")
    return draft


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
