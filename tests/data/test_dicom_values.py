"""From stored values to brightness: lookup tables, windows, padding, inversion."""

import numpy as np
import pytest
from dicom_films import DEEP, KNEE, film_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from legradnet.data.dicom.gray import windowed

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # files here are wrong on purpose


quick = settings(max_examples=40, deadline=None)


def lut(entries: list[int], first: int, bits: int, dtype: str = "<u2") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, dtype).tobytes())
    return Sequence([item])


def test_monochrome1_is_inverted_exactly_once():
    for pixels in (255 - KNEE, (255 - KNEE).astype(np.uint16) * 16):
        for shape in ({}, {"PresentationLUTShape": "INVERSE"}):
            film = film_of(pixels, PhotometricInterpretation="MONOCHROME1", **shape)
            assert np.corrcoef(film.gray.ravel(), KNEE.ravel())[0, 1] > 0.99
            assert not film.remarks


def test_monochrome1_is_inverted_after_its_window():
    window = {"WindowCenter": "64", "WindowWidth": "128", "VOILUTFunction": "LINEAR_EXACT"}
    plain, inverted = (film_of(KNEE, PhotometricInterpretation=f"MONOCHROME{n}", **window).gray for n in (2, 1))
    assert np.array_equal(inverted, 255 - plain)


def test_a_presentation_lut_shape_that_contradicts_is_believed_and_told():
    turned = film_of(255 - KNEE, PresentationLUTShape="INVERSE")
    left = film_of(KNEE, PhotometricInterpretation="MONOCHROME1", PresentationLUTShape="IDENTITY")
    for film in (turned, left):
        assert np.array_equal(film.gray, KNEE)
        assert "contradicts" in film.remarks[0]
        assert film.doubts == film.remarks
    assert not film_of(KNEE, PresentationLUTShape="IDENTITY").remarks


@pytest.mark.parametrize(
    ("function", "expected"),
    [  # centre 100, width 50; PS3.3 C.11.2.1.2 and C.11.2.1.3
        (None, lambda x: np.clip((x - 99.5) / 49 + 0.5, 0, 1)),
        ("LINEAR", lambda x: np.clip((x - 99.5) / 49 + 0.5, 0, 1)),
        ("LINEAR_EXACT", lambda x: np.clip((x - 100) / 50 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 100) / 50))),
    ],
)
def test_the_first_window_is_applied_as_the_standard_says(function, expected):
    window = {"WindowCenter": ["100", "7"], "WindowWidth": ["50", "9"]}
    gray = film_of(KNEE, **window, **({"VOILUTFunction": function} if function else {})).gray
    assert np.array_equal(gray, np.rint(255 * expected(KNEE.astype(float))))


@pytest.mark.parametrize("centre, width", [("100", "0.5"), ("100", "-3"), ("nan", "50"), ("100", "inf"), ("9e9", "9")])
def test_a_window_that_cannot_be_used_is_ignored_and_told(centre, width):
    film = film_of(KNEE, WindowCenter=centre, WindowWidth=width)
    assert np.array_equal(film.gray, KNEE)
    assert film.remarks == ("its window can't be used and was ignored",)


def test_rescaling_comes_before_the_window():
    window = {"WindowCenter": "500", "WindowWidth": "510", "VOILUTFunction": "LINEAR_EXACT"}
    assert np.array_equal(film_of(KNEE, RescaleSlope="2", RescaleIntercept="245", **window).gray, KNEE)


def test_a_negative_slope_turns_the_film():
    gray = film_of(255 - KNEE, RescaleSlope="-1", RescaleIntercept="255").gray
    assert np.corrcoef(gray.ravel(), KNEE.ravel())[0, 1] > 0.99


def test_a_modality_table_is_looked_up_before_a_voi_table():
    turned = lut(list(range(4095, -1, -1)), 0, 12)
    bright = lut([value // 16 for value in range(4096)], 0, 8)
    gray = film_of(DEEP, BitsStored=12, ModalityLUTSequence=turned, VOILUTSequence=bright).gray
    assert np.array_equal(gray, (4095 - DEEP) // 16)


def test_a_voi_table_for_signed_values_begins_below_zero():
    table = lut([index // 16 for index in range(4096)], -2048, 8)
    gray = film_of(DEEP.astype(np.int16) - 2048, BitsStored=12, VOILUTSequence=table).gray
    assert np.array_equal(gray, KNEE)


def test_a_table_that_begins_below_zero_may_be_written_unsigned():
    table = lut([index // 16 for index in range(4096)], 2**16 - 2048, 8)
    values = DEEP.astype(np.int16) - 2048
    assert np.array_equal(film_of(values, ExplicitVRLittleEndian, BitsStored=12, VOILUTSequence=table).gray, KNEE)


def test_values_beyond_a_table_take_its_ends():
    gray = film_of(KNEE, VOILUTSequence=lut([10, 20, 250], 100, 8, "u1")).gray
    assert np.array_equal(gray, np.select([KNEE <= 100, KNEE == 101], [10, 20], 250))


def test_padding_is_black_and_leaves_the_contrast_alone():
    padded = np.pad(DEEP, 40, constant_values=65535)
    for interpretation, bone in (("MONOCHROME2", KNEE), ("MONOCHROME1", 255 - KNEE)):
        film = film_of(padded, PhotometricInterpretation=interpretation, PixelPaddingValue=65535)
        plain = film_of(DEEP, PhotometricInterpretation=interpretation)
        assert np.array_equal(film.gray, np.pad(plain.gray, 40))
        assert np.corrcoef(plain.gray.ravel(), bone.ravel())[0, 1] > 0.99


def test_a_range_of_padding_is_padding():
    padded = np.pad(DEEP, 40, mode="linear_ramp", end_values=65535)
    padded[40:-40, 40:-40] = np.clip(DEEP, 0, 4095)
    padded[(padded > 4095) & (padded < 5000)] = 5000
    film = film_of(padded, PixelPaddingValue=65535, PixelPaddingRangeLimit=5000)
    assert not film.gray[padded >= 5000].any()
    assert film.gray[40:-40, 40:-40].max() == 255


@quick
@given(st.floats(-1e4, 1e4), st.floats(1, 1e4), st.sampled_from(["LINEAR", "LINEAR_EXACT", "SIGMOID"]))
def test_a_window_never_changes_the_order_of_values(centre, width, function):
    seen = windowed(np.arange(-20_000, 20_000, 50), centre, width, function)
    assert (np.diff(seen) >= 0).all()
    assert seen.min() >= 0
    assert seen.max() <= 1


@quick
@given(st.integers(9, 16), st.booleans(), st.integers(1, 9), st.integers(-9, 9))
def test_any_depth_sign_and_rising_rescale_give_the_same_picture(bits, signed, slope, intercept):
    top = 2 ** (bits - 9) - 1
    deep = KNEE.astype(int) * max(top, 1) - (2 ** (bits - 1) if signed else 0)
    rescale = {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    gray = film_of(deep.astype(np.int16 if signed else np.uint16), BitsStored=bits, **rescale).gray
    assert np.abs(gray.astype(int) - film_of(KNEE.astype(np.uint16), BitsStored=16).gray).max() <= 1
