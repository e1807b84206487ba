"""Kills, damage, full disks: a film out of the cache is still the film in its file."""

import errno
import multiprocessing
import os
import shutil
import signal
import time

import numpy as np
import pytest
from cached_films import SIZE, array_of, assert_right, decoded, look, repaint

from legradnet.data import cache as caching
from legradnet.data import cache_files
from legradnet.data.cache import FOLDER, CacheSettings, opened_cache
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.film import fit_image
from legradnet.data.images import read_film
from legradnet.data.settings import DataSettings


def _build(films, options, begin):
    caching.SETTLED = 0.0
    caching._PENDING = 1  # each film is appended at once
    write = os.pwrite
    os.pwrite = lambda *where: (time.sleep(0.002), write(*where))[1]  # without a lock the others come in between
    begin.wait()
    look(films, **options)


@pytest.mark.parametrize("writers", [2, 3])
def test_processes_that_build_at_once_share_the_work(films, writers):
    context = multiprocessing.get_context("fork")
    begin = context.Barrier(writers)
    processes = [context.Process(target=_build, args=(films, {}, begin)) for _ in range(writers)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert_right(look(films))
    slot = SIZE**2 + 32**2
    assert array_of(films).stat().st_size == 60 * slot  # no film is there twice


@pytest.mark.parametrize("after", [1, 7, 20])
def test_a_build_killed_at_any_moment_leaves_only_right_films(films, monkeypatch, after):
    def dying():
        caching.SETTLED, caching._PENDING = 0.0, 1
        write, calls = os.pwrite, iter(range(1000))

        def pwrite(file, content, position):
            if next(calls) >= after:
                write(file, content[: len(content) // 2], position)
                os.kill(os.getpid(), signal.SIGKILL)
            return write(file, content, position)

        os.pwrite = pwrite
        look(films)

    process = multiprocessing.get_context("fork").Process(target=dying)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    names = decoded(monkeypatch)
    assert_right(look(films))
    assert len(names) == 60 - after // 3  # what it had done is kept


def test_a_build_killed_from_outside_blocks_nobody(films):
    context = multiprocessing.get_context("fork")
    locked = context.Event()

    def holding():
        caching.SETTLED = 0.0
        cache_files._write = lambda *_: (locked.set(), time.sleep(60))
        look(films)

    process = context.Process(target=holding)
    process.start()
    assert locked.wait(30)
    process.kill()
    process.join(10)
    assert_right(look(films))


@pytest.mark.parametrize("part", ["films", "index"])
@pytest.mark.parametrize("share", [0.0, 0.37, 0.995])
def test_a_file_that_was_cut_off_gives_no_wrong_film(films, part, share):
    look(films)
    path = array_of(films).with_suffix(f".{part}")
    os.truncate(path, int(path.stat().st_size * share))
    assert_right(look(films))


@pytest.mark.parametrize("part", ["films", "index"])
def test_a_flipped_bit_gives_no_wrong_film(films, part):
    look(films)
    path = array_of(films).with_suffix(f".{part}")
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), len(content) // 50):
        content[place] ^= 1 << place % 8
    path.write_bytes(content)
    manifest = look(films)
    for row, name in enumerate(manifest.table["filename"]):
        square = manifest.cached.square(row)
        assert square is None or np.array_equal(square, fit_image(read_film(films / name).gray, SIZE, "pad"))


def test_a_damaged_cache_is_told_once_and_the_films_are_read_from_their_files(films, caplog):
    data = KneeDataModule(
        DataSettings(
            source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, num_workers=0
        )
    )
    data.setup()
    array_of(films).write_bytes(b"")
    for batch in data.val_dataloader():
        for film, row in zip(batch.films, batch.rows.tolist(), strict=True):
            path = films / data.table["filename"].iloc[row]
            assert np.array_equal(film[0].numpy(), fit_image(read_film(path).gray, SIZE, "pad"))
    assert sum("is damaged or gone" in record.message for record in caplog.records) == 1


def test_the_cache_may_be_deleted_while_it_is_read(films):
    manifest = look(films)
    shutil.rmtree(films / FOLDER)
    assert_right(manifest)


def test_a_full_disk_leaves_no_cache_and_says_so(films, monkeypatch, caplog):
    write, room = os.pwrite, [20 * (SIZE**2 + 32**2)]

    def pwrite(file, content, position):
        taken = min(len(content), room[0])
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= taken
        return write(file, content[:taken], position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    monkeypatch.setattr(caching, "_PENDING", 10_000)
    assert look(films).cached is None
    assert not list((films / FOLDER).iterdir())
    (record,) = caplog.records
    assert "Films are not cached" in record.message
    assert "No space left on device" in record.message
    assert "data.cache_dir=FOLDER" in record.message


def test_a_disk_that_fills_up_later_costs_no_film_of_an_older_cache(films, monkeypatch):
    look(films)
    size = array_of(films).stat().st_size
    repaint(films / "S00001L.png")

    write, room = os.pwrite, [100]

    def pwrite(file, content, position):
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, content[: room.pop()], position)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert_right(look(films), cached=59)
    assert array_of(films).stat().st_size == size


def test_a_disk_that_fills_up_costs_no_film_that_another_process_has_cached(films, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    settings = CacheSettings(image_size=SIZE, fit="pad")
    with opened_cache(films.resolve(), settings) as ours:  # the first there, but the other is faster
        look(films)
        ours.look(str(films.resolve() / "S00001L.png"))
        monkeypatch.setattr(os, "pwrite", refuse)
        repaint(films / "S00001L.png")
        ours.look(str(films.resolve() / "S00001L.png"))
    monkeypatch.undo()
    assert array_of(films).stat().st_size == 60 * (SIZE**2 + 32**2)


def test_what_the_system_writes_in_parts_is_whole_in_the_end(films, monkeypatch):
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, content, position: write(file, content[:1000], position))
    assert_right(look(films))


def test_a_cache_takes_at_most_half_of_the_free_space(films, monkeypatch, caplog):
    class Space:
        f_bavail, f_frsize = 60 * (SIZE**2 + 32**2), 2

    monkeypatch.setattr(os, "statvfs", lambda path: Space)
    assert_right(look(films))
    shutil.rmtree(films / FOLDER)
    Space.f_frsize = 1
    assert look(films).cached is None
    assert "more than half of the free space" in caplog.text
