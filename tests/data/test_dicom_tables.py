"""A lookup table that its film contradicts: the film looks as its data say, and what was not believed is told."""

import numpy as np
import pytest
from contradicted import EMPTY, LINE, PIXELS, RIGHT, film, is_right, lut
from dicom_films import KNEE, film_of
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # files here are wrong on purpose


@pytest.mark.parametrize(
    ("entries", "descriptor"),
    [
        (LINE, [4096, 0, 16]),  # 12 bits that are said to be 16
        (LINE, [4096, 0, 8]),
        (LINE * 16, [4096, 0, 8]),
        (LINE * 8, [4096, 0, 16]),
        (LINE + 30_000, [4096, 0, 16]),
    ],
)
@pytest.mark.parametrize("vr", ["OW", "US"])
def test_a_table_of_other_values_than_it_says_is_scaled_by_those_that_it_has(entries, descriptor, vr):
    read = film(VOILUTSequence=lut(entries, descriptor, vr=vr), WindowCenter=None, WindowWidth=None)
    assert is_right(read)
    assert read.remarks == ("its VOI LUT holds other values than it says and was scaled by those that it holds",)
    assert not read.doubts


@pytest.mark.parametrize(
    "table",
    [
        lut(LINE * 0 + 9, [4096, 0, 12]),
        lut([9], [1, 0, 12]),
        lut(LINE, [4096, 50_000, 12]),  # for values that the film has not
        EMPTY,
        lut([], [4096, 0, 12]),
        lut(None, [4096, 0, 12]),
        lut(LINE, None),
        lut(LINE, [4096, 0]),
        lut(LINE, [4096, 0, 99]),
    ],
)
def test_a_table_that_shows_nothing_gives_way_to_the_next_table_or_window(table):
    behind_it = Sequence([*table, *lut(LINE, [4096, 0, 12])])
    for read in (film(VOILUTSequence=table), film(VOILUTSequence=behind_it, WindowCenter=None, WindowWidth=None)):
        assert is_right(read)
        assert read.remarks == ("its VOI LUT can't be used and was ignored",)
        assert not read.doubts


def test_only_a_table_without_meaning_leaves_the_values_as_they_are():
    read = film(VOILUTSequence=lut(LINE * 0, [4096, 0, 12]), WindowCenter=None, WindowWidth=None)
    assert np.array_equal(read.gray, film(WindowCenter=None, WindowWidth=None).gray)
    assert read.remarks == ("its VOI LUT can't be used and was ignored",)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian])
def test_bytes_of_a_table_stand_in_words_the_first_in_the_lower_half(syntax):
    entries = np.where(LINE % 2, LINE // 16, 0).astype(np.uint8)  # no two neighbours are alike
    words = entries.view("<u2").astype(">u2" if syntax == ExplicitVRBigEndian else "<u2")
    read = film(syntax=syntax, VOILUTSequence=lut(words.view(np.uint8), [4096, 0, 8], "u1"))
    assert np.array_equal(read.gray, entries[PIXELS])


def test_a_table_of_65536_entries_says_0_and_a_cut_one_has_those_that_it_has():
    whole = lut(np.minimum(np.arange(65_536), 4095), [0, 0, 12])
    assert is_right(film(VOILUTSequence=whole))
    cut = film(VOILUTSequence=lut(LINE[:4000], [4096, 0, 12]))
    assert np.array_equal(cut.gray, np.minimum(cut.gray, np.rint(3999 / 4095 * 255)))
    assert np.abs(cut.gray.astype(int) - np.minimum(RIGHT, 249)).max() <= 1


@pytest.mark.parametrize(
    "table",
    [
        lut(LINE[:2000], [4096, 0, 16]),  # entries are wanting
        lut(LINE[:3000] * 16, [4096, 0, 16]),
        lut(LINE[:2000], [2000, 0, 12]),  # it stops in the middle of the grays
        lut(LINE[:3000] * 16, [3000, 0, 16]),
        lut(LINE[1500:], [2596, 1500, 12]),
        lut(LINE * 16, [4096, 2500, 16]),  # for other values than the film's
        lut(LINE * 16, [4096, 63_036, 16]),
    ],
)
@pytest.mark.parametrize("kind", ["VOI", "Modality"])
def test_a_table_that_leaves_out_much_of_the_film_is_ignored_and_told(table, kind):
    read = film(**{f"{kind}LUTSequence": table})
    assert is_right(read, off=0)
    assert read.remarks == (f"its {'VOI' if kind == 'VOI' else 'modality'} LUT can't be used and was ignored",)
    assert not read.doubts


@pytest.mark.parametrize(
    "entries",
    [
        np.minimum(LINE[:3000] * 2, 4095),  # to white
        np.minimum(LINE[:3000] + 900, 3700),  # to one gray
        np.maximum(4095 - LINE[:3000] * 2, 0),  # to black
    ],
)
def test_a_table_whose_curve_has_come_to_its_end_may_leave_out_a_background(entries):
    read = film(VOILUTSequence=lut(entries, [3000, 0, 12]))
    assert np.abs(read.gray - entries[np.minimum(PIXELS, 2999)] / 4095 * 255).max() <= 1
    assert not read.remarks


@pytest.mark.parametrize("kind", ["VOI", "Modality"])
def test_a_table_has_all_entries_that_its_data_have(kind):
    assert is_right(film(**{f"{kind}LUTSequence": lut(LINE, [2000, 0, 12])}))
    filled = lut([*np.minimum(LINE[:3000] * 2, 4095), *[0] * 1096], [3000, 0, 12])
    whole = lut(np.minimum(LINE[:3000] * 2, 4095), [3000, 0, 12])
    reads = [film(**{f"{kind}LUTSequence": table}).gray for table in (filled, whole)]
    assert np.array_equal(*reads)


@pytest.mark.parametrize("table", [EMPTY, lut([], [0, 0, 16]), lut(LINE * 0, [4096, 0, 16]), lut(LINE, None)])
def test_an_empty_modality_table_is_ignored_and_told(table):
    read = film(ModalityLUTSequence=table)
    assert is_right(read, off=0)
    assert read.remarks == ("its modality LUT can't be used and was ignored",)
    assert not read.doubts


def test_a_modality_table_may_have_entries_beyond_its_bits():
    assert is_right(film(ModalityLUTSequence=lut(LINE, [4096, 0, 8])), off=0)


def test_a_palette_of_bytes_that_are_said_to_be_words_is_not_black():
    colours = ("Red", "Green", "Blue")
    read = film_of(
        KNEE,
        PhotometricInterpretation="PALETTE COLOR",
        **{f"{colour}PaletteColorLookupTableDescriptor": [256, 0, 16] for colour in colours},
        **{f"{colour}PaletteColorLookupTableData": np.arange(256, dtype="<u2").tobytes() for colour in colours},
    )
    assert np.array_equal(read.gray, KNEE)
    assert "its palette holds other values" in read.remarks[0]
