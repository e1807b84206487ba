"""A header that its data contradict: the film looks as its data say, and what was not believed is told."""

import io

import numpy as np
import pydicom
import pytest
from contradicted import PIXELS, RIGHT, WINDOW, film, is_right, written_as
from dicom_films import DEEP, KNEE
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hostile_films import dicom, dicom_bytes
from legradnet.data.dicom.elements import numbers
from legradnet.data.dicom.film import film_of_dicom, open_dicom
from legradnet.data.images import read_film

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # files here are wrong on purpose


# ------------------------------------------------------------------------------------------------------------- windows
@pytest.mark.parametrize(
    ("centre", "width"),
    [
        ("30000", "100"),
        ("-500", "100"),
        ("32768", "65536"),
        ("2048", "0"),
        ("2048", "-4096"),
        ("2048", "nan"),
        ("2048", ""),
        ("", "4096"),
    ],
)
def test_a_window_that_shows_nothing_gives_way_to_the_next_and_then_to_the_values(centre, width):
    told = ("its window can't be used and was ignored",)
    alone = film(WindowCenter=centre, WindowWidth=width)
    assert np.array_equal(alone.gray, film(WindowCenter=None, WindowWidth=None).gray)
    assert (alone.remarks, alone.doubts) == (told, ())
    if centre and width:
        second = film(WindowCenter=[centre, "2048"], WindowWidth=[width, "4096"])
        assert is_right(second, off=0)
        assert (second.remarks, second.doubts) == (told, ())


@pytest.mark.parametrize("interpretation", ["", "RGB", "YBR_FULL", "SOMETHING"])
def test_gray_that_is_said_to_be_something_else_is_read_as_it_is_and_in_doubt(interpretation):
    read = film(PhotometricInterpretation=interpretation)
    assert is_right(read, off=0)
    assert "MONOCHROME2 was assumed" in read.doubts[0]
    assert not film(PhotometricInterpretation="monochrome2 ").doubts


def test_a_window_that_shows_a_dark_film_dark_is_believed():
    for width in ("6000", "30000"):
        read = film(WindowWidth=width)
        assert not read.remarks
        assert np.ptp(read.gray.astype(int)) < np.ptp(RIGHT.astype(int))


def test_a_film_without_contrast_is_stretched_and_in_doubt():
    hardly = (2000 + np.random.default_rng(0).normal(0, 5, PIXELS.shape)).astype(np.uint16)
    assert "hardly any contrast" in film(hardly).doubts[0]
    blank = film(PIXELS * 0 + 7)
    assert blank.doubts == ("blank: all its pixels are the same",)


# ----------------------------------------------------------------------------------------------------------- decimals
@pytest.mark.parametrize("text", ["4096,0", "4096,0\\7,5", "4.096,0", "4,096.0", " +4096,00", "4096.", "4,096E3"])
def test_a_decimal_comma_in_a_window_is_one(text):
    read = written_as(text, "WindowWidth", WindowCenter=["2048"] + ["9"] * text.count("\\"))
    assert is_right(read, off=0)
    assert not read.remarks


def test_a_decimal_comma_is_read_in_every_number_of_a_film():
    half = {"WindowCenter": "1024", "WindowWidth": "2048"}
    assert is_right(written_as("0,5", "RescaleSlope", RescaleIntercept="0", **half))
    assert is_right(written_as("1000,0", "RescaleIntercept", RescaleSlope="1", WindowCenter="3048"), off=0)
    assert is_right(written_as("2048,0", "WindowCenter"), off=0)
    assert is_right(written_as("1,0", "NumberOfFrames", "IS"), off=0)


@pytest.mark.parametrize("name", ["RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"])
def test_words_in_a_number_are_ignored_and_told(name):
    others = {"RescaleSlope": "1", "RescaleIntercept": "0"} if "Rescale" in name else {}
    assert len(written_as("12 HU", name, **others).remarks) == 1


@settings(max_examples=200, deadline=None)
@given(st.floats(-1e9, 1e9), st.sampled_from(["", " ", "\0"]), st.integers(1, 3))
def test_a_number_is_the_same_with_a_point_and_a_comma(value, mark, count):
    points = [f"{value:.6f}{mark}"] * count
    commas = [text.replace(".", ",") for text in points]
    for values in (points, commas, "\\".join(commas), "\\".join(commas).encode()):
        assert numbers({"a": values}, "a") == [float(f"{value:.6f}")] * count


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0123456789.,+-eE \0x", max_size=9))
def test_whatever_stands_for_a_number_is_one_or_none(text):
    assert all(isinstance(value, float) for value in numbers({"a": text}, "a"))


# ---------------------------------------------------------------------------------------------------------------- bits
@pytest.mark.parametrize("high", [11, 12, 13, 15])
def test_pixels_stand_where_high_bit_says(high):
    read = film(PIXELS << (high - 11), HighBit=high)
    assert is_right(read, off=0)
    assert not read.remarks


def test_an_overlay_in_the_other_bits_is_left_out():
    overlay = np.zeros(PIXELS.shape, np.uint16)
    overlay[10:30, 10:12] = overlay[20:40, 30:50] = 1
    for bit in (12, 13, 14, 15):
        assert is_right(film(PIXELS | overlay << bit), off=0)
    read = film(PIXELS << 2 | overlay << 15 | overlay | overlay << 1, HighBit=13)
    assert is_right(read, off=0)
    assert "perhaps an overlay, were left out" in read.remarks[0]
    assert not read.doubts


