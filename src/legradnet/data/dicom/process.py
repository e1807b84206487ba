"""One DICOM file -> one film, read in a child process.

pydicom and the native decoders meet files from anywhere: damaged data makes GDCM abort and sends others into minutes of
work. So a child reads (one a thread, kept for the next film), within limits of time and memory, and a film that ends
the child is an `ImageError`. The child loads no element that names a patient, and its warnings and logs go nowhere:
pydicom's quote values.

Ours and not a pool of Pebble: its workers are children of multiprocessing, which reading processes of a DataLoader may
not have, and which run a user's script anew where it has no `__main__` guard; and the time allowed grows with the film.

After decoding, in the order of PS3.4 N.2: Modality LUT or rescale, VOI LUT or the first window (PS3.3 C.11.1, C.11.2),
inversion. Without VOI, 8-bit values stay as they are and deeper ones are stretched as in other formats. Padding is
black. "PS3" is the DICOM standard, https://dicom.nema.org/medical/dicom/current.
"""

import faulthandler
import json
import logging
import os
import queue
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from legradnet.data.dicom.film import film_of_dicom, open_dicom, side_of
from legradnet.data.film import NO_PIXELS, Film, ImageError

SECONDS = 3.0  # for any film; decoding may take more, by its size
PIXELS_PER_SECOND = 4_000_000
MAX_MEMORY = 8 * 1024**3  # address space of the child: the largest film needs about half of it
DECODERS = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls", "pillow")  # packages


def read_dicom(file: BinaryIO, decode: bool = True) -> Film:
    """Read the first frame of an open DICOM file; with `decode` false, check its header and return no pixels.

    Raises:
        ImageError: Whatever is wrong with the file, without its path and without any value of its elements but sizes.
    """
    try:
        child = _IDLE.get_nowait()
    except queue.Empty:
        child = _Child()
    try:
        return child.read(os.path.abspath(file.name), decode)  # noqa: PTH100
    finally:
        _IDLE.put(child)


class _Child:
    """A process that reads one film after the other; started by the first of them."""

    process: "subprocess.Popen[bytes] | None" = None
    owner = 0

    def read(self, path: str, decode: bool) -> Film:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([path, decode]).encode() + b"\n")
                process.stdin.flush()
            reply = json.loads(process.stdout.readline() or "null")
            shape = (reply or {}).get("shape", (0, 0))
            pixels = process.stdout.read(shape[0] * shape[1])
        except BaseException:  # an interrupt: a half-read reply must not become that of the next film
            self._end(process)
            raise
        if reply is None or len(pixels) < shape[0] * shape[1]:
            late = self._end(process) == 1  # faulthandler's exit
            raise ImageError(f"its decoder {'took too long' if late else 'crashed'}; the file is damaged or not DICOM")
        if "error" in reply:
            raise ImageError(reply["error"])
        gray = np.frombuffer(pixels, np.uint8).reshape(shape).copy()
        return Film(gray, reply["side"], reply["colour"], tuple(reply["remarks"]), tuple(reply["doubts"]))

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is not None and self.owner == os.getpid() and self.process.poll() is None:
            return self.process
        start = f"import sys; sys.path[:] = {sys.path!r}; from legradnet.data.dicom.process import serve; serve()"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the parent
        )
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise ImageError("the process that reads DICOM does not start; is pydicom installed and memory left?")
        self.process, self.owner = process, os.getpid()  # a fork must not use its parent's pipes
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        self.process = None
        process.kill()
        with suppress(BrokenPipeError), process:
            pass
        return process.returncode


_IDLE: queue.SimpleQueue[_Child] = queue.SimpleQueue()  # as many as threads have ever read at once


def serve() -> None:
    """Answer requests on stdin until it closes: [path, decode] -> {"error"} or a film's JSON and its pixels."""
    import pydicom.pixels

    with suppress(ImportError, ValueError):  # on Windows; where less is allowed already
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's film
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.disable()
    warnings.simplefilter("ignore")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native decoders print
    replies.write(b"ready\n")
    replies.flush()
    for request in sys.stdin.buffer:
        path, decode = json.loads(request)
        pixels = b""
        reply: dict[str, Any]
        try:
            film = _read_within_limits(path, decode)
        except ImageError as error:
            reply = {"error": str(error)}
        except OSError as error:
            reply = {"error": error.strerror or "cannot be read"}
        except BaseException as error:  # its text may quote a patient's data
            reply = {"error": f"cannot be read as DICOM, damaged or unusual ({type(error).__name__})"}
        else:
            pixels = film.gray.tobytes()
            reply = {"shape": film.gray.shape, "side": film.side, "colour": film.colour}
            reply |= {"remarks": film.remarks, "doubts": film.doubts}
        faulthandler.cancel_dump_traceback_later()
        replies.write(json.dumps(reply).encode() + b"\n" + pixels)
        replies.flush()


def _read_within_limits(path: str, decode: bool) -> Film:
    with Path(path).open("rb") as file:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        header, pixels, vr = open_dicom(file)
        if not decode:
            return replace(NO_PIXELS, side=side_of(header))
        seconds = SECONDS + header.Rows * header.Columns / PIXELS_PER_SECOND
        faulthandler.dump_traceback_later(seconds, exit=True)
        return film_of_dicom(header, pixels, vr)
