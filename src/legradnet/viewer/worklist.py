"""The list of knees that readers go through: what is known of each, whoever asks."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legradnet.data.inputs import InputFilm
from legradnet.data.sides import Side
from legradnet.grading.predictions import Record

Key = tuple[str, str]  # of marks: digest of a film's file, and knee


@dataclass(eq=False)
class Row:
    """One knee.

    Attributes:
        id: What the page calls it: drawn at random, says nothing.
        number: Place in the list as it was given, from 0.
        film: Its film.
        side: L, R, or "" where nobody knows.
        patient: Number that films of a patient share; None where nobody knows.
        record: What `predictions.jsonl` says of it; None before it was graded.
        knee: Which knee of a whole film, else "".
        box: `x, y, side` of that knee, pixels.
        digest: SHA-256 of its file, "" before anybody asked.
        size: Width, height and depth in bits; None before it was read.
    """

    id: str
    number: int
    film: InputFilm
    side: Side
    patient: int | None = None
    record: Record | None = None
    knee: str = ""
    box: tuple[int, int, int] | None = None
    digest: str = ""
    size: tuple[int, int, int] | None = None

    @property
    def key(self) -> Key:
        """What its marks go by."""
        return self.digest, self.knee

    @property
    def error(self) -> str | None:
        """Why its film can't be read, if that is known."""
        error: str | None = None if self.record is None else self.record["error"]
        return error

    @property
    def grade(self) -> int | None:
        """The model's; None also where it gives none, and says why."""
        grade: int | None = None if self.record is None else self.record.get("grade")
        return grade

    @property
    def status(self) -> str:
        """waiting, graded, which is what has an answer, or error."""
        return "waiting" if self.record is None else "graded" if self.record["error"] is None else "error"


class Worklist:
    """All rows, in the order in which they were given; safe to share among threads.

    Args:
        changed: Told the row's id whenever something about a row changes, or "" when there are others.
    """

    def __init__(self, changed: Callable[[str], None] = lambda row: None) -> None:
        self._lock = threading.Lock()
        self.changed = changed
        self.rows: list[Row] = []
        self.by_id: dict[str, Row] = {}
        self.by_patient: dict[int, list[Row]] = {}
        self.revision = 0
        self.finished = self.graded = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Put rows behind the others."""
        with self._lock:
            for row in rows:
                row.number = len(self.rows)
                self.rows.append(row)
                self.by_id[row.id] = row
                if row.patient is not None:
                    self.by_patient.setdefault(row.patient, []).append(row)
                if row.record is not None:
                    self._count(row)
        self.touch("")

    def set_record(self, row: Row, record: Record) -> None:
        """Note what the model says, or why it says nothing."""
        with self._lock:
            row.record = record
            self._count(row)
        self.touch(row.id)

    def touch(self, row: str) -> None:
        """Something about this row has changed."""
        with self._lock:
            self.revision += 1
        self.changed(row)

    def _count(self, row: Row) -> None:
        self.finished += 1
        self.graded += row.grade is not None


def new_row(film: InputFilm, side: Side, **more: Any) -> Row:
    """A row that is in no list yet."""
    return Row(secrets.token_hex(8), -1, film, side, **more)


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
