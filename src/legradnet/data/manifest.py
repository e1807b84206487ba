"""The manifest: one checked table of all films, from a CSV file or from class folders.

Whatever is wrong (columns, cells, files, pixels) is told in one `ManifestError`, by row of the CSV file: a row is a
line of the file, the header is row 1, and a record with line breaks inside quotes goes by its first line.
"""
# A million Path objects would take longer than all other checks together, hence os.path:
# ruff: noqa: PTH116, PTH117, PTH118, PTH122

import csv
import io
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Literal, TypeVar, get_args

import pandas as pd
from tqdm import tqdm

from legradnet.data.images import ImageError, check_header, fingerprint
from legradnet.errors import UserError

COLUMNS = ["filename", "label", "patient", "side", "split"]
SPLITS = ("train", "val", "test")
SHOWN = 10  # examples of each kind of problem

Verify = Literal["decode", "header"]
OnBadImage = Literal["error", "skip"]

_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_LONGEST_FILENAME = 4096
_SIDES = {"": "", "l": "L", "left": "L", "r": "R", "right": "R"}
_NO_FILMS = {".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".pdf", ".py", ".txt", ".xlsx", ".xml", ".yaml"}


class ManifestError(UserError):
    """All that is wrong with a data set, in one message."""


@dataclass(frozen=True)
class Manifest:
    """The films of a data set.

    Attributes:
        table: One row a film: `filename` relative to `root`, `label` int64, `patient`, `side` (L, R) and `split` as
            strings with "" for unknown, then the other named columns of the CSV file as strings.
        root: The resolved `dataset_path`.
        skipped: `filename` and `error` of the films left out by `on_bad_image="skip"`.
    """

    table: pd.DataFrame
    root: Path
    skipped: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"filename": [], "error": []}, dtype=str))


