"""The process that reads films: one after the other, each within limits of processor time and memory.

Decoders meet files from anywhere: some make GDCM abort, others are made to take minutes, or all memory. Here that ends
this process and not the one that asks. A film has a little of both for what is known before decoding; then its reader
says what decoding such a film may take, and waits until the machine has it. It is the processor's time that counts, as
the system measures it, whatever library holds whatever lock: on a busy machine all takes longer, and no film is worse
for it. A limit on the clock is there for what waits and never ends. Libraries' warnings and logs go nowhere: pydicom's
quote values.
"""

import contextlib
import dataclasses
import faulthandler
import json
import logging
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from legradnet.data import images, patients
from legradnet.data.depth import depth_kept
from legradnet.data.film import Film, ImageError
from legradnet.data.reading.bounded import AT_HAND
from legradnet.data.reading.claims import Claims

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_PIXELS = ("gray", "deep")  # fields of a film
SECONDS = 1.5  # of a processor, for any film; decoding may take more
HEADER_MEMORY = 2 * AT_HAND  # bytes, for what is known before decoding
CLOCK = 60.0, 30.0  # seconds that a film may last, and for each second of a processor that it may take
SLOWED = 1.5  # times the limit of whoever reads alone: it is the last try


def serve(asker: int, claims: int, units: int) -> None:
    """Answer requests on stdin until it closes: [path, decode, alone, deep, key] -> {"error"}, or JSON and pixels.

    Args:
        asker: Descriptor of a pipe that stays open as long as the process that asks lives.
        claims: Descriptor of the file of claims.
        units: As in `Claims`.
    """
    _end_with(asker)
    logging.disable()
    warnings.simplefilter("ignore")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native decoders print
    limits = _Limits(Claims(claims, units))
    replies.write(b"ready\n")
    replies.flush()
    for request in sys.stdin.buffer:
        reply, pixels = _answer(limits, *json.loads(request))
        limits.lift()
        replies.write(json.dumps(reply).encode() + b"\n")
        for part in pixels:
            replies.write(part)
        replies.flush()
        limits.claims.leave()


def _answer(
    limits: "_Limits", path: str, decode: bool, alone: bool, deep: bool = False, key: str = ""
) -> tuple[dict[str, Any], list[memoryview]]:
    if key:
        patients.take_key(key)
    try:
        limits.begin(alone)
        with depth_kept() if deep else contextlib.nullcontext():
            film = _read(limits, Path(path), decode)
    except MemoryError:
        return {"error": "needs more memory than a film of its size may take; it is damaged or made to do so"}, []
    except BaseException as error:
        return {"error": images.in_words(error)}, []
    about = {field.name: getattr(film, field.name) for field in dataclasses.fields(Film) if field.name not in _PIXELS}
    reply = {"film": about, "shape": film.gray.shape, "seconds": time.process_time()}
    if film.deep is None:
        return reply, [film.gray.reshape(-1).data]
    reply["deep"] = [film.deep.bits, film.deep.centre, film.deep.width]
    return reply, [film.gray.reshape(-1).data, film.deep.values.reshape(-1).data]


def _read(limits: "_Limits", path: Path, decode: bool) -> Film:
    with path.open("rb") as file:
        film_format = images.format_of(file.read(images.HEAD))
        if film_format is None:
            raise ImageError("has changed while it was read")
        file.seek(0)
        return film_format.read(file, limits.allow if decode else None)


def _end_with(asker: int) -> None:
    """Let the system end this process when the one that asks is gone, even in the middle of a decoder's work.

    Not by PR_SET_PDEATHSIG, which ends it with the thread that started it.
    """
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGIO, signal.SIGPROF))
        for number in (signal.SIGIO, signal.SIGPROF):  # the second is that of the limit on the processor's time
            signal.signal(number, signal.SIG_DFL)
        fcntl.fcntl(asker, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(asker, fcntl.F_SETFL, fcntl.fcntl(asker, fcntl.F_GETFL) | os.O_ASYNC)
        if os.get_blocking(asker):
            os.set_blocking(asker, False)
        if os.read(asker, 1) == b"":  # gone already
            os._exit(0)


class _Limits:
    """Limits of this process, for one film after the other."""

    def __init__(self, claims: Claims) -> None:
        self.claims = claims
        self.slowed = 1.0
        if resource:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's film

    def begin(self, alone: bool) -> None:
        """Wait for whoever reads alone, or to be `alone`, and begin with what is known before decoding."""
        self.claims.enter(alone)
        self.slowed = SLOWED if alone else 1.0
        self._set(SECONDS, HEADER_MEMORY)

    def allow(self, seconds: float, memory: int) -> None:
        """Wait for so much memory, and go on with a limit of so much time, beyond what every film has."""
        self.lift()
        if memory > AT_HAND:
            self.claims.take(memory)
        self._set(SECONDS + seconds, HEADER_MEMORY + memory)

    def lift(self) -> None:
        """Be without limits, for what is no decoder's work."""
        self._set(None, None)

    def _set(self, seconds: float | None, memory: int | None) -> None:
        faulthandler.cancel_dump_traceback_later()
        if seconds is not None:
            seconds *= self.slowed
            faulthandler.dump_traceback_later(CLOCK[0] + CLOCK[1] * seconds, exit=True)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_PROF, seconds or 0)
        if resource and (size := _address_space()):
            _, most = resource.getrlimit(resource.RLIMIT_AS)
            wanted = most if memory is None else size + memory
            resource.setrlimit(resource.RLIMIT_AS, (wanted if most < 0 else min(wanted, most), most))


def _address_space() -> int:
    """Bytes that this process has mapped; 0 where the system doesn't tell."""
    with contextlib.suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return 0
