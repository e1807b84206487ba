"""Readers' marks in SQLite: rows are added and never changed, and a row that was added is safe on disk."""

import json
import os
import sqlite3
import threading
from collections.abc import Container
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from legradnet.errors import UserError
from legradnet.files import NotWrittenError, opened_without_links, told
from legradnet.viewer.worklist import Key

JOURNAL = "marks.sqlite"
_OURS = 0x4C52_4E56  # application_id
_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE marks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,                      -- UTC
    reader TEXT NOT NULL,
    action TEXT NOT NULL CHECK (action IN ('mark', 'undo')),
    undone INTEGER REFERENCES marks (id),    -- of an undo: the mark that it takes back
    film TEXT NOT NULL,                      -- SHA-256 of its file
    knee TEXT NOT NULL,                      -- of a whole film: L or R
    name TEXT NOT NULL,                      -- as the list had it
    grade INTEGER,                           -- NULL: ungradable
    note TEXT NOT NULL,
    seconds REAL NOT NULL,                   -- that the reader had looked at it
    model TEXT NOT NULL,                     -- what the model had said of it, JSON
    shown INTEGER NOT NULL                   -- whether the reader had been shown that
);
CREATE TRIGGER no_update BEFORE UPDATE ON marks BEGIN SELECT RAISE(ABORT, 'a journal is not changed'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON marks BEGIN SELECT RAISE(ABORT, 'a journal is not changed'); END;
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class Mark:
    """What a reader has said of a knee.

    Attributes:
        id: Place in the journal.
        time: UTC, ISO 8601.
        reader: Who.
        key: Of what.
        name: What the list called it.
        grade: None where it is ungradable.
        note: Whatever the reader had to say.
        seconds: That the reader had looked at it.
        shown: Whether the reader had been shown the model's answer.
        model_grade: What that was; None before there was one.
    """

    id: int
    time: str
    reader: str
    key: Key
    name: str
    grade: int | None
    note: str
    seconds: float
    shown: bool
    model_grade: int | None


class Journal:
    """The marks of all readers; safe to share among threads.

    Args:
        path: The file; made if need be.

    Raises:
        UserError: It is no journal of ours.
        NotWrittenError: It can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()  # of what is in memory
        self._writing = threading.RLock()  # of the file: waiting for a slow or a locked disk keeps nobody from reading
        self.names: set[str] = set()
        self._standing: dict[str, dict[Key, list[Mark]]] = {}  # by reader; without those taken back
        self._marked: dict[str, set[Key]] = {}  # by reader, whatever was taken back
        self.revision = 0
        with told(path):
            os.close(opened_without_links(path, os.O_RDWR | os.O_CREAT))
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA synchronous = FULL")
            if self._number("schema_version") == 0 and self._number("application_id") == 0:  # also when killed in here
                self._database.executescript(_SCHEMA)
            known = self._number("application_id"), self._number("user_version")
            if known != (_OURS, _VERSION):
                raise UserError(f"{path} is no journal of marks of this version: choose another output=.")
            self._read()
        except sqlite3.OperationalError as error:
            raise NotWrittenError(f"{path} can't be written: {error}.") from None
        except (sqlite3.DatabaseError, ValueError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} is damaged, or no journal of marks ({error}): choose another output=.") from None

    def _number(self, pragma: str) -> int:
        return int(self._database.execute(f"PRAGMA {pragma}").fetchone()[0])

    def _read(self) -> None:
        with closing(self._database.execute("SELECT * FROM marks ORDER BY id")) as rows:
            names = [column[0] for column in rows.description]
            for values in rows:
                self._take(dict(zip(names, values, strict=True)))

    def _take(self, row: dict[str, Any]) -> Mark:
        key = (str(row["film"]), str(row["knee"]))
        mark = Mark(
            id=int(row["id"]),
            time=str(row["time"]),
            reader=str(row["reader"]),
            key=key,
            name=str(row["name"]),
            grade=row["grade"],
            note=str(row["note"]),
            seconds=float(row["seconds"]),
            shown=bool(row["shown"]),
            model_grade=json.loads(row["model"]).get("grade"),
        )
        standing = self._standing.setdefault(mark.reader, {}).setdefault(key, [])
        if row["action"] == "undo":
            standing[:] = [other for other in standing if other.id != row["undone"]]
        else:
            standing.append(mark)
        self._marked.setdefault(mark.reader, set()).add(key)
        self.names.add(mark.name)
        self.revision += 1
        return mark

    def mark(
        self,
        reader: str,
        key: Key,
        name: str,
        grade: int | None,
        *,
        note: str,
        seconds: float,
        model: dict[str, Any],
        shown: bool,
    ) -> Mark:
        """Add a mark; when this is over it is safe on disk.

        The same once more, down to the seconds, adds nothing: it is what was sent again because its answer was lost.

        Args:
            reader: Who.
            key: Of what.
            name: What the list calls it.
            grade: None where it is ungradable.
            note: Whatever the reader has to say.
            seconds: That the reader has looked at it.
            model: What the model says of it.
            shown: Whether the reader has been shown that.

        Raises:
            NotWrittenError: It can't be written, and there is no mark.
        """
        about = {"grade": grade, "note": note, "seconds": seconds, "model": json.dumps(model), "shown": int(shown)}
        with self._writing:
            last = self.current(reader, key)
            if last is not None and (last.grade, last.note, last.seconds) == (grade, note, seconds):
                return last
            return self._add(reader=reader, action="mark", undone=None, film=key[0], knee=key[1], name=name, **about)

    def undo(self, reader: str, among: Container[Key]) -> Mark | None:
        """Take back the last mark of a reader on one of these knees; gives what was taken back, None without any."""
        with self._writing:
            with self._lock:
                own = (mark for key, marks in self._standing.get(reader, {}).items() if key in among for mark in marks)
                last = max(own, key=lambda mark: mark.id, default=None)
            if last is not None:
                about = {"grade": None, "note": "", "seconds": 0.0, "model": "{}", "shown": int(last.shown)}
                film, knee = last.key
                self._add(
                    reader=reader, action="undo", undone=last.id, film=film, knee=knee, name=last.name, **about
                )  # fmt: skip
            return last

    def _add(self, **row: Any) -> Mark:
        row = {"time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"), **row}
        words = f"INSERT INTO marks ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})"
        with self._writing:
            try:
                added = self._database.execute(words, list(row.values()))  # and committed
            except sqlite3.DatabaseError as error:  # full, locked, read-only, gone, or damaged meanwhile
                raise NotWrittenError(f"{self.path} can't be written: {error}.") from error
            with self._lock:
                return self._take({"id": added.lastrowid, **row})

    def current(self, reader: str, key: Key) -> Mark | None:
        """The mark that stands."""
        with self._lock:
            standing = self._standing.get(reader, {}).get(key)
            return standing[-1] if standing else None

    def standing(self, reader: str, key: Key) -> list[Mark]:
        """All marks that were not taken back, the first first."""
        with self._lock:
            return list(self._standing.get(reader, {}).get(key, ()))

    def has_marked(self, reader: str, key: Key) -> bool:
        """Whether a reader has ever marked a knee, even if that was taken back."""
        with self._lock:
            return key in self._marked.get(reader, ())

    @property
    def readers(self) -> set[str]:
        """All who have ever marked."""
        return set(self._marked)

    def close(self) -> None:
        """Be done with it."""
        with self._writing:
            self._database.close()
