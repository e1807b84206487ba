"""CSV files: one strict reader, and one writer after which no table program runs what stands in a cell.

A row is a line of the file and the header is row 1; a record with line breaks inside quotes goes by its first line.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd  # listing and grading films need no tables

LONGEST_CELL = 131_072  # characters, what Python's csv takes
PATHS = "filename"  # the column whose cells are paths

_MARKS = ((";", "semicolons"), ("\t", "tabs"), ("|", "bars"))
_BEGINNINGS = ((b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16"), (b"\0\0\xfe\xff", "UTF-32"))
_FORMULA = re.compile(r"\s*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")  # its first sign, also in full width
_BYTE = re.compile("[\udc80-\udcff]")  # what Python makes of one that is not UTF-8
_TO_MARK = re.compile(rf"\s|{_FORMULA.pattern}")  # spaces around a cell count for nothing
_QUOTED = re.compile(r'[^"]*+(?:""[^"]*+)*+')  # up to a quotation mark that is not doubled
_UNQUOTED = re.compile(r"[^,\r\n]*+")


class TableError(UserError):
    """A file that is no such table, or all that is wrong with the films that it lists, in one message."""


@dataclass(frozen=True)
class Table:
    """Rows of a CSV file; a position counts those that are not empty, from 0.

    Attributes:
        path: The file.
        header: Names of the columns.
        rows: Of each position its cells, as many as the header has: cut or filled up where they are `uneven`.
        numbers: Row in the file.
        uneven: Number of cells where that is another one than the header's.
        faults: Position of a row that holds what no cell may hold, and what that is.
        inside: Position, row and cells of lines inside the quotes of a cell that have as many cells as the header:
            perhaps rows of the table, behind a stray quotation mark.
    """

    path: Path
    header: list[str]
    rows: list[list[str]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    uneven: dict[int, int] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    inside: list[tuple[int, int, list[str]]] = field(default_factory=list)

    def column(self, name: str) -> list[str]:
        """The cells of a column, without the spaces around them, and as they were before `inert`."""
        at, undone = self.header.index(name), original if name == PATHS else original_text
        return [undone(cells[at].strip()) for cells in self.rows]

    def numbers_of(self, name: str) -> list[float]:
        """The numbers in a column; an empty cell is nan.

        Raises:
            TableError: A cell is no number.
        """
        values = []
        for number, cell in zip(self.numbers, self.column(name), strict=True):
            try:  # by Python's float(), which reads back every digit
                values.append(int(cell) if cell.isdecimal() else float(cell or "nan"))
            except ValueError:
                raise TableError(f"{self.path}: row {number}: {name} is no number: {shown(cell)}") from None
        return values


def read_table(path: Path, needed: Sequence[str]) -> Table:
    """Read a UTF-8 CSV file, all of it: a row is read, or noted as faulty, or nothing is.

    Args:
        path: The file.
        needed: Columns that it must have.

    Raises:
        TableError: It can't be read, is not UTF-8, not separated by commas, lacks a needed column or has one twice, or
            a quotation mark is not closed.
    """
    content = _content(path)
    lines = _Lines(content)
    try:
        records = _records(lines)
        table = Table(path, [name.strip() for name in next(records, ([], ""))[0]])
        check_header(table, needed)
        width, has_nul = len(table.header), b"\0" in content
        for cells, fault in records:
            if len(lines.given) > 1:
                table.inside.extend(_rows_inside(table, lines))
            if not fault and has_nul and "\0" in "".join(cells):
                fault = "a NUL byte"
            if fault:
                table.faults[len(table.rows)] = fault
            if len(cells) != width:
                table.uneven[len(table.rows)] = len(cells)
                cells = (cells + [""] * width)[:width]
            table.rows.append(cells)
            table.numbers.append(lines.begun)
    except csv.Error as error:
        _check_separator(path, content, needed)
        raise TableError(f"{path}: row {lines.begun}: {error}; is a quote missing?") from None
    except UnicodeDecodeError:
        raise TableError(f"{path}: {_not_utf8(content)}; save the file as UTF-8 (is it Latin-1?)") from None
    return table


def read_own(path: Path, needed: Sequence[str] = ()) -> Table:
    """Read a CSV file that we wrote, in which no row may be faulty; raise TableError otherwise."""
    table = read_table(path, needed)
    wrong = {at: f"{cells} cells, not {len(table.header)}" for at, cells in table.uneven.items()} | table.faults
    for at in sorted(wrong)[:1]:
        raise TableError(f"{path}: row {table.numbers[at]} holds {wrong[at]}")
    return table


def read_numbers(path: Path) -> "pd.DataFrame":
    """Read a CSV file of numbers that we wrote; raise TableError where it holds something else."""
    import pandas as pd

    table = read_own(path)
    return pd.DataFrame({name: table.numbers_of(name) for name in table.header})


def _content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    for beginning, name in _BEGINNINGS:
        if content.startswith(beginning):
            raise TableError(f"{path} is a {name} file; save it as UTF-8")
    return content


def _not_utf8(content: bytes) -> str:
    try:
        content.decode()
    except UnicodeDecodeError as error:
        row = 1 + len(re.findall(rb"\r\n|\r|\n", content[: error.start]))
        return f"row {row} holds byte 0x{content[error.start]:02x}"
    raise AssertionError("it was not UTF-8 before")


class _Lines:
    """The lines of a file, with those of the present record at hand."""

    def __init__(self, content: bytes) -> None:
        self.text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
        self.number, self.begun = 0, 1
        self.given: list[str] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self.text)
        self.number += 1
        self.given.append(line)
        return line

    def begin(self) -> None:
        """What comes is another record."""
        self.begun = self.number + 1
        self.given.clear()


def _records(lines: _Lines) -> Iterator[tuple[list[str], str]]:
    """Cells and fault of each record that is not empty, while `lines` stand at it."""
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin()
        fault = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "limit" not in str(error):
                raise
            cells, fault = _long_record(lines.given)  # the reader begins anew at the next line
        if any(cells):
            yield cells, fault


def _long_record(lines: Sequence[str]) -> tuple[list[str], str]:
    """The cells of a record of which one is too long for Python's csv, and is cut; and what is wrong."""
    cells: list[str] = []
    line, at, fault = lines[0], 0, ""
    while not cells or line[at : at + 1] == ",":
        at += bool(cells)
        quoted = line.startswith('"', at)
        at += quoted
        found = (_QUOTED if quoted else _UNQUOTED).match(line, at)
        assert found  # if only of nothing
        if len(lines) > 1 or (quoted and found.end() == len(line)):
            raise csv.Error(f"a quote opens a cell of several lines and more than {LONGEST_CELL:,} characters")
        length = found.end() - at
        cell = line[at : at + min(length, LONGEST_CELL)]
        if length > LONGEST_CELL:
            fault, cell = f"a cell of {length:,} characters, more than {LONGEST_CELL:,}", f"{cell[:70]}..."
        cells.append(cell.replace('""', '"') if quoted else cell)
        at += length + quoted
    if line[at:].strip("\r\n"):
        raise csv.Error("',' expected after '\"'")
    return cells, fault


