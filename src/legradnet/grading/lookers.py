"""Processes that look at films for the threads that prepare them: looking is Python, which one thread runs at a time.

They begin when threads have looked side by side for a while, and end with the process that asks, however it ends. All
are forks of one that no library's threads run in, and share what it has loaded. Where there are none, or one fails, the
thread looks itself, with the same answer.

Ours and not `concurrent.futures`: its processes stay behind where the one that asks is killed, run a user's script anew
where it has no `__main__` guard, and may not be had by processes of a DataLoader.
"""

import logging
import os
import pickle
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from subprocess import DEVNULL, Popen
from threading import Condition
from typing import Any, TypeVar

from legradnet.data.film import Film, Gray
from legradnet.data.reading.pool import start_python
from legradnet.machine import cores
from legradnet.memory import give_back_freed_memory

MOST = 8  # processes, as there are threads that read
SIDE_BY_SIDE = 1.0  # seconds that threads have looked side by side when processes begin, which takes them as long
LIMIT = 60.0  # seconds for a look: within one by far, unless somebody has stopped the process
_MOST_PIXELS = 2**25  # of a film: one that is larger is not copied
_LARGE = 2**20  # pixels

log = logging.getLogger(__name__)

_Seen = TypeVar("_Seen")


def look_apart(look: Callable[..., _Seen], film: Film | Gray, *about: Any) -> _Seen:
    """What `look`, a function of one of our modules, sees in a film; in another process where one is there for it."""
    gray = _gray(film)
    with _lookers.looking():
        if gray.size > _MOST_PIXELS:
            return look(film, *about)
        seen = _lookers.ask(look, replace(film, deep=None) if isinstance(film, Film) else film, *about)
        return seen[0] if seen else look(film, *about)


def serve(descriptors: list[int]) -> None:
    """Look at what is sent through each of these until it is closed: a process for each."""
    logging.disable()
    warnings.simplefilter("ignore")
    import legradnet.grading.look
    import legradnet.localise.knees  # noqa: F401 - once, for all forks

    own, *others = descriptors
    for other in others:
        if os.fork() == 0:
            own = other
            break
    for descriptor in {*descriptors} - {own}:
        os.close(descriptor)
    with suppress(EOFError, OSError), Connection(own) as asker:
        asker.send(())
        while True:
            question = asker.recv_bytes()
            asker.send(_seen(question))
            if len(question) > _LARGE:
                del question
                give_back_freed_memory()
    with suppress(ChildProcessError):
        while True:
            os.wait()


def _seen(question: bytes) -> tuple[Any, ...]:
    """What is seen, alone in a tuple; () where that fails: who asks looks itself, and sees the error too."""
    try:
        look, film, *about = pickle.loads(question)  # of the process that has started this one
        return (look(film, *about),)
    except Exception:
        return ()


def _most() -> int:
    """As many as this process has cores, or was given by OMP_NUM_THREADS, as Spark and Ray do for each of many."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(MOST, cores(), int(given) if given.isdecimal() else MOST)


def _gray(film: Film | Gray) -> Gray:
    return film.gray if isinstance(film, Film) else film


class _Lookers:
    """Those of this process."""

    def __init__(self) -> None:
        self.changed = Condition()
        self.threads = 0  # that look
        self.side_by_side = 0.0
        self.count = _most() if sys.platform == "linux" and sys.executable else 0
        self.has_begun = self.count < 2
        self.process: Popen[bytes] | None = None
        self.ends: list[Connection] = []  # of all pipes, theirs too as long as they are open here
        self.starting: list[Connection] = []
        self.idle: list[Connection] = []
        self.busy: list[Connection] = []

    @contextmanager
    def looking(self) -> Iterator[None]:
        """While a thread looks; begins the processes when it is time."""
        with self.changed:
            self.threads += 1
        begun = time.monotonic()
        try:
            yield
        finally:
            with self.changed:
                self.threads -= 1
                self.side_by_side += time.monotonic() - begun if self.threads else 0
                is_time = not self.has_begun and self.side_by_side > SIDE_BY_SIDE
                self.has_begun |= is_time
            if is_time:
                self._begin()

    def ask(self, *question: Any) -> tuple[Any, ...]:
        """What is seen, alone in a tuple; () where there is none to ask, or who was asked is gone."""
        if self.process is None:
            return ()
        try:
            pickled = pickle.dumps(question, pickle.HIGHEST_PROTOCOL)
        except Exception:  # what another process can't know
            return ()
        looker, is_whole = None, False
        try:
            looker = self._free()
            if looker is None:
                return ()
            looker.send_bytes(pickled)
            if looker.poll(LIMIT):
                seen: tuple[Any, ...] = looker.recv()
                is_whole = True
                return seen
        except (EOFError, OSError):
            pass
        finally:  # after an interrupt too: a half-read answer must not become that to the next question
            if looker is not None:
                self._rest(looker, is_whole)
        return ()

    def _free(self) -> Connection | None:
        """One that is idle, as soon as there is one; None where all are gone, or not there yet."""
        with self.changed:
            for looker in [one for one in self.starting if one.poll()]:
                self.starting.remove(looker)
                with suppress(EOFError, OSError):
                    looker.recv()
                    self.idle.append(looker)
                    self.changed.notify_all()
            self.changed.wait_for(lambda: self.idle or self.starting or not self.busy, LIMIT)
            self._look_around()
            if not self.idle:
                return None
            self.busy.append(self.idle.pop())
            return self.busy[-1]

    def _rest(self, looker: Connection, is_whole: bool) -> None:
        with self.changed:
            self.busy.remove(looker)
            if is_whole:
                self.idle.append(looker)
            else:
                looker.close()
            self._look_around()
            self.changed.notify_all()

    def _look_around(self) -> None:
        if self.process and not (self.idle or self.busy or self.starting):
            self.process = None
            log.warning("The processes that look at films are gone; is memory left? It goes on without, slower.")

    def _begin(self) -> None:
        theirs: list[Connection] = []
        try:
            for _ in range(self.count):
                both = Pipe()
                self.ends += both
                self.starting.append(both[0])
                theirs.append(both[1])
            told = [their.fileno() for their in theirs]
            self.process = start_python("legradnet.grading.lookers", f"serve({told})", told, DEVNULL)
        except OSError:  # too many files are open, or no memory is left: threads go on alone
            self.starting.clear()
        for their in theirs:
            their.close()

    def forget(self) -> None:
        """Leave them, in a fork, to the process whose they are."""
        if self.process:
            self.process.returncode = 0
        for end in self.ends:
            end.close()


_lookers = _Lookers()


def _begin_anew() -> None:
    global _lookers
    _lookers.forget()
    _lookers = _Lookers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
