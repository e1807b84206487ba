"""Where a cache may be, who may read it, and who is told."""

import errno
import logging
import os
import shutil
import stat
from pathlib import Path

import pytest
from cached_films import SIZE, assert_right, look, repaint

from legradnet.data import cache_files
from legradnet.data.cache import FOLDER, CacheSettings
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.manifest import load_manifest
from legradnet.data.settings import DataSettings
from legradnet.errors import UserError


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


def test_a_system_without_file_locks_has_no_cache_and_says_so(films, monkeypatch, caplog):
    monkeypatch.setattr(cache_files, "fcntl", None)
    monkeypatch.delattr(os, "geteuid")  # as on Windows
    assert look(films).cached is None
    assert not (films / FOLDER).exists()
    assert "this system has no file locks" in caplog.text


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
        if flags & os.O_RDWR and str(path).startswith(str(films)):
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
            DataSettings(
                source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, cache=choice
            )
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
