"""Looking at films through the cache, and what has to be true of what it gives."""

from pathlib import Path

import numpy as np
from PIL import Image

from legradnet.data import cache as caching
from legradnet.data.cache import FOLDER, CacheSettings
from legradnet.data.film import fit_image, thumbnail
from legradnet.data.images import read_film
from legradnet.data.manifest import load_manifest

SIZE = 40


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
