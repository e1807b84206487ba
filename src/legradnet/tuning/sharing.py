"""A sweep's folder is shared: by the workers of one study, who write some of its files one after the other."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from legradnet.errors import UserError
from legradnet.files import PARTIAL, opened_without_links, told

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextmanager
def shared_by_workers(folder: Path, study_name: str) -> Iterator[None]:
    """Hold a sweep's folder, together with all workers of the same study, while the block runs.

    Raises:
        UserError: Workers of another study are in it.
        NotWrittenError: Nothing can be written there.
    """
    path = folder / f"{PARTIAL}study"
    with told(path):
        folder.mkdir(parents=True, exist_ok=True)
        number = opened_without_links(path, os.O_RDWR | os.O_CREAT)
    with open(number, "r+b", buffering=0) as lock:  # noqa: PTH123 a descriptor
        try:
            if fcntl is None:
                raise OSError("no file locks")
            with suppress(BlockingIOError):  # else others are there, and have written who they are
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with told(path):
                    lock.truncate(0)
                    lock.write(study_name.encode())
            fcntl.flock(lock, fcntl.LOCK_SH)
        except OSError as error:
            log.warning("%s has no file locks (%s): see to it that no other search writes there.", folder, error)
        else:
            lock.seek(0)
            if (others := lock.read(1000).decode(errors="replace")) != study_name:
                raise UserError(
                    f"{folder} is held by a search of another study ({others}): choose another hydra.sweep.dir=."
                )
        yield


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Wait until no other worker of this sweep's folder writes; the system takes the lock from a killed one."""
    with open(opened_without_links(path, os.O_RDWR | os.O_CREAT), "r+b") as file:  # noqa: PTH123 a descriptor
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
