"""Processes that read films, as many as are asked at once and the cores are good for; they wait for the next film.

A film that is too much work ends its reader, and is an `ImageError`. Where the machine may be to blame, because it was
busy or took the reader's memory, the film is tried a second time, while no other reader of ours works.

Ours and not a pool of Pebble: its workers are children of multiprocessing, which reading processes of a DataLoader may
not have, and which run a user's script anew where it has no `__main__` guard; and what is allowed grows with the film.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np

from legradnet import machine
from legradnet.data import patients
from legradnet.data.depth import Deep, is_depth_kept
from legradnet.data.film import Film, ImageError
from legradnet.data.reading import claims

MOST = 32  # reading processes at once
_WAITED = 1.25  # seconds on the clock for one of a processor: above it the machine was busy with something else
_STOPPED = "its reading was stopped"


class Stop:
    """Ends what some threads are reading, at once: for who is interrupted and must not wait for a decoder.

    As a context it does so at its end.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reading: set[subprocess.Popen[bytes]] = set()
        self.is_set = False

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, *error: object) -> None:
        self.set()

    def set(self) -> None:
        """End the readings of the threads that heed this, now and from now on: each is an `ImageError`."""
        with self._lock:
            self.is_set = True
            for process in self._reading:
                process.kill()

    def heed(self) -> None:
        """Let this end the readings of the calling thread: for a pool of threads to call as each begins."""
        _THREAD.stop = self

    @contextmanager
    def ends(self, process: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Let this end `process` meanwhile."""
        with self._lock:
            if self.is_set:
                raise ImageError(_STOPPED)
            self._reading.add(process)
        try:
            yield
        finally:
            with self._lock:
                self._reading.discard(process)


_THREAD = threading.local()


def read_apart(path: str, decode: bool) -> Film:
    """Read a film in a process of its own; with `decode` false check what can be known without, and give no pixels.

    Raises:
        ImageError: Whatever is wrong with the file, without its path.
    """
    pool = _pool()
    try:
        return pool.read(path, decode, alone=False)
    except _EndedError as first:
        if not first.may_be_the_machine:
            raise ImageError(str(first)) from None
    try:
        return pool.read(path, decode, alone=True)
    except _EndedError as second:
        raise ImageError(str(second)) from None


def share_claims() -> None:
    """Let processes that are forked from now on share with this one, and each other, what all readers may claim."""
    _pool()


def start_python(
    module: str, call: str, descriptors: Collection[int], pipe: int = subprocess.PIPE
) -> subprocess.Popen[bytes]:
    """Start a Python of one thread that makes a `call` to a module, and is told of no Ctrl-C.

    Args:
        module: Its whole name.
        call: What it does.
        descriptors: Open files that it has too.
        pipe: What its stdin and stdout are.
    """
    start = f"import sys; sys.path[:] = {sys.path!r}; import {module} as our; our.{call}"
    return subprocess.Popen(
        [sys.executable, "-P", "-c", start],
        stdin=pipe,
        stdout=pipe,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},  # it has one core's share
        pass_fds=tuple(descriptors) if os.name == "posix" else (),
    )


class _EndedError(Exception):
    """A reader ended while it read.

    Args:
        code: Its exit status, or minus the signal that ended it.
        processor: Seconds of a processor that it has spent on the film.
        clock: Seconds that have passed.
        alone: Whether no other reader worked.
    """

    def __init__(self, code: int, processor: float, clock: float, alone: bool) -> None:
        self.may_be_the_machine = False
        if code == -_TOO_MUCH_WORK:
            self.may_be_the_machine = clock > _WAITED * processor
            words = f"decoding took more than {processor:.0f} s of a processor and was stopped{' twice' * alone}; "
            words += "the file is damaged, or made to be slow"
        elif code == 1:  # faulthandler's
            self.may_be_the_machine = True
            words = f"was not read within {clock:.0f} s, of which a processor worked {processor:.1f} s for it: the "
            words += "machine, or the disk it is on, is too slow or busy; the file may be whole"
        elif code == -signal.SIGKILL:
            self.may_be_the_machine = True
            words = "the process that read it was killed from outside: is the machine out of memory? the file may be "
            words += "whole"
        else:
            words = "its decoder crashed; the file is damaged"
        super().__init__(words)


_TOO_MUCH_WORK = getattr(signal, "SIGPROF", 27)


class _Reader:
    """A process that reads one film after the other."""

    def __init__(self, shared: BinaryIO, units: int) -> None:
        asker, self.asking = os.pipe()
        needed = asker, shared.fileno()
        try:
            self.process = start_python(
                "legradnet.data.reading.process", f"serve({asker}, {shared.fileno()}, {units})", needed
            )
        except OSError as error:
            os.close(self.asking)
            raise ImageError(f"the process that reads films does not start: {error.strerror or error}") from None
        finally:
            os.close(asker)
        self.is_ready, self.spent = False, 0.0

    def read(self, path: str, decode: bool, alone: bool) -> Film:
        """As `read_apart`, once."""
        stop: Stop | None = getattr(_THREAD, "stop", None)
        try:
            if stop is None:
                return self._read(path, decode, alone)
            with stop.ends(self.process):
                return self._read(path, decode, alone)
        except _EndedError:
            if stop is not None and stop.is_set:
                raise ImageError(_STOPPED) from None
            raise

    def _read(self, path: str, decode: bool, alone: bool) -> Film:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        if not self.is_ready and stdout.readline() != b"ready\n":
            self.end()
            raise ImageError("the process that reads films does not start; is memory left?")
        self.is_ready = True
        begun = time.monotonic()
        with suppress(BrokenPipeError):
            stdin.write(json.dumps([path, decode, alone, is_depth_kept(), patients.key()]).encode() + b"\n")
            stdin.flush()
        reply: dict[str, Any] | None = json.loads(stdout.readline() or "null")
        if reply is not None and "error" in reply:
            raise ImageError(reply["error"])
        if reply is not None:
            gray = np.empty(reply["shape"], np.uint8)
            deep = Deep(np.empty(reply["shape"], np.uint16), *reply["deep"]) if "deep" in reply else None
            parts = [gray.reshape(-1).data, *([deep.values.reshape(-1).data.cast("B")] if deep else [])]
            if all(stdout.readinto(part) == part.nbytes for part in parts):  # type: ignore[attr-defined]
                self.spent = reply["seconds"]
                about = {name: _frozen(value) for name, value in reply["film"].items()}
                return Film(gray, deep=deep, **about)
        code, processor = self.end()
        raise _EndedError(code, processor - self.spent, time.monotonic() - begun, alone)

    def end(self) -> tuple[int, float]:
        """End it; gives its exit status and the seconds of a processor that it has spent in all."""
        process, spent = self.process, 0.0
        if hasattr(os, "wait4"):
            with suppress(ProcessLookupError, ChildProcessError):  # somebody else waits for all children here
                os.kill(process.pid, signal.SIGKILL)  # Popen's own would wait for it, and not tell what it has spent
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode, spent = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        else:
            process.kill()
        process.wait()
        self._close()
        return process.returncode, spent

    def forget(self) -> None:
        """Leave it, in a fork, to the process whose it is."""
        self.process.returncode = 0
        self._close()

    def _close(self) -> None:
        os.close(self.asking)
        for pipe in (self.process.stdin, self.process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _frozen(value: Any) -> Any:
    """What JSON makes of a tuple, as a tuple again."""
    return tuple(value) if isinstance(value, list) else value


class _Pool:
    """The readers of this process."""

    def __init__(self, shared: BinaryIO, units: int) -> None:
        self.shared, self.units = shared, units
        self.readers: set[_Reader] = set()
        self.idle: deque[_Reader] = deque()
        self.places = threading.Semaphore(min(MOST, 2 * machine.cores()))

    def read(self, path: str, decode: bool, alone: bool) -> Film:
        """As `read_apart`, once."""
        with self.places:
            reader = self._reader()
            try:
                film = reader.read(path, decode, alone)
            except ImageError:
                self._rest(reader)
                raise
            except BaseException:  # an interrupt: a half-read reply must not become that of the next film
                self.readers.discard(reader)
                if reader.process.returncode is None:
                    reader.end()
                raise
            self._rest(reader)
            return film

    def _reader(self) -> _Reader:
        while self.idle:
            with suppress(IndexError):
                reader = self.idle.pop()
                if reader.process.poll() is None:
                    return reader
                self.readers.discard(reader)
                reader._close()
        reader = _Reader(self.shared, self.units)
        self.readers.add(reader)
        return reader

    def _rest(self, reader: _Reader) -> None:
        if reader.process.returncode is None:
            self.idle.append(reader)
        else:
            self.readers.discard(reader)


_pools: list[_Pool] = []  # one, as soon as there is something to read
_beginning = threading.Lock()


def _pool() -> _Pool:
    if not _pools:
        with _beginning:
            if not _pools:
                _pools.append(_Pool(claims.new_file(), claims.units_here()))
                if hasattr(os, "register_at_fork"):
                    os.register_at_fork(after_in_child=_begin_anew)
    return _pools[0]


def _begin_anew() -> None:
    """In a fork: leave the readers to the process whose they are, and share their claims."""
    global _beginning
    _beginning = threading.Lock()
    before = _pools[0]
    for reader in list(before.readers):
        reader.forget()
    _pools[0] = _Pool(before.shared, before.units)
