"""What can be wrong with a table of films: its cells, its files, their pixels."""
# A million Path objects would take longer than all other checks together, hence os.path:
# ruff: noqa: PTH117

import logging
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TYPE_CHECKING

from legradnet.data.cache import FilmCache, Look
from legradnet.data.film import ImageError, fingerprint
from legradnet.data.images import check_header, read_film
from legradnet.data.places import OutsideError, missing, real_path, within
from legradnet.data.reading.pool import Stop
from legradnet.data.remarks import by_kind
from legradnet.data.settings import Verify
from legradnet.data.sides import SIDE_WORDS, SIDES, Side
from legradnet.data.splits import SPLITS
from legradnet.machine import cores
from legradnet.tables import PATHS, Table, TableError, original, shown

if TYPE_CHECKING:
    import pandas as pd  # only for types: grading films needs no tables

COLUMNS = ["filename", "label", "patient", "side", "split"]
KNEE = "knee"  # column: which knee of a whole film a row is
SHOWN = 10  # examples of each kind of problem
_log = logging.getLogger(__name__)


class Draft:
    """A table on its way to a manifest, with all that was found wrong so far.

    Args:
        table: The cells as strings; `check_cells` brings them to their final form.
        root: The resolved folder that holds every film.
        source: What the table was read from, for messages.
        rows: Row number of each film in its CSV file; empty for folders.
    """

    def __init__(self, table: "pd.DataFrame", root: Path, source: str, rows: Sequence[int] = ()) -> None:
        self.table, self.root, self.source, self.rows = table, root, source, rows
        self.problems: list[str] = []
        self.knees: list[Side] = []  # which knee of a whole film each row is; empty: a row is a film
        self.paths: list[str] = []  # resolved; "" for a film that is not to be opened
        self.bad: dict[int, str] = {}  # position -> why its film cannot be read
        self.looks: dict[int, Look] = {}  # position -> what a look at its film told

    def place(self, position: int) -> str:
        """How a message names a film: by row, if there are rows, and file name."""
        name = shown(str(self.table["filename"].iat[position]))
        return f"row {self.rows[position]} {name}" if self.rows else name

    def add(self, kind: str, count: int, lines: Iterable[str]) -> None:
        """Note a kind of problem that occurs `count` times, with the first few of `lines`."""
        if count:
            self.problems += [f"  {kind}:", *(f"    {line}" for line in islice(lines, SHOWN))]
            if count > SHOWN:
                self.problems.append(f"    ... and {count - SHOWN:,} more")

    def add_rows(self, kind: str, positions: Sequence[int], detail: Callable[[int], str]) -> None:
        """Note a kind of problem of the films at `positions`."""
        self.add(kind, len(positions), (f"{self.place(i)}: {detail(i)}" for i in positions))

    def add_cells(self, kind: str, cells: "pd.Series[str]", wrong: "pd.Series[bool]") -> None:
        """Note a kind of problem of a column's cells where `wrong` is true."""
        self.add_rows(kind, wrong.to_numpy().nonzero()[0].tolist(), lambda position: shown(str(cells.iat[position])))

    def check_cells(self, num_classes: int, *, labelled: bool = True) -> None:
        """Bring every column to its final form; cells that have none become -1 or "", which only some may be."""
        given = self.table
        self.table = table = given.assign(
            label=_recoded(given["label"], lambda text: parse_label(text, num_classes)).astype("int64"),
            patient=given.get("patient", ""),
            side=_recoded(given["side"], lambda text: SIDE_WORDS.get(text.lower(), "?")) if "side" in given else "",
            split=_recoded(given["split"], str.lower) if "split" in given else "",
        )
        no_label = table["label"].lt(0) & (given["label"].ne("") | labelled)
        no_split = table["split"].eq("") & bool(table["split"].ne("").any())
        for kind, column, wrong in [
            ("filename is empty", "filename", table["filename"].eq("")),
            (f"label is not a whole number from 0 to {num_classes - 1}", "label", no_label),
            ("side is not L, R, left, right or empty", "side", table["side"].eq("?")),
            ("split is not train, val or test", "split", ~table["split"].isin(["", *SPLITS])),
            ("split is empty while other rows have one", "split", no_split),
        ]:
            if wrong.any():
                self.add_cells(kind, given[column], wrong)
        self.table = table[COLUMNS + [name for name in table if name not in COLUMNS]]

    def check_files(self) -> None:
        """Find every film inside `root`, and those that are named twice, each of whose `knees` may be named once."""
        folders: dict[str, str] = {}
        first: dict[str, dict[Side, int]] = {}
        outside, again = {}, {}
        for position, name in enumerate(self.table["filename"]):
            path = ""
            try:
                path = real_path(str(self.root), name, folders) if name else ""
            except OutsideError as error:
                outside[position] = error
            except OSError as error:
                self.bad[position] = missing(name, error)
            except ValueError:  # a NUL byte
                self.bad[position] = "no such file can exist"
            if path:
                knee: Side = self.knees[position] if self.knees else ""
                named = first.setdefault(path, {})
                same = next((i for other, i in named.items() if not knee or other in (knee, "")), None)
                if same is None:
                    named[knee] = position
                else:
                    again[position], path = same, ""
            self.paths.append(path)
        self._name_from_root()
        self.add_rows("filename leaves data.dataset_path", list(outside), lambda i: str(outside[i]))
        self.add_rows(
            "film is named twice" if self.knees or KNEE not in self.table else f"film is named twice; {self.cutting}",
            list(again),
            lambda i: f"the same file as {self.place(again[i])}",
        )

    @property
    def cutting(self) -> str:
        """What to do with a table in which a row is a knee of a whole film, where squares are wanted."""
        return (
            "where a row is a knee of a whole film, it is the squares that are taken: legradnet-crop "
            f"input={self.source} data.dataset_path={self.root} output=KNEES cuts them, and then "
            "data.dataset_path=KNEES data.csv_path=KNEES/knees.csv"
        )

    def _name_from_root(self) -> None:
        """Absolute file names become relative to `root`, as those of other rows are."""
        names = self.table["filename"].tolist()
        if absolute := [i for i, name in enumerate(names) if self.paths[i] and os.path.isabs(name)]:
            root = str(self.root)
            for i in absolute:
                named = names[i] if within(root, os.path.normpath(names[i])) else self.paths[i]
                names[i] = os.path.relpath(named, root)
            self.table = self.table.assign(filename=names)

    def check_images(self, verify: Verify, workers: int | None, progress: bool, cache: FilmCache | None) -> None:
        """Open or decode the films that were found, into the cache; decoded ones must not contradict each other."""
        from tqdm import tqdm  # late: grading films comes by here for the names alone

        positions = [position for position, path in enumerate(self.paths) if path]
        first: dict[str, int] = {}
        for position in positions:
            first.setdefault(self.paths[position], position)
        order = [*first.values()]
        if cache is not None:
            cache.expect(len(order))
            order = _shuffled(order)  # so that processes that begin together decode different films

        def look(position: int) -> Look | ImageError:
            return _looked(self.paths[position], verify, cache)

        # Threads: Pillow and hashlib let go of the interpreter's lock, so processes would be no faster.
        count = cores() if workers is None else max(1, workers)
        with Stop() as stop, ThreadPool(count, stop.heed) as pool:
            films = pool.imap(look, order, chunksize=32)
            bar = tqdm(films, "Checking films", len(order), unit="film", disable=not progress)
            results = dict(zip(order, bar, strict=True))
        looks: dict[int, Look] = {}
        for position in positions:
            result = results[first[self.paths[position]]]
            if isinstance(result, ImageError):
                self.bad[position] = str(result)
            else:
                looks[position] = result
        self.looks = looks
        self._tell_remarks({position: look for position, look in looks.items() if position in results})
        both = Counter(filter(None, self.paths))
        lone = {position: look for position, look in looks.items() if both[self.paths[position]] == 1}
        self._take_sides({position: look.side for position, look in lone.items() if look.side})
        self._compare({position: look.pixels for position, look in looks.items() if look.pixels})

    def _tell_remarks(self, looks: dict[int, Look]) -> None:
        """Tell what the films' readers had to say: each kind of it once, counted, with the first films' names."""
        for said in by_kind((self.place(position), look.remarks) for position, look in looks.items()):
            _log.warning("%d of %d films, %s: %s", len(said.names), len(looks), said.text, said.few(SHOWN))

    def _take_sides(self, in_files: dict[int, Side]) -> None:
        """Fill in the sides that DICOM files tell of themselves; they must not contradict the table."""
        side, kind = self.table["side"].tolist(), "side is not that of the DICOM file"
        wrong = [i for i, in_file in in_files.items() if side[i] in SIDES and side[i] != in_file]
        self.add_rows(kind, wrong, lambda i: f"{side[i]}, but the file says {in_files[i]}")
        for position, in_file in in_files.items():
            side[position] = side[position] or in_file
        self.table = self.table.assign(side=side)

    def _compare(self, pixels: dict[int, bytes]) -> None:
        films = self.table.iloc[list(pixels)].assign(position=list(pixels), pixels=list(pixels.values()))
        films["of_knee"] = [self.knees[position] if self.knees else "" for position in pixels]
        picture = ["pixels", "of_knee"]
        films = films[films["label"].ge(0) & films.duplicated(picture, keep=False)]
        labels: list[pd.DataFrame] = []
        splits: list[pd.DataFrame] = []
        copies: list[pd.DataFrame] = []
        for _, twins in films.groupby(picture, sort=False):
            two_splits = twins["split"].isin(SPLITS).all() and twins["split"].nunique() > 1
            (labels if twins["label"].nunique() > 1 else splits if two_splits else copies).append(twins)
        self.add("equal pixels under two labels", len(labels), (self._twins(twins, "label") for twins in labels))
        self.add("equal pixels in two splits", len(splits), (self._twins(twins, "split") for twins in splits))
        if copies:
            examples = "; ".join(self._twins(twins, "label") for twins in copies[:3])
            _log.warning("%d films are there more than once, with equal pixels, e.g. %s", len(copies), examples)

    def _twins(self, twins: "pd.DataFrame", column: str) -> str:
        shown = twins.drop_duplicates(column) if twins[column].nunique() > 1 else twins
        return " = ".join(
            f"{self.place(film['position'])} ({column} {film[column]})" for _, film in shown[:3].iterrows()
        )


