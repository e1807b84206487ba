"""A film out of the cache is the film in its file, whatever happens to either."""

import errno
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import stat
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conftest import compose
from legradnet.data import cache as caching
from legradnet.data.cache import FOLDER, CacheSettings
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.film import fit_image, thumbnail
from legradnet.data.images import read_film
from legradnet.data.manifest import ManifestError, load_manifest
from legradnet.data.synthetic import write_knees
from legradnet.errors import UserError
from legradnet.training.run import train

SIZE = 40


@pytest.fixture(autouse=True)
def settled(monkeypatch):
    """Films that were written just now count as old; the wait has a test of its own."""
    monkeypatch.setattr(caching, "SETTLED", 0.0)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    write_knees(folder, 60, size=48, seed=5)
    return folder


@pytest.fixture
def films(drawn, tmp_path):
    """60 films of 48 px, each another one."""
    return Path(shutil.copytree(drawn, tmp_path / "films"))


def look(films, **options):
    """Check all films as a run does; give the manifest."""
    settings = {"image_size": SIZE, "fit": "pad", **options}
    return load_manifest(films.resolve(), films / "knees.csv", num_classes=5, cache=CacheSettings(**settings))


def decoded(monkeypatch):
    """A list that grows by each film that is decoded from now on."""
    names = []

    def counting(path):
        names.append(Path(path).name)
        return read_film(path)

    monkeypatch.setattr(caching, "read_film", counting)
    return names


def assert_right(manifest, image_size=SIZE, fit="pad", cached=60):
    """Every film that the cache gives is the one in the file, and so many are there."""
    assert cached == (manifest.cached.count if manifest.cached else 0)
    for row, name in enumerate(manifest.table["filename"] if cached else []):
        film = read_film(manifest.root / name)
        square, small = manifest.cached.square(row), manifest.cached.thumbnail(row)
        assert (square is None) == (small is None) == (manifest.cached.slots[row] < 0)
        if square is not None:
            assert np.array_equal(square, fit_image(film.gray, image_size, fit))
            assert np.array_equal(small.gray, thumbnail(film).gray)


def array_of(films):
    (path,) = films.glob(f"{FOLDER}/*.films")
    return path


def repaint(path, seed=0):
    """Another picture in the file."""
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48), np.uint8)).save(path, "BMP")


# -------------------------------------------------------------------------------------------------------------- reading
@pytest.mark.parametrize("image_size", [SIZE, 48])
def test_films_are_decoded_once_and_come_back_as_they_were(films, monkeypatch, image_size):
    names = decoded(monkeypatch)
    assert_right(look(films, image_size=image_size), image_size)
    assert len(names) == 60
    again = look(films, image_size=image_size)
    assert len(names) == 60
    assert_right(again, image_size)


def test_the_check_finds_the_same_mistakes_in_a_warm_cache(films):
    shutil.copy(films / "S00001L.png", films / "S00002R.png")
    shutil.copy(films / "S00003L.png", films / "S00004L.png")
    (films / "S00005L.png").write_text("no film")
    told = []
    for _ in range(2):
        with pytest.raises(ManifestError) as error:
            look(films)
        told.append(str(error.value))
    assert "equal pixels under two labels" in told[0]
    assert "S00005L.png': not a readable" in told[0]
    assert told[0] == told[1]


def test_training_gives_the_same_numbers_without_with_a_cold_and_with_a_warm_cache(films, tmp_path):
    place = ["data=csv", f"data.dataset_path={films}", f"data.csv_path={films}/knees.csv", "trainer.max_epochs=1"]
    metrics = []
    for name, choice in (("off", "off"), ("cold", "auto"), ("warm", "auto")):
        train(compose(*place, f"data.cache={choice}", "data.num_workers=0"), tmp_path / name)
        assert (films / FOLDER).exists() == (choice == "auto")
        checkpoint = (tmp_path / name / "test_metrics.json").read_text()
        metrics.append(((tmp_path / name / "metrics.csv").read_bytes(), checkpoint))
    assert metrics[0] == metrics[1] == metrics[2]


def test_a_warm_run_opens_no_film(films, monkeypatch):
    def data():
        module = KneeDataModule(
            source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, batch_size=7
        )
        module.setup()
        return module

    data()
    for name in ("legradnet.data.cache.read_film", "legradnet.data.dataset.read_film"):
        monkeypatch.setattr(name, lambda path: pytest.fail("opened"))
    warm = data()
    assert sum(len(batch.rows) for batch in warm.train_dataloader()) > 0
    assert warm.dataset("val").thumbnail(0).gray.shape == (32, 32)


