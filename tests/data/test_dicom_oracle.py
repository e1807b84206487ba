"""Against pydicom's own modality and VOI functions: the same brightness, and where it is not, on purpose."""

import io

import numpy as np
import pydicom
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from hostile_films import dicom, dicom_bytes
from legradnet.data.dicom.film import film_of_dicom, open_dicom
from legradnet.data.film import Film

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom", "ignore::RuntimeWarning:pydicom")

often = settings(max_examples=150, deadline=None)
SYNTAXES = st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
FUNCTIONS = st.sampled_from([None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
SHARES = st.integers(0, 64).map(lambda part: part / 64)


def read_by_both(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> tuple[Film, Dataset]:
    """Our film, and what pydicom reads of the same bytes."""
    content = dicom_bytes(dicom(pixels, syntax, **elements))
    return film_of_dicom(*open_dicom(io.BytesIO(content))), pydicom.dcmread(io.BytesIO(content))


def seen_by_pydicom(header: Dataset, low: float, high: float) -> np.ndarray:
    """Modality, then values of interest, by pydicom; 0 where it gives `low` and 255 where it gives `high`."""
    seen = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    return (seen.astype(float) - low) / (high - low) * 255


def is_rounded(gray: np.ndarray, exact: np.ndarray) -> bool:
    return bool(np.abs(gray - exact).max() <= 0.5 + 1e-6)


def shows_a_film(exact: np.ndarray) -> bool:
    """Whether it is far from black and white alone and from one gray: such a choice of the header is ignored."""
    low, high = np.percentile(exact, [0.5, 99.5])
    return bool(high - low > 17 and ((exact > 0.5) & (exact < 254.5)).mean() > 0.03)


def stored_range(header: Dataset) -> tuple[int, int]:
    low = -(2 ** (header.BitsStored - 1)) if header.PixelRepresentation else 0
    return low, low + 2**header.BitsStored - 1


def table(entries: list[int], first: int, bits: int, vr: str, syntax: str) -> Sequence:
    """A lookup table as a film holds it, in words or numbers."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    item.add_new("LUTData", vr, np.array(entries, f"{order}u2").tobytes() if vr == "OW" else entries)
    return Sequence([item])


@st.composite
def films(draw: st.DrawFn, least_bits: int = 6, most_bits: int = 16) -> dict[str, object]:
    """Pixels of every depth and sign, in every uncompressed form."""
    bits, is_signed = draw(st.integers(least_bits, most_bits)), draw(st.booleans())
    low = -(2 ** (bits - 1)) if is_signed else 0
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = rng.integers(low, low + 2**bits, (16, 20))
    pixels[0, :2] = low, low + 2**bits - 1
    kind = ("i" if is_signed else "u") + ("1" if bits <= 8 else "2")
    return {"pixels": pixels.astype(kind), "syntax": draw(SYNTAXES), "BitsStored": bits}


@st.composite
def tables(draw: st.DrawFn, film: dict[str, object], bits: int) -> Sequence:
    """A table of all its bits that begins and ends within or beyond the film's values."""
    pixels, syntax = film["pixels"], str(film["syntax"])
    length, part = draw(st.integers(2, 900)), draw(SHARES)
    first = round(int(pixels.min()) + part * (int(pixels.max()) - int(pixels.min())))
    first = max(first, -(2**15)) if pixels.dtype.kind == "i" else max(first, 0)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    entries = [0, *rng.integers(0, 2**bits, length - 2).tolist(), 2**bits - 1]
    return table(entries, first, bits, draw(st.sampled_from(["OW", "US"])), syntax)


def window(draw: st.DrawFn, function: str | None, low: float, high: float) -> dict[str, object]:
    """A window somewhere in and around `low` to `high`."""
    width = max(draw(SHARES) * 1.5 * (high - low), 1.0)
    chosen: dict[str, object] = {
        "WindowCenter": f"{low + (draw(SHARES) * 1.5 - 0.25) * (high - low):.3f}"[:16],
        "WindowWidth": f"{width:.3f}"[:16],
    }
    return chosen | ({"VOILUTFunction": function} if function else {})


@often
@given(films(), FUNCTIONS, st.integers(1, 80), st.integers(-9000, 9000), st.booleans(), st.data())
def test_a_window_on_rescaled_values_shows_what_pydicom_shows(film, function, eighths, intercept, is_rescaled, data):
    slope = eighths / 8 if is_rescaled else 1
    intercept = intercept if is_rescaled else 0
    rescale = {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)} if is_rescaled else {}
    pixels = film["pixels"].astype(int)
    voi = window(data.draw, function, pixels.min() * slope + intercept, pixels.max() * slope + intercept)
    ours, header = read_by_both(**film, **rescale, **voi)
    low, high = (value * slope + intercept for value in stored_range(header))
    theirs = seen_by_pydicom(header, low, high)
    assume(shows_a_film(theirs))
    assert is_rounded(ours.gray, theirs)
    assert not ours.remarks


@often
@given(films(least_bits=9), st.sampled_from([8, 16]), FUNCTIONS, st.data())
def test_a_window_on_looked_up_values_shows_what_pydicom_shows(film, bits, function, data):
    assume(film["pixels"].dtype.kind == "u")
    modality = data.draw(tables(film, bits))
    ours, header = read_by_both(**film, ModalityLUTSequence=modality, **window(data.draw, function, 0, 2**bits - 1))
    theirs = seen_by_pydicom(header, 0, 2**bits - 1)
    assume(shows_a_film(theirs))
    assert is_rounded(ours.gray, theirs)


@often
@given(films(least_bits=9, most_bits=14), st.integers(10, 16), st.integers(1, 3), st.integers(-50, 50), st.data())
def test_a_table_on_rescaled_values_shows_what_pydicom_shows(film, bits, slope, intercept, data):
    """Whole slopes, see below, and values of at most 16 bits: of larger ones pydicom forgets the upper bits."""
    rescale = {"RescaleSlope": str(slope), "RescaleIntercept": str(intercept)}
    ours, header = read_by_both(**film, **rescale, VOILUTSequence=data.draw(tables(film, bits)))
    theirs = seen_by_pydicom(header, 0, 2**bits - 1)
    assume(shows_a_film(theirs))
    assert is_rounded(ours.gray, theirs)


@often
@given(films(least_bits=9), st.sampled_from([8, 16]), st.integers(10, 16), st.data())
def test_a_table_behind_a_table_shows_what_pydicom_shows(film, between, bits, data):
    assume(film["pixels"].dtype.kind == "u")
    modality = data.draw(tables(film, between))
    voi = table(np.random.default_rng(3).integers(0, 2**bits, 700).tolist(), 100, bits, "OW", str(film["syntax"]))
    ours, header = read_by_both(**film, ModalityLUTSequence=modality, VOILUTSequence=voi)
    theirs = seen_by_pydicom(header, 0, 2**bits - 1)
    assume(shows_a_film(theirs))
    assert is_rounded(ours.gray, theirs)


# --------------------------------------------------------------------------------------------- different on purpose
RAMP = np.arange(0, 4096, 8, np.uint16).reshape(16, 32)
WINDOW = {"WindowCenter": "2000", "WindowWidth": "3000", "VOILUTFunction": "LINEAR_EXACT"}


def test_monochrome1_is_inverted_here_and_not_by_pydicom():
    ours, header = read_by_both(RAMP, BitsStored=12, PhotometricInterpretation="MONOCHROME1", **WINDOW)
    assert is_rounded(255 - ours.gray.astype(int), seen_by_pydicom(header, 0, 4095))


def test_a_negative_slope_turns_values_here_and_by_pydicom_the_window_too():
    """PS3.3 C.11.2.1.2 gives the least output to values below the window; pydicom gives them the image of the least."""
    ours, header = read_by_both(RAMP, BitsStored=12, RescaleSlope="-1", RescaleIntercept="4095", **WINDOW)
    assert is_rounded(255 - ours.gray.astype(int), seen_by_pydicom(header, 0, 4095))
    assert (np.diff(ours.gray.astype(int).ravel()) <= 0).all()


def test_a_value_between_two_entries_takes_the_nearer_here_and_the_lower_by_pydicom():
    voi = table(list(range(4096)), 0, 12, "OW", ExplicitVRLittleEndian)
    ours, header = read_by_both(RAMP, BitsStored=12, RescaleSlope="0.3", RescaleIntercept="0", VOILUTSequence=voi)
    assert is_rounded(ours.gray, np.rint(RAMP * 0.3) / 4095 * 255)
    theirs = apply_voi_lut(apply_modality_lut(header.pixel_array, header), header)
    assert np.array_equal(theirs, np.floor(RAMP * 0.3))


def test_an_eight_bit_table_may_be_longer_than_256_entries_here():
    voi = table([index // 16 for index in range(4096)], 0, 8, "OW", ExplicitVRLittleEndian)
    ours, header = read_by_both(RAMP, BitsStored=12, VOILUTSequence=voi)
    assert np.array_equal(ours.gray, RAMP // 16)
    assert not is_rounded(ours.gray, seen_by_pydicom(header, 0, 255))


def test_a_modality_table_of_twelve_bits_is_read_here():
    turned = table(list(range(4095, -1, -1)), 0, 12, "OW", ExplicitVRLittleEndian)
    ours, header = read_by_both(RAMP, BitsStored=12, ModalityLUTSequence=turned, **WINDOW)
    with pytest.raises(TypeError):
        apply_modality_lut(header.pixel_array, header)
    plain, _ = read_by_both(4095 - RAMP, BitsStored=12, **WINDOW)
    assert np.array_equal(ours.gray, plain.gray)


def test_a_modality_table_reaches_across_all_signed_values_here():
    values = (RAMP.astype(int) * 16 - 32_768).astype(np.int16)
    turned = table(list(range(65_535, -1, -1)), -32_768, 16, "OW", ExplicitVRLittleEndian)
    centred = {"WindowCenter": "32768", "WindowWidth": "65535", "VOILUTFunction": "LINEAR_EXACT"}
    ours, header = read_by_both(values, ModalityLUTSequence=turned, **centred)
    assert is_rounded(ours.gray, (65_535 - RAMP.astype(float) * 16 - 32_768) / 65_535 * 255 + 127.5)
    assert not is_rounded(ours.gray, seen_by_pydicom(header, 0, 65_535))


@pytest.mark.parametrize("width", ["0.5", "-3"])
def test_a_window_that_pydicom_refuses_is_ignored_here_and_told(width):
    ours, header = read_by_both(RAMP, BitsStored=12, WindowCenter="100", WindowWidth=width)
    with pytest.raises(ValueError, match="Width must be greater"):
        apply_voi_lut(header.pixel_array, header)
    assert ours.remarks == ("its window can't be used and was ignored",)


def test_deep_values_without_a_window_are_stretched_here_and_left_by_pydicom():
    ours, header = read_by_both(RAMP, BitsStored=12)
    assert np.array_equal(apply_voi_lut(apply_modality_lut(header.pixel_array, header), header), RAMP)
    assert (ours.gray.min(), ours.gray.max()) == (0, 255)
