"""`legradnet-node show=status`: what a node's queue holds, whether or not the node is running."""

import os
import sqlite3
import time
from contextlib import closing
from datetime import datetime
from pathlib import Path

from legradnet.claims import LOCK
from legradnet.errors import UserError
from legradnet.hospital.queue import QUEUE, check_database

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_SHOWN = 10
_HOUR = 3600.0


def status(folder: Path) -> str:
    """What a node does, in lines; films and objects by UID only.

    Raises:
        UserError: There is no queue in this folder.
    """
    path = folder / QUEUE
    if not path.is_file():
        raise UserError(f"output={folder}: there is no queue of a node.")
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            check_database(database, path)
            return "\n".join([_running(folder), *_lines(database)])
    except sqlite3.Error as error:
        raise UserError(f"{path} can't be read: {error}.") from None


def _lines(database: sqlite3.Connection) -> list[str]:
    now = time.time()

    def counts(table: str) -> dict[str, int]:
        return dict(database.execute(f"SELECT state, count(*) FROM {table} GROUP BY state").fetchall())

    def count(words: str, *values: float) -> int:
        return int(database.execute(words, values).fetchone()[0])

    films, objects = counts("films"), counts("objects")
    hour = count("SELECT count(*) FROM films WHERE state = 'graded' AND done > ?", now - _HOUR)
    minute = count("SELECT count(*) FROM films WHERE state = 'graded' AND done > ?", now - 60)
    retried = count("SELECT count(*) FROM objects WHERE state = 'waiting' AND tries > 0")
    oldest = database.execute("SELECT min(received) FROM films WHERE state = 'waiting'").fetchone()[0]
    lines = [
        f"films    {films.get('waiting', 0)} waiting, {films.get('graded', 0)} graded, "
        f"{films.get('left', 0)} left alone, {films.get('failed', 0)} failed",
        f"objects  {objects.get('waiting', 0)} to be sent, {objects.get('sent', 0)} sent; "
        f"{retried} of those to be sent were not taken before",
        f"rate     {minute} films in the last minute, {hour} in the last hour",
    ]
    if oldest is not None:
        lines.append(f"oldest   waits since {datetime.fromtimestamp(oldest):%Y-%m-%d %H:%M:%S}")
    failed = database.execute(
        "SELECT uid, reason FROM films WHERE state = 'failed' ORDER BY done DESC LIMIT ?", (_SHOWN,)
    ).fetchall()
    refused = database.execute(
        "SELECT uid, failure FROM objects WHERE state = 'waiting' AND failure <> '' ORDER BY due DESC LIMIT ?",
        (_SHOWN,),
    ).fetchall()
    lines += [f"failed   {uid}: {reason}" for uid, reason in failed]
    lines += [f"refused  {uid}: {failure}" for uid, failure in refused]
    return lines


def _running(folder: Path) -> str:
    """Whether a node holds the folder."""
    try:
        file = os.open(folder / LOCK, os.O_RDONLY)
    except OSError:
        return "node     not running"
    try:
        if fcntl is None:
            return "node     unknown whether it is running"
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        who = "".join(filter(str.isprintable, os.pread(file, 300, 0).decode(errors="replace")))
        return f"node     running: {who}"
    finally:
        os.close(file)
    return "node     not running"
