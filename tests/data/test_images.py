import os
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import RAMP, saved
from PIL import Image

from hostile_films import write_hostile
from legradnet.data import images
from legradnet.data.drawn_knee import draw_knee
from legradnet.data.film import MIN_SIDE, ImageError
from legradnet.data.images import check_header, read_film, read_image

in_tmp_path = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


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


def test_of_several_pages_the_first_is_read_and_that_is_told(tmp_path):
    pages = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    pages[0].save(tmp_path / "a.tiff", save_all=True, append_images=pages[1:])
    film = read_film(tmp_path / "a.tiff")
    assert np.array_equal(film.gray, RAMP)
    assert film.remarks == ("the first of several pages",)
    assert not read_film(saved(tmp_path / "b.tiff", RAMP)).remarks


def test_threads_may_read_one_image_that_nobody_has_looked_into(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 900), np.uint8)
    path = saved(tmp_path / "a.png", noise)
    for _ in range(10):
        with Image.open(path) as image, ThreadPoolExecutor(4) as pool:
            assert all(np.array_equal(film.gray, noise) for film in pool.map(read_film, [image] * 4))


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
    monkeypatch.setattr("legradnet.data.film.MAX_PIXELS", RAMP.size - 1)
    with pytest.raises(ImageError, match=r"a\.png: 32 x 24 is more than 767 pixels"):
        check(path)


@pytest.mark.parametrize("side", [10_001, 60_000])  # Pillow warns about the first and refuses the second
@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused(tmp_path, side):
    content = bytearray(saved(tmp_path / "a.bmp", RAMP).read_bytes())
    content[18:26] = struct.pack("<ii", side, side)
    (tmp_path / "a.bmp").write_bytes(content)
    with pytest.raises(ImageError, match="more than 100,000,000 pixels"):
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
        (tmp_path / "nul\0.png", "no such file can exist"),
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
            assert min(film.gray.shape) >= MIN_SIDE
        assert time.monotonic() - start < 5, path.name