def parse_label(text: str, num_classes: int) -> int:
    """Read "3" or "3.0" as 3; -1 for whatever is not a whole number from 0 to `num_classes` - 1."""
    number = re.fullmatch(r"0*([0-9]{1,9})(?:\.0*)?", text)
    label = int(number[1]) if number else -1
    return label if label < num_classes else -1


def check_quotes(table: Table, root: str) -> None:
    """Raise TableError where a quoted cell holds a line that names a film in `root`: a row behind a stray quote."""
    folders: dict[str, str] = {}
    at = table.header.index(PATHS)
    for position, row, cells in table.inside:
        name = original(cells[at].strip())
        try:
            real_path(root, name, folders)
        except (OutsideError, OSError, ValueError):
            continue
        raise TableError(
            f"{table.path}: row {table.numbers[position]}: a quote opens a cell that goes on to row {row}, which names "
            f"the film {shown(name)}; is a quote missing?"
        )


def _shuffled(positions: list[int], block: int = 256) -> list[int]:
    blocks = [positions[start : start + block] for start in range(0, len(positions), block)]
    random.SystemRandom().shuffle(blocks)
    return list(chain.from_iterable(blocks))


def _looked(path: str, verify: Verify, cache: FilmCache | None) -> Look | ImageError:
    """Look at a film; what is wrong with it comes back without its path."""
    try:
        if verify == "header":
            look = cache.find(path) if cache else None
            return look._replace(pixels=None) if look else Look(None, check_header(path))
        if cache:
            return cache.look(path)
        film = read_film(Path(path))
        return Look(fingerprint(film.gray), film.side, b"", film.remarks)
    except ImageError as error:
        return ImageError(str(error).removeprefix(f"{path}: "))


def _recoded(column: "pd.Series[str]", code: Callable[[str], object]) -> "pd.Series":
    return column.map({text: code(text) for text in column.unique()})
