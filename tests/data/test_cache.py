"""A film out of the cache is the film in its file, whatever happens to either."""

import os
import pickle
import shutil
import time

import numpy as np
import pandas as pd
import pytest
from cached_films import SIZE, assert_right, decoded, look, repaint
from PIL import Image

from legradnet.data import cache as caching
from legradnet.data.cache import FOLDER, CacheSettings
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.images import read_film
from legradnet.data.manifest import ManifestError, load_manifest
from legradnet.data.settings import DataSettings
from legradnet.training.run import train
from small_runs import compose


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
            DataSettings(
                source="csv", dataset_path=str(films), csv_path=str(films / "knees.csv"), image_size=SIZE, batch_size=7
            )
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
