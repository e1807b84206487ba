import os
import struct
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from hostile import write_hostile
from legradnet.data import images
from legradnet.data.film import ImageError, fingerprint, fit_image
from legradnet.data.images import check_header, read_film, read_image
from legradnet.data.synthetic import draw_knee

RAMP = np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32)
in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


def saved(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    film = image if isinstance(image, Image.Image) else Image.fromarray(image)
    film.save(path, **options)
    return path


@pytest.mark.parametrize("format", ["png", "tiff", "bmp"])
def test_eight_bit_gray_is_left_as_it_is(tmp_path, format):
    assert np.array_equal(read_image(saved(tmp_path / f"a.{format}", RAMP)), RAMP)


def test_a_jpeg_is_read(tmp_path):
    gray = read_image(saved(tmp_path / "a.jpg", RAMP, quality=95))
    assert gray.dtype == np.uint8
    assert np.abs(gray.astype(int) - RAMP).max() < 10


def test_the_content_and_not_the_ending_decides(tmp_path):
    assert np.array_equal(read_image(saved(tmp_path / "a.dcm", RAMP, format="PNG")), RAMP)


def test_a_picture_can_be_written_to_by_torch(tmp_path):
    assert read_image(saved(tmp_path / "a.png", RAMP)).flags.writeable


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(ImageError, match="not a readable PNG, JPEG, TIFF, BMP or DICOM"):
        read_image(saved(tmp_path / "a.png", RAMP, format="GIF"))


def test_one_bit_becomes_black_and_white(tmp_path):
    assert np.array_equal(read_image(saved(tmp_path / "a.png", RAMP > 99)), np.where(RAMP > 99, 255, 0))


def test_colour_becomes_its_luma(tmp_path):
    colour = np.zeros((20, 20, 3), np.uint8)
    colour[...] = (200, 100, 50)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    film = Image.fromarray(colour)
    for kind in (film, film.convert("RGBA"), film.quantize(4)):
        assert np.unique(read_image(saved(tmp_path / f"{kind.mode}.png", kind))) == pytest.approx(luma, abs=1)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped(tmp_path, mode):
    film = Image.fromarray(RAMP).convert(mode)
    film.putalpha(0)
    assert np.array_equal(read_image(saved(tmp_path / "a.png", film)), RAMP)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i4", "<f4"])
def test_deep_gray_is_stretched_between_its_percentiles(tmp_path, dtype):
    deep = (1000 + 10 * RAMP.astype(float)).astype(dtype)
    deep[0, 0], deep[-1, -1] = 0, 65535  # a marker and a hole must not eat the contrast
    gray = read_image(saved(tmp_path / "a.tiff", deep)).astype(int)
    assert gray[0, 0] == 0
    assert gray[-1, -1] == 255
    assert np.abs(gray - RAMP)[1:-1].max() <= 2


def test_both_byte_orders_and_png_give_the_same_picture(tmp_path):
    deep = 300 + 7 * RAMP.astype(np.uint16)
    files = [
        saved(tmp_path / "little.tiff", deep.astype("<u2")),
        saved(tmp_path / "big.tiff", deep.astype(">u2")),
        saved(tmp_path / "a.png", deep),
    ]
    first, *others = [read_image(file) for file in files]
    assert first.max() == 255
    assert all(np.array_equal(first, other) for other in others)


def test_a_deep_film_where_white_is_zero_is_turned_around(tmp_path):
    deep = 300 + 7 * RAMP.astype(np.uint16)
    plain = read_image(saved(tmp_path / "a.tiff", deep))
    content = (tmp_path / "a.tiff").read_bytes()
    black_is_zero, white_is_zero = (struct.pack("<HHIHH", 262, 3, 1, value, 0) for value in (1, 0))
    assert content.count(black_is_zero) == 1
    (tmp_path / "b.tiff").write_bytes(content.replace(black_is_zero, white_is_zero))
    assert np.array_equal(read_image(tmp_path / "b.tiff"), 255 - plain)


@pytest.mark.filterwarnings("error")
def test_a_constant_deep_film_is_black(tmp_path):
    assert not read_image(saved(tmp_path / "a.png", np.full((20, 20), 4000, np.uint16))).any()


def test_a_nearly_constant_deep_film_keeps_its_contrast(tmp_path):
    deep = np.full((40, 40), 4000, np.uint16)
    deep[0, 0] = 5000
    gray = read_image(saved(tmp_path / "a.png", deep))
    assert gray[0, 0] == 255
    assert gray[1, 1] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_floats_that_are_not_finite_are_refused(tmp_path, value):
    with pytest.raises(ImageError, match="NaN or infinite"):
        read_image(saved(tmp_path / "a.tiff", np.full((20, 20), value, np.float32)))


@pytest.mark.parametrize("ending", ["jpg", "png", "tiff"])
def test_exif_orientation_is_honoured(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter to the right
    gray = read_image(saved(tmp_path / f"a.{ending}", RAMP, exif=exif))
    assert np.abs(gray.astype(int) - np.rot90(RAMP, -1)).max() < 10


def test_the_first_page_of_a_tiff_is_read(tmp_path):
    second = Image.fromarray(255 - RAMP)
    assert np.array_equal(read_image(saved(tmp_path / "a.tiff", RAMP, save_all=True, append_images=[second])), RAMP)


@pytest.mark.parametrize("check", [read_image, check_header])
def test_size_limits_hold_before_decoding(tmp_path, monkeypatch, check):
    path = saved(tmp_path / "a.png", RAMP)
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(images, "MAX_PIXELS", RAMP.size - 1)
    with pytest.raises(ImageError, match=r"a\.png: 32 x 24 is more than 767 pixels"):
        check(path)


@pytest.mark.parametrize("side", [10_000, 60_000])  # Pillow warns about the first and refuses the second
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, side):
    content = bytearray(saved(tmp_path / "a.bmp", RAMP).read_bytes())
    content[18:26] = struct.pack("<ii", side, side)
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(ImageError, match="more than 80,000,000 pixels"):
        read_image(tmp_path / "a.bmp")


def test_a_file_too_large_to_be_a_film_is_not_opened(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", RAMP)
    monkeypatch.setattr(images, "MAX_BYTES", path.stat().st_size - 1)
    with pytest.raises(ImageError, match="the file is larger than"):
        read_image(path)


def test_a_tiny_picture_is_refused(tmp_path):
    with pytest.raises(ImageError, match="100 x 15 is too small"):
        read_image(saved(tmp_path / "a.png", np.zeros((15, 100), np.uint8)))


@pytest.mark.parametrize("check", [read_image, check_header])
def test_what_is_no_image_is_named_with_the_reason(tmp_path, check):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture" * 50)
    os.mkfifo(tmp_path / "pipe.png")
    for path, reason in [
        (tmp_path / "missing.png", "No such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "empty.png", "is empty"),
        (tmp_path / "text.png", "not a readable PNG"),
        (tmp_path / "pipe.png", "not a regular file"),
        (tmp_path / "nul\0.png", "null"),
        (tmp_path / ("n" * 1000), "too long"),
    ]:
        with pytest.raises(ImageError, match=reason) as told:
            check(path)
        assert str(path) in str(told.value)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError(), KeyError(3)])
def test_no_error_of_reading_escapes(tmp_path, monkeypatch, error):
    def load(self):
        raise error

    monkeypatch.setattr(Image.Image, "convert", load)
    with pytest.raises(ImageError, match=r"a\.png"):
        read_image(saved(tmp_path / "a.png", RAMP))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@in_tmp_path
@given(st.sampled_from(["png", "jpg", "tiff", "bmp"]), st.floats(0, 1), st.booleans(), st.binary(min_size=1))
def test_damage_is_an_image_error_or_harmless(tmp_path, format, at, cut, junk):
    content = saved(tmp_path / f"whole.{format}", RAMP).read_bytes()
    place = int(at * (len(content) - 1))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(content[:place] if cut else content[:place] + junk + content[place + len(junk) :])
    try:
        gray = read_image(damaged)
    except ImageError:
        return
    assert gray.dtype == np.uint8
    if cut:  # only what follows the pixels may be missing
        assert np.array_equal(gray, read_image(tmp_path / f"whole.{format}"))


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
        (np.broadcast_to(np.uint8(0), (9500, 9500)), "9500 x 9500 is more than"),
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


# ------------------------------------------------------------------------------------------------------- hostile files
@pytest.mark.filterwarnings("ignore")
def test_every_hostile_file_is_a_film_or_an_error_within_five_seconds(tmp_path):
    (tmp_path / "films").mkdir()
    hostile = write_hostile(tmp_path / "films", draw_knee(0.4, "L", np.random.default_rng(0), size=96))
    assert len(hostile) >= 200
    for path in hostile:
        start = time.monotonic()
        try:
            film = read_film(path)
        except ImageError as error:
            assert str(path) in str(error)
            assert "Secret" not in str(error)
        else:
            assert film.gray.dtype == np.uint8
            assert min(film.gray.shape) >= images.MIN_SIDE
        assert time.monotonic() - start < 5, path.name


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
