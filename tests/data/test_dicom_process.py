"""DICOM is read in a process of its own, which may crash, hang or be interrupted."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from dicom_films import KNEE, written

from hostile_films import dicom
from legradnet.data.dicom import process as reader
from legradnet.data.film import ImageError
from legradnet.data.images import read_film, read_image


def test_a_reader_that_crashes_is_an_error_and_the_next_film_is_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a", dicom(KNEE))
    read_film(path)
    child = reader._IDLE.get_nowait()
    reader._IDLE.put(child)
    process = child.process
    assert process is not None
    process.kill()
    process.wait()
    with monkeypatch.context() as patch:
        patch.setattr(process, "poll", lambda: None)  # it dies while it reads
        with pytest.raises(ImageError, match=r"a: its decoder crashed"):
            read_film(path)
    assert np.array_equal(read_image(path), KNEE)


def test_a_film_that_takes_too_long_is_an_error(tmp_path):
    path = written(tmp_path / "a", dicom(KNEE))
    code = (
        "import time; from pathlib import Path; from legradnet.data.dicom import process; process.SECONDS = 0.3;"
        "process.open_dicom = lambda file: time.sleep(60); process.serve()"
    )
    asked = json.dumps([str(path), True]).encode() + b"\n"
    child = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, timeout=30)
    assert child.returncode == 1
    assert child.stdout == b"ready\n"


def test_an_interrupt_while_reading_does_not_give_a_film_to_the_next(tmp_path, monkeypatch):
    first, second = (written(tmp_path / name, dicom(pixels)) for name, pixels in (("a", 255 - KNEE), ("b", KNEE)))

    def interrupted(text: str) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reader.json, "loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_film(first)
    assert np.array_equal(read_image(second), KNEE)


def test_threads_and_forks_read_with_a_child_of_their_own(tmp_path):
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
    if (fork := os.fork()) == 0:
        read_all()
        os._exit(len(wrong))
    read_all()
    assert os.waitpid(fork, 0)[1] == 0
    assert not wrong


def test_importing_the_image_reader_does_not_import_pydicom():
    code = "import sys, legradnet.data.images; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_readers_that_come_and_go_share_the_same_processes(tmp_path):
    path = written(tmp_path / "a", dicom(KNEE))
    for _ in range(4):
        thread = threading.Thread(target=read_film, args=(path,))
        thread.start()
        thread.join()
    before = reader._IDLE.qsize()
    for _ in range(4):
        thread = threading.Thread(target=read_film, args=(path,))
        thread.start()
        thread.join()
    assert reader._IDLE.qsize() == before
