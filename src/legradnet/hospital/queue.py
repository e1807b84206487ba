"""The node's queue on disk: a film is safe before it is acknowledged, an object until its receiver has it.

What became of each is in SQLite, the bytes are files beside it. Each step is one transaction behind files that are
whole, so that a node that is killed at any moment goes on where it was: at worst a film is graded again, to the same
bytes, or an object sent again.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legradnet.errors import UserError
from legradnet.files import NotWrittenError, make_folder, opened_without_links, told, written_whole
from legradnet.hospital.identity import is_uid
from legradnet.hospital.objects import Made

QUEUE = "queue.sqlite"
FILMS, OBJECTS = "films", "objects"
_OURS = 0x4C52_4E44  # application_id
_VERSION = 1
_MOST_TRIES = 10  # times that a node may die over a film before it is left
_PATIENCE = 10.0  # seconds for whoever reads the status
_BEGUN = "state = 'waiting' AND tries > 0"  # a film that comes again meanwhile has no tries
_SCHEMA = f"""
BEGIN;
CREATE TABLE films (
    uid TEXT PRIMARY KEY,     -- SOP Instance UID
    received REAL NOT NULL,   -- when it came first: its objects are of this time, however often it is graded
    state TEXT NOT NULL CHECK (state IN ('waiting', 'graded', 'left', 'failed')),
    reason TEXT NOT NULL,     -- why it is left or has failed
    tries INTEGER NOT NULL,   -- gradings that were begun
    done REAL                 -- when that was over
);
CREATE INDEX films_by_state ON films (state, tries, received);
CREATE INDEX films_by_end ON films (done);
CREATE TABLE objects (
    uid TEXT PRIMARY KEY,
    film TEXT NOT NULL,
    kind TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent')),
    tries INTEGER NOT NULL,   -- that failed
    due REAL NOT NULL,        -- when it is sent, or tried again
    failure TEXT NOT NULL,    -- of the last try
    sent REAL
);
CREATE INDEX objects_by_state ON objects (state, due);
PRAGMA application_id = {_OURS};
PRAGMA user_version = {_VERSION};
COMMIT;
"""


@dataclass(frozen=True)
class WaitingFilm:
    """A film to grade: its UID, its file, when it came, how often its grading was begun before."""

    uid: str
    path: Path
    received: float
    tries: int


@dataclass(frozen=True)
class WaitingObject:
    """An object to send: its UID, its file, the film it is of, how often sending it has failed."""

    uid: str
    path: Path
    film: str
    tries: int


class Queue:
    """The queue in a folder that this process has claimed; safe to share among threads.

    Raises:
        UserError: There is another thing of its name.
        NotWrittenError: It can't be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.RLock()
        path = folder / QUEUE
        with told(folder):
            for name in (FILMS, OBJECTS):
                make_folder(folder / name, mode=0o700)
        with told(path):
            os.close(opened_without_links(path, os.O_RDWR | os.O_CREAT))
        with _told(path):
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=_PATIENCE)
            self._database.execute("PRAGMA synchronous = FULL")
            if path.stat().st_size == 0:
                self._database.executescript(_SCHEMA)
            check_database(self._database, path)
        self._tidy()

    def _tidy(self) -> None:
        """Take up films whose node died between file and row, and delete files that nothing needs any more."""
        waiting = {uid for (uid,) in self._rows("SELECT uid FROM films WHERE state = 'waiting'")}
        known = {uid for (uid,) in self._rows("SELECT uid FROM films")}
        for path in (self.folder / FILMS).iterdir():
            uid = path.name.removesuffix(".dcm")
            if uid not in known and path.suffix == ".dcm" and is_uid(uid):
                self.add_film(uid)
            elif uid not in waiting:
                self._delete(path)
        to_send = {uid for (uid,) in self._rows("SELECT uid FROM objects WHERE state = 'waiting'")}
        for path in (self.folder / OBJECTS).iterdir():
            if path.name.removesuffix(".dcm") not in to_send:
                self._delete(path)

    def keep_film(self, uid: str, content: bytes) -> None:
        """Take a film; when this is over it is safe on disk.

        Args:
            uid: Its SOP Instance UID, which was checked.
            content: The whole file.

        Raises:
            NotWrittenError: It can't be written, and is not in the queue.
        """
        with self._lock:  # or what is graded meanwhile under this UID would take the new file away
            self._write(self._film(uid), content)
            self.add_film(uid)

    def add_film(self, uid: str) -> None:
        """Let a film wait whose file is there; one that came before is graded again, and keeps its time."""
        self._change(
            "INSERT INTO films VALUES (?, ?, 'waiting', '', 0, NULL) "
            "ON CONFLICT (uid) DO UPDATE SET state = 'waiting', reason = '', tries = 0, done = NULL",
            (uid, float(int(time.time()))),
        )

    def next_film(self) -> WaitingFilm | None:
        """The film to grade next: one that no node has died over, the oldest first."""
        rows = self._rows(
            "SELECT uid, received, tries FROM films WHERE state = 'waiting' ORDER BY tries, received, rowid LIMIT 1"
        )
        return next((WaitingFilm(uid, self._film(uid), received, tries) for uid, received, tries in rows), None)

    def begin(self, film: WaitingFilm) -> bool:
        """Write down that a film's grading begins; whether it may, as others have died over it too often."""
        if film.tries >= _MOST_TRIES:
            self.give_up(film, "failed", f"the node has ended {film.tries} times while it graded it")
            return False
        self._change("UPDATE films SET tries = tries + 1 WHERE uid = ?", (film.uid,))
        return True

    def give_up(self, film: WaitingFilm, state: str, reason: str) -> None:
        """A film is `left` or `failed`: its file is deleted, unless it has come again since its grading began."""
        with self._lock:
            words = f"UPDATE films SET state = ?, reason = ?, done = ? WHERE uid = ? AND {_BEGUN}"
            if self._change(words, (state, reason, time.time(), film.uid)):
                self._delete(film.path)

    def put_back(self, film: WaitingFilm) -> None:
        """What was made of a film can't be kept, which is not its fault: it waits as before its grading began."""
        self._change(f"UPDATE films SET tries = tries - 1 WHERE uid = ? AND {_BEGUN}", (film.uid,))

    def finish(self, film: WaitingFilm, made: Sequence[Made]) -> None:
        """A film is graded: keep its objects until they are sent, and delete its file.

        One that has come again since its grading began still waits, as it need not be the same.

        Raises:
            NotWrittenError: They can't be written; the film waits.
        """
        now = time.time()
        with self._lock, _told(self.folder / QUEUE):
            for one in made:
                self._write(self._object(one.uid), one.content)
            self._database.execute("BEGIN")
            try:
                self._database.executemany(
                    "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, 'waiting', 0, ?, '', NULL)",
                    [(one.uid, film.uid, one.kind, now) for one in made],
                )
                done = self._database.execute(
                    f"UPDATE films SET state = 'graded', reason = '', done = ? WHERE uid = ? AND {_BEGUN}",
                    (now, film.uid),
                )
                self._database.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self._database.execute("ROLLBACK")
                raise
            if done.rowcount:
                self._delete(film.path)

    def due(self, most: int) -> list[WaitingObject]:
        """Objects to send now, the oldest first."""
        rows = self._rows(
            "SELECT uid, film, tries FROM objects WHERE state = 'waiting' AND due <= ? ORDER BY due, rowid LIMIT ?",
            (time.time(), most),
        )
        return [WaitingObject(uid, self._object(uid), film, tries) for uid, film, tries in rows]

    def sent(self, made: WaitingObject) -> None:
        """Its receiver has an object: its file is deleted."""
        with self._lock:
            self._change(
                "UPDATE objects SET state = 'sent', failure = '', sent = ? WHERE uid = ?", (time.time(), made.uid)
            )
            self._delete(made.path)

    def not_sent(self, made: WaitingObject, failure: str, pause: float) -> None:
        """An object was not taken: it is tried again after so many seconds."""
        self._change(
            "UPDATE objects SET tries = tries + 1, failure = ?, due = ? WHERE uid = ?",
            (failure, time.time() + pause, made.uid),
        )

    def not_reached(self, failure: str) -> None:
        """Nothing can be sent now: what is due says why."""
        now = time.time()
        self._change("UPDATE objects SET failure = ? WHERE state = 'waiting' AND due <= ?", (failure, now))

    def waiting(self) -> int:
        """How many films wait, to be graded or for their objects to be sent."""
        films = "SELECT count(*) FROM films WHERE state = 'waiting'"
        graded = "SELECT count(DISTINCT film) FROM objects WHERE state = 'waiting'"
        return int(next(self._rows(f"SELECT ({films}) + ({graded})"))[0])

    def close(self) -> None:
        """Be done with it."""
        with self._lock:
            self._database.close()

    def _film(self, uid: str) -> Path:
        return self.folder / FILMS / f"{uid}.dcm"

    def _object(self, uid: str) -> Path:
        return self.folder / OBJECTS / f"{uid}.dcm"

    def _rows(self, words: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        with self._lock, _told(self.folder / QUEUE):
            return iter(self._database.execute(words, values).fetchall())

    def _change(self, words: str, values: Sequence[Any]) -> int:
        """Change rows, which is safe on disk when this is over; how many there were."""
        with self._lock, _told(self.folder / QUEUE):
            return self._database.execute(words, values).rowcount

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        with written_whole(path) as file:
            file.write(content)
        with told(path):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the name is safe too
            finally:
                os.close(folder)

    @staticmethod
    def _delete(path: Path) -> None:
        with suppress(OSError):  # the next start tries again
            path.unlink()


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        raise NotWrittenError(f"{path} can't be written: {error}.") from None
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path} is damaged, or no queue of a node ({error}): choose another output=.") from None


def check_database(database: sqlite3.Connection, path: Path) -> None:
    """Raise UserError if this is no queue of this version."""
    known = tuple(int(database.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version"))
    if known != (_OURS, _VERSION):
        raise UserError(f"{path} is no queue of a node of this version: choose another output=.")