@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (PIXELS, {"HighBit": 15}),
        *((DEEP, {"HighBit": high}) for high in (12, 13, 15)),  # their lowest bits are 0
        (PIXELS << 4, {}),
        (PIXELS, {"HighBit": 40}),
        (PIXELS, {"HighBit": 3}),
    ],
)
def test_a_high_bit_that_the_pixels_contradict_is_ignored_and_told(pixels, elements):
    read = film(pixels, **elements)
    assert np.array_equal(read.gray, film(DEEP).gray if pixels is DEEP else RIGHT)
    assert read.remarks == ("its HighBit contradicts its pixels and was ignored",)
    assert not read.doubts


@pytest.mark.parametrize("stored", [8, 10, 11])
def test_pixels_with_more_bits_than_stated_are_read_whole(stored):
    read = film(BitsStored=stored)
    assert is_right(read, off=0)
    assert read.remarks == ("its pixels have more bits than its BitsStored says",)


def test_bits_that_may_be_either_put_the_film_in_doubt():
    deep = (KNEE.astype(np.uint16) << 8) + np.random.default_rng(0).integers(0, 256, KNEE.shape).astype(np.uint16)
    assert "may be an overlay or part of them" in film(deep, BitsStored=8).doubts[0]


@pytest.mark.parametrize(
    ("pixels", "elements"),
    [
        (PIXELS.astype(np.int16), {}),  # unsigned values that are said to be signed
        ((PIXELS.astype(np.int16) - 2048).view(np.uint16), {"WindowCenter": "0"}),
        ((PIXELS.astype(np.int16) - 2048).view(np.uint16), {"WindowCenter": "0", "BitsStored": 16}),
    ],
)
def test_a_sign_that_the_pixels_contradict_is_ignored_and_told(pixels, elements):
    read = film(pixels, **elements)
    assert is_right(read, off=0)
    assert read.remarks == ("its PixelRepresentation contradicts its pixels and was ignored",)
    assert not read.doubts


def test_signed_pixels_may_be_cut_to_their_bits():
    cut = ((PIXELS.astype(np.int16) - 2048).view(np.uint16) & 4095).view(np.int16)
    read = film(cut, WindowCenter="0")
    assert is_right(read, off=0)
    assert not read.remarks


def test_white_letters_and_a_white_frame_are_no_signs():
    lettered = PIXELS // 4
    lettered[5:20, ::3] = lettered[:, -4:] = 4095
    assert not film(lettered).remarks
    assert not film(lettered, BitsStored=16).remarks


# -------------------------------------------------------------------------------------------------- padding and frames
@pytest.mark.parametrize(
    "elements", [{"PixelPaddingValue": 0, "PixelPaddingRangeLimit": 4095}, {"PixelPaddingValue": 4095}]
)
def test_padding_that_leaves_nothing_is_ignored_and_told(elements):
    pixels = PIXELS if len(elements) == 2 else np.where(KNEE > 234, PIXELS, 4095).astype(np.uint16)
    assert film(pixels, **elements).remarks == ("its padding value can't be used and was ignored",)


def test_frames_that_are_not_there_are_not_told_and_more_than_stated_put_the_film_in_doubt():
    assert not film(NumberOfFrames="3").remarks
    assert film(np.concatenate([PIXELS] * 2), Rows=len(KNEE), NumberOfFrames="3").remarks == ("the first of 2 frames",)
    doubled = film(np.concatenate([PIXELS] * 2), Rows=len(KNEE))
    assert "far longer than its rows and columns" in doubled.doubts[0]
    dataset = dicom(PIXELS, **WINDOW)
    dataset.PixelData += bytes(6000)
    assert not film_of_dicom(*open_dicom(io.BytesIO(dicom_bytes(dataset)))).doubts


def test_sides_that_contradict_each_other_are_told():
    for names in (("ImageLaterality", "Laterality"), ("Laterality", "ImageLaterality")):
        read = film(**dict(zip(names, "LR", strict=True)))
        assert read.side == ("L" if names[0] == "ImageLaterality" else "R")
        assert "laterality contradict" in read.remarks[0]
    assert not film(ImageLaterality="L", Laterality="L").remarks + film(ImageLaterality="L", Laterality="").remarks


# --------------------------------------------------------------------------------------------------- without a preamble
FORMS = {  # of what dcmwrite gives: preamble, DICM, group 2 with its length (12 bytes), the data
    "no preamble": lambda whole, data: whole[128:],
    "no DICM": lambda whole, data: bytes(128) + whole[132:],
    "group 2 first": lambda whole, data: whole[132:],
    "group 2 without its length": lambda whole, data: whole[144:],
    "data first": lambda whole, data: data,
    "DICM and data": lambda whole, data: bytes(128) + b"DICM" + data,
    "data behind zeros": lambda whole, data: bytes(128) + data,
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_a_file_is_known_by_its_content_however_it_begins(tmp_path, form, syntax):
    whole = dicom_bytes(dicom(PIXELS, syntax, **WINDOW))
    data = whole[144 + int.from_bytes(whole[140:144], "little") :]
    (tmp_path / "a.dcm").write_bytes(FORMS[form](whole, data))
    assert np.array_equal(read_film(tmp_path / "a.dcm").gray, RIGHT)


def test_deflated_data_are_known_without_a_preamble(tmp_path):
    whole = dicom_bytes(dicom(PIXELS, pydicom.uid.DeflatedExplicitVRLittleEndian, **WINDOW))
    for start in (128, 132, 144):
        (tmp_path / "a.dcm").write_bytes(whole[start:])
        assert np.array_equal(read_film(tmp_path / "a.dcm").gray, RIGHT)
