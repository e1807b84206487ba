"""A film keeps its depth where that is asked for, and its window shows what the network sees."""

import numpy as np
import pytest
from dicom_films import dicom, written
from PIL import Image

from legradnet.data.depth import deep_of, depth_kept
from legradnet.data.film import stretch_range
from legradnet.data.images import read_film


def ramp(low=300, high=3800, size=64):
    """A film [size, size] with all values from `low` to `high`."""
    return np.linspace(low, high, size * size).reshape(size, size).astype(np.uint16)


def through(deep):
    """The film as its window shows it."""
    seen = (deep.values.astype(np.float64) - (deep.centre - deep.width / 2)) / deep.width
    return np.clip(np.rint(seen * 255), 0, 255)


def assert_shows(deep, gray, within=1):
    assert np.abs(through(deep) - gray).max() <= within


@pytest.mark.parametrize("values", [ramp(), ramp() / 1e6, ramp().astype(np.int32) * 1000, -ramp().astype(np.int32)])
def test_a_stretched_film_keeps_its_depth_and_its_window_is_the_stretch(values):
    with depth_kept():
        deep = deep_of(values, stretch_range(values))
    assert len(np.unique(deep.values)) == len(np.unique(values))
    assert_shows(deep, stretch_range(values))


def test_a_turned_film_is_bright_where_it_is_dense():
    gray = 255 - stretch_range(ramp())
    with depth_kept():
        deep = deep_of(ramp(), gray)
    assert deep.values[0, 0] > deep.values[-1, -1]
    assert_shows(deep, gray)


def test_what_a_table_made_gray_is_shown_as_the_table_has_it_and_keeps_its_order():
    gray = np.rint(255 * np.sqrt((ramp() - 300.0) / 3500)).astype(np.uint8)
    with depth_kept():
        deep = deep_of(ramp(), gray)
    assert (deep.values >> 8 == gray).all()
    assert (np.diff(deep.values.reshape(-1).astype(int))[np.diff(ramp().reshape(-1).astype(int)) > 0] > 0).mean() > 0.9


def test_padding_is_black_in_the_depth_too():
    values, gray = ramp(), stretch_range(ramp())
    values[:8], gray[:8] = 60_000, 0
    with depth_kept():
        deep = deep_of(values, gray)
    assert deep.values[:8].max() == 0
    assert_shows(deep, gray)


def test_depth_is_nobodys_who_did_not_ask_for_it():
    assert deep_of(ramp(), stretch_range(ramp())) is None


@pytest.mark.parametrize("interpretation", ["MONOCHROME1", "MONOCHROME2"])
def test_a_dicom_film_comes_with_its_depth_from_the_process_that_reads_it(tmp_path, interpretation):
    window = {"WindowCenter": 2000, "WindowWidth": 1000, "BitsStored": 12, "HighBit": 11}
    path = written(tmp_path / "film.dcm", dicom(ramp(), PhotometricInterpretation=interpretation, **window))
    plain = read_film(path)
    with depth_kept():
        film = read_film(path)
    assert (film.gray == plain.gray).all() and plain.deep is None
    assert film.deep.bits == 12 and len(np.unique(film.deep.values)) == 3501  # also outside of its window
    assert_shows(film.deep, film.gray)


def test_a_16_bit_png_keeps_its_depth_and_an_8_bit_one_has_none(tmp_path):
    Image.fromarray(ramp()).save(tmp_path / "deep.png")
    Image.fromarray(stretch_range(ramp())).save(tmp_path / "gray.png")
    with depth_kept():
        assert_shows(read_film(tmp_path / "deep.png").deep, stretch_range(ramp()))
        assert read_film(tmp_path / "gray.png").deep is None
