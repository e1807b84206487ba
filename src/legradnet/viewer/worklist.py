"""The list of knees that readers go through: what is known of each, whoever asks."""

import hashlib
import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legradnet.data.inputs import InputFilm
from legradnet.data.sides import Side
from legradnet.grading.predictions import BOX, KNEE, Record

Key = tuple[str, str]  # of marks: digest of a film's file, and knee
Stamp = tuple[int, int]  # of a file: its bytes, and when it was changed, ns
STAMP = "file"  # of a record that is kept: the stamp of what was graded


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
        stamp: Size and time of its file when it was first read or graded; None before.
        is_patient_told: Whether the list itself says whose it is.
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
    stamp: Stamp | None = None
    is_patient_told: bool = False

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
        self._patients: dict[str, int] = {}  # by what their films tell of them
        self._top = -1  # the highest number that a patient has had
        self.revision = 0
        self.finished = self.graded = self.failed = 0

    def add(self, rows: Iterable[Row]) -> None:
        """Put rows behind the others."""
        with self._lock:
            self._put(rows)
        self.touch("")

    def _put(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.number = len(self.rows)
            self.rows.append(row)
            self.by_id[row.id] = row
            if row.patient is not None:
                self._assign(row, row.patient)
            if row.record is not None:
                self._count(row)

    def set_records(self, row: Row, records: Sequence[Record]) -> None:
        """Note what the model says of a film, or why it says nothing; the second knee of a whole film is a new row."""
        first, *others = records
        knee, box = which_knee(first)
        with self._lock:
            row.record, row.knee, row.box = first, knee or row.film.knee, box
            self._count(row)
            if others and row.patient is None:
                self._assign(row, self._top + 1)
            more = {name: getattr(row, name) for name in ("patient", "is_patient_told", "digest", "size", "stamp")}
            self._put(new_row(row.film, row.side, record=record, **more) for record in others)
        self.touch(row.id)
        if others:
            self.touch("")

    def group(self, row: Row, patient: str) -> None:
        """Note what a film tells of its patient: those that tell the same stand side by side, unless the list knows."""
        if row.is_patient_told or not patient:
            return
        with self._lock:
            number = self._patients.get(patient)
            if number is None:
                number = self._patients[patient] = self._top + 1 if row.patient is None else row.patient
            if row.patient == number and row in self.by_patient.get(number, ()):
                return
            same = [row] if row.patient is None else self.by_patient.pop(row.patient, [row])  # both knees of its film
            for other in same:
                self._assign(other, number)
        for other in same:
            self.touch(other.id)

    def _assign(self, row: Row, patient: int) -> None:
        row.patient = patient
        self._top = max(self._top, patient)
        self.by_patient.setdefault(patient, []).append(row)

    def touch(self, row: str) -> None:
        """Something about this row has changed."""
        with self._lock:
            self.revision += 1
        self.changed(row)

    def _count(self, row: Row) -> None:
        self.finished += 1
        self.graded += row.grade is not None
        self.failed += row.status == "error"


def new_row(film: InputFilm, side: Side, *, record: Record | None = None, **more: Any) -> Row:
    """A row that is in no list yet."""
    knee, box = which_knee(record)
    about = {"knee": knee or film.knee, "box": box, **more}
    return Row(secrets.token_hex(8), -1, film, side, record=record, **about)


def which_knee(record: Record | None) -> tuple[str, tuple[int, int, int] | None]:
    """The knee of a whole film and its square, of which a record tells; else "" and None."""
    knee, box = (record or {}).get(KNEE), (record or {}).get(BOX)
    return knee or "", (box[0], box[1], box[2]) if box and box[2] > 0 else None


def stamp_of(path: Path) -> Stamp | None:
    """By which a file is known not to have changed; None where there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_size, about.st_mtime_ns


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
