"""Processes that read films: they crash, are stopped and shared, and outlive nobody."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from dicom_films import KNEE, written

from hostile_films import dicom
from legradnet.data.film import ImageError
from legradnet.data.images import read_film, read_image
from legradnet.data.reading import pool
from slow_films import many_scans

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux's")


@pytest.fixture
def film(tmp_path):
    """A film that is read apart."""
    return written(tmp_path / "a", dicom(KNEE))


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
