"""Films that may be slow, large or fatal are read in processes of their own, within limits and one budget."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from dicom_films import KNEE, written

from hostile_films import dicom
from legradnet.data.film import ImageError
from legradnet.data.images import read_film
from legradnet.data.reading import pool
from legradnet.data.reading.claims import UNIT, Claims, new_file
from slow_films import chunk, float_tiff, many_scans, png, rle_bmp

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")
BUSY_LOOP = "while True: pass"


@pytest.fixture
def film(tmp_path):
    """A film that is read apart."""
    return written(tmp_path / "a", dicom(KNEE))


def reader_of(code, *request, **limits):
    """Run a reader in which reading is `code`, ask it once, and wait for its end."""
    setting = ";".join(f"process.{name} = {value}" for name, value in limits.items())
    program = (
        "import os, time; from legradnet.data.film import NO_PIXELS\n"
        f"from legradnet.data.reading import process, claims\n{setting}\n"
        f"def read(limits, path, decode):\n    {code}\n    return NO_PIXELS\n"
        "process._read, shared, (asker, asking) = read, claims.new_file(), os.pipe()\n"
        "process.serve(asker, shared.fileno(), 8)"
    )
    asked = json.dumps([*(request or ["a", True, False])]).encode() + b"\n"
    return subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, timeout=60)


# ------------------------------------------------------------------------------------------ time, not the clock
@needs_linux
def test_it_is_the_processors_time_that_ends_a_reading():
    busy, waiting = reader_of(BUSY_LOOP, SECONDS=0.2), reader_of("time.sleep(0.6)", SECONDS=0.2)
    assert busy.returncode == -signal.SIGPROF
    assert waiting.returncode == 0


def test_what_waits_for_ever_is_ended_by_the_clock():
    assert reader_of("time.sleep(60)", SECONDS=0.2, CLOCK=(0.3, 1)).returncode == 1


@needs_linux
def test_memory_beyond_what_is_allowed_is_an_error_and_the_reader_goes_on():
    done = reader_of("limits.allow(1, 2**20); bytes(2**29)")
    assert done.returncode == 0
    assert b"needs more memory than a film of its size may take" in done.stdout


@pytest.mark.parametrize(
    ("code", "processor", "clock", "words", "again"),
    [
        (-signal.SIGPROF, 2.0, 2.1, "took more than 2 s of a processor .* damaged, or made to be slow", False),
        (-signal.SIGPROF, 2.0, 9.0, "took more than 2 s of a processor", True),
        (1, 0.5, 90.0, "not read within 90 s, .* worked 0.5 s .* too slow or busy; the file may be whole", True),
        (-signal.SIGKILL, 0.5, 1.0, "killed from outside.* out of memory.* the file may be whole", True),
        (-signal.SIGSEGV, 0.5, 1.0, "its decoder crashed; the file is damaged", False),
    ],
)
def test_a_bad_file_and_a_slow_machine_are_told_apart(code, processor, clock, words, again):
    ended = pool._EndedError(code, processor, clock, alone=False)
    assert ended.may_be_the_machine == again
    with pytest.raises(pool._EndedError, match=words):
        raise ended


def test_what_a_busy_machine_may_have_stopped_is_tried_once_more_alone(film, monkeypatch):
    tries = []

    def read(self, path, decode, alone):
        tries.append(alone)
        raise pool._EndedError(-signal.SIGPROF, 2.0, 9.0 if len(tries) < 3 else 2.0, alone)

    monkeypatch.setattr(pool._Reader, "read", read)
    with pytest.raises(ImageError, match="stopped twice"):
        read_film(film)
    assert tries == [False, True]
    with pytest.raises(ImageError, match="stopped; the file is damaged, or made to be slow"):
        read_film(film)
    assert tries == [False, True, False]


@needs_linux
def test_who_reads_alone_waits_for_others_and_lets_none_begin():
    file, order = new_file(), []
    ends = {}

    def begin(name, alone):
        ends[name] = os.pipe()
        if os.fork() == 0:
            claims = Claims(file.fileno(), 4)
            claims.enter(alone)
            os.write(said[1], name.encode())
            os.read(ends[name][0], 1)
            os._exit(0)

    said = os.pipe()
    begin("a", False)
    order.append(os.read(said[0], 1))
    begin("b", True)
    time.sleep(0.2)  # it waits at the door
    begin("c", False)
    os.set_blocking(said[0], False)
    time.sleep(0.2)
    with pytest.raises(BlockingIOError):
        os.read(said[0], 1)
    os.set_blocking(said[0], True)
    for name in "abc":
        os.write(ends[name][1], b"x")
        if name != "c":
            order.append(os.read(said[0], 1))
    for _ in range(3):
        os.wait()
    assert order == [b"a", b"b", b"c"]


@needs_linux
def test_readers_never_hold_more_memory_than_there_is_for_all():
    file, units, readers = new_file(), 4, 6
    held = os.memfd_create("held")
    os.truncate(held, 8 * readers)
    for reader in range(readers):
        if os.fork() == 0:
            claims = Claims(file.fileno(), units)
            worst = 0
            for turn in range(30):
                wanted = 1 + (reader + turn) % units
                claims.enter(False)
                claims.take(wanted * UNIT)
                os.pwrite(held, wanted.to_bytes(8, "little"), 8 * reader)
                worst = max(worst, sum(np.frombuffer(os.pread(held, 8 * readers, 0), np.int64)))
                os.pwrite(held, bytes(8), 8 * reader)
                claims.leave()
            os._exit(int(worst > units))
    assert [os.wait()[1] for _ in range(readers)] == [0] * readers


# ------------------------------------------------------------------------------------------ files made to be slow
SLOW = {
    "scans.jpg": lambda: many_scans(3000, (1500, 1500)),
    "runs.bmp": lambda: rle_bmp(b"\1\x55" * 6_000_000),
    "parts-behind.png": lambda: png(after=(chunk(b"IDAT") * 1_000_000,)),
    "floats.tiff": lambda: float_tiff(),
}


@needs_linux
@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_file_made_to_be_slow_costs_seconds_and_memory_of_its_reader_only(tmp_path, name):
    (tmp_path / name).write_bytes(SLOW[name]())
    program = """if True:
        import resource, sys, time
        from pathlib import Path
        from legradnet.data.images import ImageError, read_film
        try:
            print(read_film(Path(sys.argv[1])).gray.shape)
        except ImageError as error:
            print(error)
        mine = resource.getrusage(resource.RUSAGE_SELF)
        held = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]  # ru_maxrss is that of who forked it
        print(mine.ru_utime + mine.ru_stime, int(held) / 1024)
        from legradnet.data.reading import pool
        for reader in list(pool._pools[0].readers):
            reader.end()
        of_readers = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(of_readers.ru_utime + of_readers.ru_stime, of_readers.ru_maxrss / 1024)
    """
    done = subprocess.run([sys.executable, "-c", program, tmp_path / name], capture_output=True, text=True, timeout=120)
    *_, mine, of_readers = [[float(part) for part in line.split()] for line in done.stdout.splitlines()[-2:]]
    assert mine[0] < 2, done.stdout
    assert mine[1] < 250
    assert of_readers[0] < 25  # with the second try that a busy machine earns it
    assert of_readers[1] < 1400