def test_a_process_that_is_started_anew_reads_the_cache_too(films):
    manifest = look(films)
    copy = pickle.loads(pickle.dumps(manifest.cached))
    assert all(np.array_equal(copy.square(row), manifest.cached.square(row)) for row in range(60))


def test_the_colour_of_a_film_is_kept(films):
    tinted = np.zeros((48, 48, 3), np.uint8)
    tinted[..., 0] = 200
    Image.fromarray(tinted).save(films / "S00001L.png")
    for _ in range(2):
        small = look(films).cached.thumbnail(0)
        assert small.colour == read_film(films / "S00001L.png").colour > 0.5


def test_a_header_check_reads_the_cache_and_does_not_build_one(films, monkeypatch):
    names = decoded(monkeypatch)
    options = {"num_classes": 5, "verify": "header", "cache": CacheSettings(SIZE, "pad")}
    assert_right(load_manifest(films.resolve(), films / "knees.csv", **options), cached=0)
    look(films)
    assert_right(load_manifest(films.resolve(), films / "knees.csv", **options))
    assert len(names) == 60


def test_another_list_of_the_films_uses_the_same_cache(films, monkeypatch):
    look(films)
    names = decoded(monkeypatch)
    table = pd.read_csv(films / "knees.csv")
    table.iloc[::-2].to_csv(films / "knees.csv", index=False)
    assert_right(look(films), cached=30)
    assert not names


def test_skipped_films_shift_no_other(films):
    (films / "S00003L.png").write_text("no film")
    options = {"num_classes": 5, "on_bad_image": "skip", "cache": CacheSettings(SIZE, "pad")}
    for _ in range(2):
        assert_right(load_manifest(films.resolve(), films / "knees.csv", **options), cached=59)


# -------------------------------------------------------------------------------------------- changed films, settings
@pytest.mark.parametrize("key", ["stat", "hash"])
def test_a_changed_film_is_decoded_again_and_no_other(films, monkeypatch, key):
    look(films, key=key)
    names = decoded(monkeypatch)
    repaint(films / "S00001L.png")
    assert_right(look(films, key=key))
    assert names == ["S00001L.png"]


def test_a_film_changed_in_the_same_size_with_its_old_time_is_noticed(films):
    for number, name in enumerate(("S00001L.png", "S00001R.png")):
        Image.fromarray(np.full((48, 48), number * 90 + 20, np.uint8)).save(films / name, "BMP")
    before = (films / "S00001L.png").stat()
    look(films)
    content = (films / "S00001R.png").read_bytes()
    (films / "S00001R.png").write_bytes((films / "S00001L.png").read_bytes())
    (films / "S00001L.png").write_bytes(content)
    for name in ("S00001L.png", "S00001R.png"):
        os.utime(films / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (films / "S00001L.png").stat().st_size == before.st_size
    assert_right(look(films))


def test_two_films_that_changed_names_are_told_apart(films):
    look(films)
    for name, new in (("S00001L.png", "x"), ("S00001R.png", "S00001L.png"), ("x", "S00001R.png")):
        (films / name).rename(films / new)
    assert_right(look(films))


def test_the_hash_knows_a_film_by_its_content_alone(films, monkeypatch):
    look(films, key="hash")
    names = decoded(monkeypatch)
    for path in films.glob("*.png"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    assert_right(look(films, key="hash"))
    assert not names


def test_a_film_that_changes_while_it_is_read_is_not_kept(films, monkeypatch):
    def changing(path):
        film = read_film(path)
        if path.name == "S00001L.png":
            repaint(path)
        return film

    monkeypatch.setattr(caching, "read_film", changing)
    assert look(films).cached.count == 59


def test_a_film_that_may_still_change_unseen_is_waited_for(films, monkeypatch):
    monkeypatch.setattr(caching, "SETTLED", 0.7)
    time.sleep(0.8)
    repaint(films / "S00001L.png")
    begun = time.time()
    with monkeypatch.context() as sleepless:
        sleepless.setattr(caching.time, "sleep", lambda seconds: None)
        manifest = look(films)
    if time.time() - begun < 0.6:
        assert_right(manifest, cached=59)
    assert_right(look(films))
    assert time.time() - begun >= 0.7


@pytest.mark.parametrize("setting", [{"image_size": 41}, {"fit": "crop"}, {"fit": "stretch"}])
def test_another_setting_is_another_cache(films, setting):
    for seed, name in enumerate(("S00001L.png", "S00002R.png")):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 70), np.uint8)).save(films / name)
    look(films)
    assert_right(look(films, **setting), **setting)
    assert_right(look(films))


