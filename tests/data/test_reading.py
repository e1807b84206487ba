"""Films that may be slow, large or fatal are read in processes of their own, within limits and one budget."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from dicom_films import KNEE, written
from pictures import RAMP, saved
from PIL import Image

from hostile_films import dicom
from legradnet.data.film import ImageError
from legradnet.data.images import read_film, read_image
from legradnet.data.reading import pool
from legradnet.data.reading.bounded import is_bounded_jpeg, is_bounded_png
from legradnet.data.reading.claims import UNIT, Claims, new_file
from slow_films import SIDE, chunk, float_tiff, jpeg, many_scans, png, rle_bmp

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


# ------------------------------------------------------------------------------------------ what is read at once
def bounded(content):
    return is_bounded_png(io.BytesIO(content)) if content[:1] == b"\x89" else is_bounded_jpeg(io.BytesIO(content))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_healthy_png_is_read_at_once(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("legradnet.data.images.read_apart", lambda *_: pytest.fail("read apart"))
    picture = Image.fromarray(RAMP.astype(np.uint16)) if mode == "I;16" else Image.fromarray(RAMP).convert(mode)
    read_film(saved(tmp_path / "a.png", picture))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_healthy_jpeg_is_read_at_once(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("legradnet.data.images.read_apart", lambda *_: pytest.fail("read apart"))
    read_film(saved(tmp_path / "a.jpg", Image.fromarray(RAMP).convert(mode)))


BOMB = zlib.compress(bytes(1_000_000))


@pytest.mark.parametrize(
    "content",
    [
        png(chunk(b"teSt")),
        png(chunk(b"tEXt", b"a\0b") * 65),
        png(chunk(b"IDAT") * 10_001),
        png(chunk(b"zTXt", b"a\0\0" + BOMB)),
        png(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
        png(chunk(b"eXIf", bytes(20_000))),
        png(chunk(b"fcTL", bytes(26))),
        png(size=(SIDE, SIDE)),
        png(size=(4000, 4000), colour=2),
        png(rows=bytes(100_000)),
        png()[:20],
        jpeg(progressive=True),
        many_scans(1, (64, 64)),
        jpeg((6000, 6000)),
        jpeg()[:2] + b"\xff\xfe\0\2" * 100 + jpeg()[2:],
        jpeg()[:2] + b"\xff\xe1\xff\xff" + bytes(65533) + jpeg()[2:],
        jpeg()[:-2] + bytes(200_000) + jpeg()[-2:],
        jpeg().replace(b"\xff\xc0", b"\xff\xc9"),
        jpeg()[:100],
    ],
)
def test_whatever_may_be_slow_or_large_is_not(content):
    assert not bounded(content)
    assert bounded(png())
    assert bounded(jpeg())


# ------------------------------------------------------------------------------------------ processes
def test_a_reader_that_crashes_is_an_error_and_the_next_film_is_read(film, monkeypatch):
    read_film(film)
    reader = pool._pools[0].idle[-1]
    reader.process.send_signal(signal.SIGSEGV)
    with monkeypatch.context() as patch:
        patch.setattr(reader.process, "poll", lambda: None)  # it dies while it reads
        with pytest.raises(ImageError, match=r"a: its decoder crashed"):
            read_film(film)
    assert np.array_equal(read_image(film), KNEE)


def test_an_interrupt_while_reading_does_not_give_a_film_to_the_next(tmp_path, monkeypatch):
    first, second = (written(tmp_path / name, dicom(pixels)) for name, pixels in (("a", 255 - KNEE), ("b", KNEE)))

    def interrupted(text: str) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pool.json, "loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_film(first)
    assert np.array_equal(read_image(second), KNEE)


def test_threads_and_forks_read_with_readers_of_their_own(tmp_path):
    paths = [written(tmp_path / str(shift), dicom(np.roll(KNEE, shift, 0))) for shift in range(8)]
    read_film(paths[0])
    wrong: list[int] = []

    def read_all() -> None:
        for shift, path in list(enumerate(paths)) * 5:
            if not np.array_equal(read_image(path), np.roll(KNEE, shift, 0)):
                wrong.append(shift)

    threads = [threading.Thread(target=read_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = set(pool._pools[0].readers)
    if (fork := os.fork()) == 0:
        read_all()
        os._exit(len(wrong) + bool(mine & pool._pools[0].readers))
    read_all()
    assert os.waitpid(fork, 0)[1] == 0
    assert not wrong


def test_readers_that_come_and_go_share_the_same_processes(film):
    for expected in (None, len(pool._pools[0].readers) if pool._pools else None):
        for _ in range(4):
            thread = threading.Thread(target=read_film, args=(film,))
            thread.start()
            thread.join()
        if expected is not None:
            assert len(pool._pools[0].readers) == expected


def test_what_is_being_read_for_somebody_who_stops_is_ended_at_once(film):
    stop, errors = pool.Stop(), []
    read_film(film)
    reader = pool._pools[0].idle[-1]
    reader.process.send_signal(signal.SIGSTOP)  # a decoder that never comes to an end

    def read():
        stop.heed()
        for _ in range(2):
            with pytest.raises(ImageError, match="its reading was stopped") as told:
                read_film(film)
            errors.append(told)

    thread = threading.Thread(target=read)
    thread.start()
    while reader.process not in stop._reading:
        time.sleep(0.01)
    stop.set()
    thread.join(timeout=10)
    assert len(errors) == 2
    assert np.array_equal(read_image(film), KNEE)


@needs_linux
def test_no_reader_outlives_a_process_that_is_killed_even_in_a_decoders_work(tmp_path):
    (tmp_path / "slow.jpg").write_bytes(many_scans(3000, (2000, 2000)))
    program = """if True:
        import sys, threading, time
        from pathlib import Path
        from legradnet.data.images import read_film
        from legradnet.data.reading import pool
        threading.Thread(target=read_film, args=(Path(sys.argv[1]),)).start()
        while not (readers := [reader for pool_ in pool._pools for reader in pool_.readers if reader.is_ready]):
            time.sleep(0.01)
        print(readers[0].process.pid, flush=True)
    """
    asker = subprocess.Popen([sys.executable, "-c", program, tmp_path / "slow.jpg"], stdout=subprocess.PIPE)
    reader = Path("/proc", asker.stdout.readline().decode().strip())
    time.sleep(0.2)  # it decodes
    assert state_of(reader) in "RSD"
    asker.kill()
    asker.communicate()
    deadline = time.monotonic() + 1
    while state_of(reader) not in "ZX":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def state_of(process):
    """R, S or D of a process that lives, Z or X of one that has ended."""
    try:
        return process.joinpath("stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return "X"


def test_importing_the_image_reader_does_not_import_pydicom():
    code = "import sys, legradnet.data.images; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_file_is_found_from_another_folder_than_its_readers(tmp_path, monkeypatch):
    film = written(tmp_path / "a", dicom(KNEE))
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(read_image(Path("a")), KNEE)
    with film.open("rb") as file:
        os.dup2(file.fileno(), 50)
    try:
        assert np.array_equal(read_image(Path("/dev/fd/50")), KNEE)
    finally:
        os.close(50)
