"""Where a study lies."""

import json
import os
import re
import time
from pathlib import Path

import optuna
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock, JournalStorage
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from legradnet.errors import UserError, how_to_install, without_passwords

_REFERENCE = re.compile(r"\$\{[^}]*\}")
_FORMS = "sqlite:///PATH, postgresql://USER@HOST/DATABASE or journal:PATH"
_LOCK = 10  # seconds
_LAST = 2**16  # bytes of a journal in which its last line is looked for
_OPENINGS = 10  # several workers may make the tables of a new database at once; all but one then fail, and try again


def open_storage(url: str, folder: Path | None = None) -> BaseStorage:
    """Open the storage at `url`; what is missing is made.

    Args:
        url: `sqlite:///PATH`, `postgresql://...` or `journal:PATH`.
        folder: What a relative PATH is relative to; None is the working folder.

    Raises:
        UserError: It is none of these, a driver is missing, or it cannot be reached. No password is repeated.
    """
    kind, _, rest = url.partition(":")
    base = folder or Path.cwd()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if kind == "journal" and rest:
        path = base / rest
        path.parent.mkdir(parents=True, exist_ok=True)
        # the lock of a worker that was killed holding it is broken after a while; none holds it for seconds
        lock = JournalFileSymlinkLock(str(path), grace_period=_LOCK)
        try:
            if path.is_file():
                _check_end(path)
            return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
        except OSError:
            raise
        except Exception as error:  # whatever its lines are taken for
            raise UserError(f"hydra.sweeper.storage={url}: {path} is damaged or no journal of a study.") from error
    if url.startswith("sqlite:///") and rest.strip("/"):
        path = base / url.removeprefix("sqlite:///")
        path.parent.mkdir(parents=True, exist_ok=True)
        storage = _database(f"sqlite:///{path}", {"connect_args": {"timeout": 120, "isolation_level": None}})
        # SQLite has no locks on rows: unless each transaction takes the file's lock before it reads, two workers can
        # both find a queued trial waiting, and both take it
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        return storage
    if kind.split("+")[0] in ("postgresql", "postgres"):
        return _database(f"postgresql+psycopg:{rest}", {"pool_pre_ping": True})
    raise UserError(f"hydra.sweeper.storage={without_passwords(url)} must be {_FORMS}.")


def _check_end(journal: Path) -> None:
    """Raise ValueError if the last line is no record, nor the beginning of one that is being written.

    Optuna checks the others; a record that it appends to this one is lost, and the study with it.
    """
    with journal.open("rb") as file:
        file.seek(-min(_LAST, file.seek(0, os.SEEK_END)), os.SEEK_END)
        end = file.read()
    last = end.removesuffix(b"\n").rpartition(b"\n")[2]
    if len(last) < _LAST - 1 and end and (not last.startswith(b"{") or (end.endswith(b"\n") and not json.loads(last))):
        raise ValueError


def _database(url: str, engine: dict[str, object]) -> RDBStorage:
    for attempt in range(1, _OPENINGS + 1):
        try:
            return RDBStorage(url, engine_kwargs=engine)
        except ImportError as error:
            raise UserError(f"PostgreSQL needs its driver: {how_to_install('postgresql')}") from error
        except Exception as error:  # of SQLAlchemy, of the driver, or Optuna's own
            if attempt == _OPENINGS:
                reason = (without_passwords(_without_password_of(url, str(error))).splitlines() or [""])[0]
                raise UserError(f"hydra.sweeper.storage={without_passwords(url)} cannot be opened: {reason}") from None
            time.sleep(0.2 * attempt)
    raise AssertionError("unreachable")


def _without_password_of(url: str, text: str) -> str:
    """`text` without the password in `url`, however it is repeated."""
    try:
        password = make_url(url).password
    except ArgumentError:
        return text
    return text.replace(str(password), "***") if password else text


def has_password(url: str) -> bool:
    """Whether there is a password in a URL; one that is only referred to, `${oc.env:NAME}`, is none."""
    given = _REFERENCE.sub("", url)
    return without_passwords(given) != given