def test_another_version_of_what_reads_films_is_another_cache(films, monkeypatch):
    look(films)
    caching._reading.cache_clear()
    monkeypatch.setattr(caching, "version", lambda name: "99")
    names = decoded(monkeypatch)
    look(films)
    caching._reading.cache_clear()
    assert len(names) == 60


# ------------------------------------------------------------------------------------------ kills, damage, full disks
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
        caching._write = lambda *_: (locked.set(), time.sleep(60))
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
        source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, num_workers=0
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


# ----------------------------------------------------------------------------------------------------------- privacy
def test_nobody_but_the_owner_can_read_the_cache(films, tmp_path):
    old = os.umask(0)
    try:
        look(films)
        look(films, folder=tmp_path / "elsewhere")
    finally:
        os.umask(old)
    for place in (films / FOLDER, *(tmp_path / "elsewhere").iterdir()):
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
        assert {stat.S_IMODE(file.stat().st_mode) for file in place.iterdir()} == {0o600}


def test_a_read_only_data_folder_means_no_cache_and_says_how_to_get_one(films, tmp_path, monkeypatch, caplog):
    mkdir = Path.mkdir

    def read_only(self, *args, **options):
        if self.name == FOLDER:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))
        return mkdir(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", read_only)
    before = set(tmp_path.rglob("*"))
    assert look(films).cached is None
    assert set(tmp_path.rglob("*")) == before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "Read-only file system" in record.message
    assert "data.cache_dir=FOLDER names a place" in record.message
    assert_right(look(films, folder=tmp_path / "named"))
    assert not (films / FOLDER).exists()


def test_a_data_folder_that_is_marked_as_read_only_is_left_alone_even_by_root(films, tmp_path, caplog):
    films.chmod(0o500)
    try:
        assert look(films).cached is None
        assert not (films / FOLDER).exists()
        assert "is marked as read-only" in caplog.text
        assert_right(look(films, folder=tmp_path / "named"))
    finally:
        films.chmod(0o700)


def test_a_cache_in_a_place_that_became_read_only_is_still_read(films, monkeypatch):
    look(films)
    repaint(films / "S00001L.png")
    opening = os.open

    def read_only(path, flags, *args, **options):
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opening(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", read_only)
    assert_right(look(films), cached=59)


@pytest.mark.parametrize("trap", ["link", "open", "file"])
def test_a_folder_that_others_could_enter_is_not_used(films, tmp_path, trap, caplog):
    if trap == "link":
        (tmp_path / "trap").mkdir(mode=0o700)
        (films / FOLDER).symlink_to(tmp_path / "trap")
    elif trap == "open":
        (films / FOLDER).mkdir()
        (films / FOLDER).chmod(0o750)
    else:
        (films / FOLDER).write_text("x")
    assert look(films).cached is None
    assert "not a folder of yours that nobody else may enter" in caplog.text
    assert not (trap == "link" and list((tmp_path / "trap").iterdir()))


def test_a_named_folder_that_cannot_be_used_is_a_told_mistake(films, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"data\.cache_dir=.*file can't hold a cache"):
        look(films, folder=tmp_path / "file")
    with pytest.raises(UserError, match="data.cache_key='name' is not one of stat, hash"):
        look(films, key="name")


def test_two_data_sets_in_one_named_folder_are_kept_apart(films, tmp_path):
    shutil.copytree(films, tmp_path / "twin", copy_function=shutil.copy2)
    for folder in (films, tmp_path / "twin"):
        assert_right(look(folder, folder=tmp_path / "named"))
    assert len(list((tmp_path / "named").iterdir())) == 2


def test_off_writes_nothing_and_the_log_says_where_a_cache_is(films, caplog):
    from legradnet.training.reporting import describe_films

    caplog.set_level(logging.INFO)
    for choice in ("off", "auto"):
        data = KneeDataModule(
            source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, cache=choice
        )
        data.setup()
        describe_films(data)
        assert (films / FOLDER).exists() == (choice == "auto")
        assert (f"60 of 60 films in {films / FOLDER}, 0.2 MB" in caplog.text) == (choice == "auto")


def test_folders_of_films_do_not_list_the_cache(films, caplog):
    from legradnet.data.inputs import list_films

    for name in [path.name for path in films.glob("*.png")]:
        (films / "train/1").mkdir(parents=True, exist_ok=True)
        (films / name).rename(films / "train/1" / name)
    (films / "knees.csv").unlink()
    for _ in range(2):
        manifest = load_manifest(films.resolve(), num_classes=5, cache=CacheSettings(SIZE, "pad"))
        assert len(manifest.table) == len(list_films(films)) == 60
    assert manifest.cached.count == 60
    assert not caplog.records