def _rows_inside(table: Table, lines: _Lines) -> Iterator[tuple[int, int, list[str]]]:
    for row, line in enumerate(lines.given[1:], start=lines.begun + 1):
        cells = line.rstrip("\r\n").split(",")  # were it quoted, the reader would have stumbled over it
        if len(cells) == len(table.header):
            yield len(table.rows), row, cells


def check_header(table: Table, needed: Sequence[str]) -> None:
    """Raise TableError where a table lacks a needed column or has one twice."""
    header = table.header
    if not header:
        raise TableError(f"{table.path} is empty")
    if any("\0" in name for name in header):
        raise TableError(f"{table.path}: row 1 holds a NUL byte (a UTF-16 file?); save the file as UTF-8")
    problems = []
    if missing := [name for name in needed if name not in header]:
        problems.append(f"has no column {' and '.join(missing)}; found: {shown(', '.join(header))}")
    if twice := sorted(name for name, times in Counter(header).items() if name and times > 1):
        problems.append(f"has more than one column {shown(', '.join(twice))}")
    for mark, name in _MARKS:
        if missing and any(mark in cell for cell in header):
            problems.append(f"seems to be separated by {name}; save it with commas")
    if problems:
        raise TableError(f"{table.path} " + "; it ".join(problems))


def _check_separator(path: Path, content: bytes, needed: Sequence[str]) -> None:
    """Raise TableError if the first line has a needed column, but not between commas."""
    first = re.split(r"[\r\n]", content[:LONGEST_CELL].decode("utf-8-sig", "replace"), maxsplit=1)[0]
    for mark, name in _MARKS:
        if mark in first and set(needed) & {cell.strip().strip('"') for cell in first.split(mark)}:
            raise TableError(f"{path} seems to be separated by {name}; save it with commas")