def load_manifest(
    dataset_path: Path,
    csv_path: Path | None = None,
    *,
    num_classes: int,
    patient_regex: str | None = None,
    verify: Verify = "decode",
    on_bad_image: OnBadImage = "error",
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Read and check a data set: from `csv_path`, or without one from the folders in `dataset_path`.

    Args:
        dataset_path: The folder that holds every film; no film outside it is opened.
        csv_path: UTF-8 CSV file with at least `filename,label`; names are relative to `dataset_path`. Without it
            `{train,val,test}/{0..K-1}/*` or `{0..K-1}/*` is expected in `dataset_path`.
        num_classes: K; labels are 0 to K-1.
        patient_regex: Searched in a film's base name where the column is missing; groups `patient` and maybe `side`.
        verify: "decode" reads every film and compares their pixels, "header" only opens them.
        on_bad_image: "skip" leaves missing and unreadable films out; all other problems are still errors.
        workers: Threads that open films, default one a core.
        progress: Show a progress bar.

    Raises:
        ManifestError: With every problem that was found.
        UserError: An option has no meaning.
    """
    _check_options(verify, on_bad_image)
    draft = _checked_draft(csv_path, dataset_path, num_classes, patient_regex)
    draft.check_images(verify, workers, progress)
    return draft.finish(on_bad_image)


def read_csv_manifest(
    csv_path: Path, dataset_path: Path, *, num_classes: int, patient_regex: str | None = None
) -> Manifest:
    """As `load_manifest` from a CSV file; the films must exist but are not opened."""
    return _checked_draft(csv_path, dataset_path, num_classes, patient_regex).finish("error")


def read_folder_manifest(dataset_path: Path, *, num_classes: int, patient_regex: str | None) -> Manifest:
    """As `load_manifest` from class folders; the films are not opened."""
    return _checked_draft(None, dataset_path, num_classes, patient_regex).finish("error")


def verify_images(
    manifest: Manifest,
    *,
    verify: Verify = "decode",
    on_bad_image: OnBadImage = "error",
    workers: int | None = None,
    progress: bool = False,
) -> Manifest:
    """Open the films of a manifest as `load_manifest` does; problems go by file name, as rows are no longer known."""
    _check_options(verify, on_bad_image)
    draft = _Draft(manifest.table, manifest.root, str(manifest.root))
    draft.check_files()
    draft.check_images(verify, workers, progress)
    checked = draft.finish(on_bad_image)
    return replace(checked, skipped=pd.concat([manifest.skipped, checked.skipped], ignore_index=True))


class _Draft:
    """A table on its way to a manifest, with all that was found wrong so far."""

    def __init__(self, table: pd.DataFrame, root: Path, source: str, rows: Sequence[int] = ()) -> None:
        self.table, self.root, self.source, self.rows = table, root, source, rows
        self.problems: list[str] = []
        self.paths: list[str] = []  # resolved; "" for a film that is not to be opened
        self.bad: dict[int, str] = {}  # position -> why its film cannot be read

    def place(self, position: int) -> str:
        name = _shown(str(self.table["filename"].iat[position]))
        return f"row {self.rows[position]} {name}" if self.rows else name

    def add(self, kind: str, count: int, lines: Iterable[str]) -> None:
        if count:
            self.problems += [f"  {kind}:", *(f"    {line}" for line in islice(lines, SHOWN))]
            if count > SHOWN:
                self.problems.append(f"    ... and {count - SHOWN:,} more")

    def add_rows(self, kind: str, positions: Sequence[int], detail: Callable[[int], str]) -> None:
        self.add(kind, len(positions), (f"{self.place(i)}: {detail(i)}" for i in positions))

    def add_cells(self, kind: str, cells: "pd.Series[str]", wrong: "pd.Series[bool]") -> None:
        self.add_rows(kind, wrong.to_numpy().nonzero()[0].tolist(), lambda position: _shown(str(cells.iat[position])))

    def check_cells(self, num_classes: int) -> None:
        """Bring every column to its final form; cells that have none become -1 or ""."""
        given = self.table
        self.table = table = given.assign(
            label=_recoded(given["label"], lambda text: parse_label(text, num_classes)).astype("int64"),
            patient=given.get("patient", ""),
            side=_recoded(given["side"], lambda text: _SIDES.get(text.lower(), "?")) if "side" in given else "",
            split=_recoded(given["split"], str.lower) if "split" in given else "",
        )
        no_split = table["split"].eq("") & bool(table["split"].ne("").any())
        for kind, column, wrong in [
            ("filename is empty", "filename", table["filename"].eq("")),
            (f"label is not a whole number from 0 to {num_classes - 1}", "label", table["label"].lt(0)),
            ("side is not L, R, left, right or empty", "side", table["side"].eq("?")),
            ("split is not train, val or test", "split", ~table["split"].isin(["", *SPLITS])),
            ("split is empty while other rows have one", "split", no_split),
        ]:
            if wrong.any():
                self.add_cells(kind, given[column], wrong)
        others = [name for name in table if name not in COLUMNS]
        self.table = table[COLUMNS + others]

    def check_files(self) -> None:
        """Find every film inside `root`, and those that are named twice."""
        folders: dict[str, str] = {}
        first: dict[str, int] = {}
        outside, again = [], {}
        for position, name in enumerate(self.table["filename"]):
            path = ""
            try:
                path = _real_path(str(self.root), name, folders) if name else ""
            except _OutsideError:
                outside.append(position)
            except OSError as error:
                self.bad[position] = error.strerror or str(error)
            if path and (earlier := first.setdefault(path, position)) != position:
                again[position], path = earlier, ""
            self.paths.append(path)
        self.add_rows("filename leaves data.dataset_path", outside, lambda i: f"is not in {self.root}")
        self.add_rows("film is named twice", list(again), lambda i: f"the same file as {self.place(again[i])}")

    def check_images(self, verify: Verify, workers: int | None, progress: bool) -> None:
        """Open or decode the films that were found; decoded ones must not contradict each other."""
        positions = [position for position, path in enumerate(self.paths) if path]
        # Threads: Pillow and hashlib let go of the interpreter's lock, so processes would be no faster.
        look: Callable[[Path], bytes | None] = fingerprint if verify == "decode" else check_header
        with ThreadPool(None if workers is None else max(1, workers)) as pool:
            films = pool.imap(partial(_looked, look), (self.paths[position] for position in positions), chunksize=32)
            bar = tqdm(films, "Checking films", len(positions), unit="film", disable=not progress)
            found = dict(zip(positions, bar, strict=True))
        self.bad |= {position: str(result) for position, result in found.items() if isinstance(result, ImageError)}
        self._compare({position: result for position, result in found.items() if isinstance(result, bytes)})

    def _compare(self, pixels: dict[int, bytes]) -> None:
        films = self.table.iloc[list(pixels)].assign(position=list(pixels), pixels=list(pixels.values()))
        films = films[films["label"].ge(0) & films["pixels"].duplicated(keep=False)]
        labels: list[pd.DataFrame] = []
        splits: list[pd.DataFrame] = []
        copies: list[pd.DataFrame] = []
        for _, twins in films.groupby("pixels", sort=False):
            two_splits = twins["split"].isin(SPLITS).all() and twins["split"].nunique() > 1
            (labels if twins["label"].nunique() > 1 else splits if two_splits else copies).append(twins)
        self.add("equal pixels under two labels", len(labels), (self._twins(twins, "label") for twins in labels))
        self.add("equal pixels in two splits", len(splits), (self._twins(twins, "split") for twins in splits))
        if copies:
            examples = "; ".join(self._twins(twins, "label") for twins in copies[:3])
            _log.warning("%d films are there more than once, with equal pixels, e.g. %s", len(copies), examples)

    def _twins(self, twins: pd.DataFrame, column: str) -> str:
        shown = twins.drop_duplicates(column) if twins[column].nunique() > 1 else twins
        return " = ".join(
            f"{self.place(film['position'])} ({column} {film[column]})" for _, film in shown[:3].iterrows()
        )

    def finish(self, on_bad_image: OnBadImage) -> Manifest:
        bad = sorted(self.bad)
        if on_bad_image == "error" or len(bad) == len(self.table):
            self.add_rows("film is missing or unreadable", bad, self.bad.__getitem__)
        if self.problems:
            raise ManifestError("\n".join([f"{self.source} cannot be used:", *self.problems]))
        if not bad:
            return Manifest(self.table, self.root)
        _log.warning(
            "%d of %d films are left out, e.g. %s: %s", len(bad), len(self.table), self.place(bad[0]), self.bad[bad[0]]
        )
        names = self.table["filename"].iloc[bad].tolist()
        skipped = pd.DataFrame({"filename": names, "error": [self.bad[position] for position in bad]})
        return Manifest(self.table.drop(self.table.index[bad]).reset_index(drop=True), self.root, skipped)


def parse_label(text: str, num_classes: int) -> int:
    """Read "3" or "3.0" as 3; -1 for whatever is not a whole number from 0 to `num_classes` - 1."""
    number = re.fullmatch(r"0*([0-9]{1,9})(?:\.0*)?", text)
    label = int(number[1]) if number else -1
    return label if label < num_classes else -1


def _check_options(verify: str, on_bad_image: str) -> None:
    for key, value, choices in (("verify", verify, Verify), ("on_bad_image", on_bad_image, OnBadImage)):
        if value not in get_args(choices):
            raise UserError(f"data.{key}={value!r} is not one of {', '.join(get_args(choices))}")


def _checked_draft(csv_path: Path | None, dataset_path: Path, num_classes: int, patient_regex: str | None) -> _Draft:
    root = Path(os.path.realpath(dataset_path))
    if not root.is_dir():
        raise ManifestError(f"data.dataset_path={dataset_path} is not a folder")
    draft = _read_folders(root, num_classes) if csv_path is None else _read_csv(Path(csv_path), root)
    if patient_regex is not None:
        draft.table = _with_patients(draft.table, patient_regex)
    draft.check_cells(num_classes)
    draft.check_files()
    return draft


def _read_csv(csv_path: Path, root: Path) -> _Draft:
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
    draft = _Draft(table, root, str(csv_path), rows[1:])
    draft.add_rows("row has not as many cells as the header", list(uneven), lambda i: f"{uneven[i]}, not {len(header)}")
    return draft


def _csv_text(csv_path: Path) -> str:
    try:
        if not csv_path.is_file():
            raise ManifestError(
                f"data.csv_path={csv_path} {'is not a file' if csv_path.exists() else 'does not exist'}"
            )
        content = csv_path.read_bytes()
    except OSError as error:
        raise ManifestError(f"data.csv_path={csv_path}: {error.strerror}") from None
    if (nul := content.find(0)) >= 0:
        at, found = nul, "a NUL byte (a UTF-16 file?)"
    else:
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            at, found = error.start, f"byte 0x{error.object[error.start]:02x}"
    raise ManifestError(f"{csv_path}: row {1 + content.count(10, 0, at)} holds {found}; save the file as UTF-8")


def _check_header(csv_path: Path, header: list[str]) -> None:
    if not header:
        raise ManifestError(f"{csv_path} is empty")
    problems = []
    if missing := [name for name in COLUMNS[:2] if name not in header]:
        problems.append(f"has no column {' and '.join(missing)}; found: {_shown(', '.join(header))}")
    if twice := sorted({name for name in header if name and header.count(name) > 1}):
        problems.append(f"has more than one column {_shown(', '.join(twice))}")
    for mark, name in ((";", "semicolons"), ("\t", "tabs")):
        if missing and len(header) == 1 and mark in header[0]:
            problems.append(f"seems to be separated by {name}; save it with commas")
    if problems:
        raise ManifestError(f"{csv_path} " + "; it ".join(problems))


def _read_folders(root: Path, num_classes: int) -> _Draft:
    """List `{train,val,test}/{0..K-1}/*`, or `{0..K-1}/*`, in a fixed order."""
    top = _folders(root)
    splits = [split for split in SPLITS if split in top]
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
            names = sorted(entry.name for entry in entries if not entry.is_dir() and not _is_other_file(entry.name))
        films += [(f"{folder}/{name}", label, split) for name in names]
    if unused:
        _log.warning("%d folders in %s are not used: %s", len(unused), root, ", ".join(map(_shown, unused[:SHOWN])))
    draft = _Draft(pd.DataFrame(films, columns=["filename", "label", "split"], dtype=str), root, str(root))
    draft.add(f"class folder is not one of 0 to {num_classes - 1}", len(unknown), map(_shown, unknown))
    if not films and not unknown:
        layout = f"{{train,val,test}}/{{0..{num_classes - 1}}}/* or {{0..{num_classes - 1}}}/*"
        raise ManifestError(
            f"{root} holds no films as {layout}; found: {', '.join(map(_shown, top[:SHOWN])) or 'no folders'}"
        )
    return draft


def _folders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def _is_other_file(name: str) -> bool:
    return name.startswith(".") or os.path.splitext(name)[1].lower() in _NO_FILMS


def _with_patients(table: pd.DataFrame, patient_regex: str) -> pd.DataFrame:
    """Fill missing patient and side columns from the films' base names."""
    try:
        pattern = re.compile(patient_regex)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(f"data.patient_regex={patient_regex!r} is not a regular expression: {error}") from None
    if "patient" not in pattern.groupindex:
        raise UserError(f"data.patient_regex={patient_regex!r} has no group (?P<patient>...)")
    bases = [name.rpartition("/")[2] for name in table["filename"]]
    columns = [name for name in ("patient", "side") if name in pattern.groupindex and name not in table]
    found = {
        name: [(match[name] or "") if (match := pattern.search(base)) else "" for base in bases] for name in columns
    }
    if unknown := found.get("patient", []).count(""):
        _log.warning("%d of %d file names tell no patient by data.patient_regex=%s", unknown, len(table), patient_regex)
    return table.assign(**found)


class _OutsideError(Exception):
    pass


def _real_path(root: str, name: str, folders: dict[str, str]) -> str:
    """Resolve `name` inside `root` with one look at each folder and, unless it is a link, one at the film."""
    if len(name) > _LONGEST_FILENAME:
        raise OSError(f"the name is longer than {_LONGEST_FILENAME:,} characters")
    folder, base = os.path.split(name)
    if base == os.pardir:
        folder, base = name, ""
    if folder not in folders:
        outside = os.path.isabs(name) or not _within(root, real := os.path.realpath(os.path.join(root, folder)))
        folders[folder] = "" if outside else real
    if not folders[folder]:
        raise _OutsideError
    path = os.path.join(folders[folder], base)
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        path = os.path.realpath(path)
        if not _within(root, path):
            raise _OutsideError
        mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("is a folder" if stat.S_ISDIR(mode) else "is not a regular file")
    return os.path.normcase(path)


def _within(root: str, path: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)


def _looked(look: Callable[[Path], _T], path: str) -> _T | ImageError:
    """Look at a film; what is wrong with it comes back without its path."""
    try:
        return look(Path(path))
    except ImageError as error:
        return ImageError(str(error).removeprefix(f"{path}: "))


def _recoded(column: "pd.Series[str]", code: Callable[[str], object]) -> "pd.Series":
    return column.map({text: code(text) for text in column.unique()})


def _shown(text: str) -> str:
    return repr(text if len(text) <= 100 else f"{text[:70]}...{text[-27:]}")
