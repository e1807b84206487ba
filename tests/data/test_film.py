"""Films in memory, whatever file they came from: fitted to a square, fingerprinted, measured."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import RAMP, saved
from PIL import Image

from legradnet.data.film import ImageError, fingerprint, fit_image
from legradnet.data.images import read_film, read_image


def test_a_fingerprint_is_of_the_picture_and_not_of_the_file(tmp_path):
    first, *others = [
        fingerprint(read_image(saved(tmp_path / name, image)))
        for name, image in [("a.png", RAMP), ("b.bmp", RAMP), ("c.png", RAMP.reshape(32, 24)), ("d.png", 255 - RAMP)]
    ]
    assert [first == other for other in others] == [True, False, False]


# ------------------------------------------------------------------------------------------------ pictures in memory
def test_an_image_in_memory_reads_as_its_file(tmp_path):
    for image in (Image.fromarray(RAMP), Image.fromarray(300 + 7 * RAMP.astype(np.uint16)), Image.fromarray(RAMP > 99)):
        assert np.array_equal(read_film(image).gray, read_image(saved(tmp_path / "a.png", image)))


@pytest.mark.parametrize("channels", [3, 4])
def test_an_array_of_colour_reads_as_its_file(tmp_path, channels):
    colour = np.random.default_rng(0).integers(0, 256, (20, 30, channels), np.uint8)
    assert np.array_equal(read_film(colour).gray, read_image(saved(tmp_path / "a.png", colour)))


def test_an_eight_bit_gray_array_is_left_as_it_is_and_not_shared():
    film = read_film(RAMP[:, ::-1])
    assert np.array_equal(film.gray, RAMP[:, ::-1])
    film.gray[:] = 0
    assert RAMP.any()


@pytest.mark.parametrize("dtype", ["u2", "i2", ">u2", "i8", "f2", "f8"])
def test_a_deep_array_is_stretched_as_a_deep_file(tmp_path, dtype):
    deep = (10 * RAMP.astype(int) - (0 if "u" in dtype else 800)).astype(dtype)
    expected = read_image(saved(tmp_path / "a.tiff", deep.astype(np.float32)))
    assert np.array_equal(read_film(deep).gray, expected)
    colour = read_film(np.dstack([deep] * 3))
    assert np.abs(colour.gray.astype(int) - expected).max() <= 1  # percentiles of three times the values
    assert colour.colour == 0
    opaque = np.full(deep.shape, 30_000, dtype)
    assert np.array_equal(read_film(np.dstack([deep] * 3 + [opaque])).gray, colour.gray)


def test_an_array_of_booleans_is_black_and_white():
    assert np.array_equal(read_film(RAMP > 99).gray, np.where(RAMP > 99, 255, 0))
    assert (read_film(RAMP >= 0).gray == 255).all()


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (np.zeros(100), r"given ndarray: has shape \[100\]"),
        (np.zeros((20, 20, 2)), r"shape \[20, 20, 2\]"),
        (np.zeros((1, 20, 20)), r"shape \[1, 20, 20\]"),
        (np.zeros((20, 15)), "15 x 20 is too small"),
        (np.broadcast_to(np.uint8(0), (10_001, 10_000)), "10000 x 10001 is more than"),
        (np.full((20, 20), np.nan), "NaN or infinite"),
        (np.full((20, 20, 3), np.inf), "NaN or infinite"),
        (np.tile([-1.7e308, 1.7e308], (20, 10)), "too large values"),
        (np.zeros((20, 20), complex), "holds complex128"),
        (np.full((20, 20), "x"), "holds <U1"),
        (Image.new("L", (10, 20)), "given Image: 10 x 20 is too small"),
        ("a.png", "given str: is not a path, a PIL image or a numpy array"),
        (None, "is not a path"),
    ],
)
def test_what_in_memory_is_no_picture_is_told_with_the_reason(source, reason):
    with pytest.raises(ImageError, match=reason):
        read_film(source)


def test_colour_is_measured_before_it_is_lost(tmp_path):
    colour = np.full((20, 20, 3), (200, 100, 50), np.uint8)
    for source in (colour, Image.fromarray(colour), saved(tmp_path / "a.png", colour)):
        assert read_film(source).colour == pytest.approx(150 / 255)
    assert read_film(Image.fromarray(colour).quantize(4)).colour == pytest.approx(150 / 255, abs=0.01)
    assert read_film(Image.fromarray(colour).convert("CMYK")).colour == pytest.approx(150 / 255, abs=0.01)


def test_gray_has_no_colour_in_whichever_mode():
    for mode in ("L", "LA", "RGB", "RGBA", "P", "1", "I", "F"):
        assert read_film(Image.fromarray(RAMP).convert(mode)).colour == 0.0


# ------------------------------------------------------------------------------------------------------------- fitting
def white(height: int, width: int) -> np.ndarray:
    return np.full((height, width), 255, np.uint8)


def test_pad_keeps_the_aspect_and_centres_on_black():
    fitted = fit_image(white(100, 50), 40, "pad")
    assert (fitted[:, 10:30] == 255).all()
    assert not fitted[:, :10].any()
    assert not fitted[:, 30:].any()


def test_crop_takes_the_centre():
    film = np.concatenate([white(20, 40), np.full((40, 40), 7, np.uint8), white(20, 40)])
    assert (fit_image(film, 40, "crop") == 7).all()


def test_stretch_ignores_the_aspect():
    film = np.concatenate([white(40, 10), np.zeros((40, 70), np.uint8)], axis=1)
    fitted = fit_image(film, 16, "stretch")
    assert (fitted[:, 0] == 255).all()
    assert not fitted[:, 3:].any()


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))
    assert np.abs(fit_image(stripes, 8, "stretch").astype(int) - 127).max() < 16


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_a_picture_of_the_right_size_is_unchanged(fit):
    square = RAMP[:24, :24]
    assert np.array_equal(fit_image(square, 24, fit), square)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 50), st.sampled_from(["pad", "crop", "stretch"]))
def test_every_shape_fits(height, width, size, fit):
    fitted = fit_image(white(height, width), size, fit)
    assert fitted.shape == (size, size)
    assert fitted.dtype == np.uint8
    assert fitted.max() == 255


def test_a_very_long_film_cannot_exhaust_the_memory():
    assert fit_image(white(16, 1_000_000), 224, "crop").shape == (224, 224)


def test_an_unknown_fit_lists_the_choices():
    with pytest.raises(ValueError, match="pad, crop, stretch"):
        fit_image(RAMP, 24, "squash")  # type: ignore[arg-type]