def shown(text: str) -> str:
    """Text of a user's file, safe and short enough for a message."""
    return repr(text if len(text) <= 100 else f"{text[:70]}...{text[-27:]}")


def inert(path: str) -> str:
    """A path that no table program runs as a formula, and every program can read: "./" in front means the same."""
    path = readable(path)
    return f"./{path}" if _TO_MARK.match(path) else path


def inert_text(text: str) -> str:
    """As `inert`, of a text that is no path: the quotation mark in front makes it text to a table program."""
    text = readable(text)
    return f"'{text}" if _FORMULA.match(text.lstrip("'")) else text


def original(path: str) -> str:
    """The path that became `path` by `inert`."""
    bare = path.removeprefix("./")
    return bare if _TO_MARK.match(bare) else path


def original_text(text: str) -> str:
    """The text that became `text` by `inert_text`."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text.lstrip("'")) else text


def readable(text: str) -> str:
    r"""Text that every program can read: a byte of a name that is not UTF-8 is `\xNN`."""
    if text.isascii() and "\0" not in text:
        return text
    told = _BYTE.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", text.replace("\0", "\N{REPLACEMENT CHARACTER}"))
    return told.encode("utf-8", "backslashreplace").decode()  # Windows has other surrogates


def table_line(cells: Sequence[Any], columns: Sequence[str] = ()) -> str:
    """A line of a CSV file: the header, or what stands in these `columns`. None is an empty cell."""
    names = columns or [""] * len(cells)
    safe = [
        cell if not isinstance(cell, str) else inert(cell) if name == PATHS else inert_text(cell)
        for name, cell in zip(names, cells, strict=True)
    ]
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(safe)  # so that a cell with a lone \r is quoted
    return line.getvalue().removesuffix("\r\n") + "\n"


def table_text(table: "pd.DataFrame") -> str:
    """The text of a CSV file."""
    import pandas as pd

    safe = table.rename(columns=lambda name: inert_text(str(name)))
    quoted = False
    for name in safe.select_dtypes(exclude=["number", "bool"]):
        made = inert if name == PATHS else inert_text
        cells = [made(cell) if isinstance(cell, str) else cell for cell in safe[name]]
        safe[name] = pd.Series(cells, index=safe.index, dtype=object)
        quoted = quoted or any(isinstance(cell, str) and "\r" in cell for cell in cells)
    if not quoted:
        return str(safe.to_csv(index=False, lineterminator="\n"))
    text = str(safe.to_csv(index=False, lineterminator="\r\n"))  # so that a cell with a lone \r is quoted
    return re.sub(r'("[^"]*+")|\r\n', lambda found: found[1] or "\n", text)
