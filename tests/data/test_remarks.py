"""What a film's reader has to say reaches whoever checks films, out of the cache as out of the file."""

import os
from pathlib import Path

import numpy as np
import pytest
from cached_films import array_of, decoded, look
from dicom_films import DEEP, written

from hostile_films import dicom
from legradnet.data import cache_files
from legradnet.data.film import thumbnail
from legradnet.data.images import read_film
from legradnet.data.remarks import by_kind

FRAMES = "the first of 19 frames"
WINDOW = "its window can't be used and was ignored"
POLARITY = "its PresentationLUTShape contradicts its photometric interpretation and was believed"


@pytest.fixture
def said(settled, tmp_path):
    """Twelve films whose window shows nothing, two of several frames, one in doubt, and three without a remark."""
    root = tmp_path / "films"
    root.mkdir()
    for number in range(18):
        pixels, elements = np.roll(DEEP, number, 1), {"BitsStored": 12}
        if number < 12:
            elements |= {"WindowCenter": "30000", "WindowWidth": "9"}
        elif number < 14:
            elements |= {"Rows": 60, "NumberOfFrames": "19" if number == 12 else "2"}
            pixels = np.concatenate([pixels] * (19 if number == 12 else 2))
        elif number == 14:
            elements |= {"PresentationLUTShape": "INVERSE"}
        written(root / f"{number:02}.dcm", dicom(pixels, **elements))
    rows = "".join(f"{number:02}.dcm,{number % 5}\n" for number in range(18))
    (root / "knees.csv").write_text(f"filename,label\n{rows}")
    return root


def test_the_check_counts_what_was_said_and_names_the_films_from_files_and_from_the_cache(said, caplog, monkeypatch):
    names = decoded(monkeypatch)
    told = []
    for _ in range(2):
        caplog.clear()
        look(said)
        told.append([record.getMessage() for record in caplog.records])
    assert len(names) == 18
    assert told[0] == told[1]
    first_ten = ", ".join(f"row {number + 2} '{number:02}.dcm'" for number in range(10))
    assert told[0] == [
        f"12 of 18 films, {WINDOW}: {first_ten} and 2 more",
        f"2 of 18 films, {FRAMES}: row 14 '12.dcm', row 15 '13.dcm'",
        f"1 of 18 films, {POLARITY}: row 16 '14.dcm'",
    ]


def test_a_film_out_of_the_cache_says_what_its_file_says(said):
    look(said)
    cached = look(said).cached
    assert cached is not None
    for row in range(18):
        film, small = read_film(said / f"{row:02}.dcm"), cached.thumbnail(row)
        assert small is not None
        assert (small.remarks, small.doubts) == (film.remarks, film.doubts)
        assert np.array_equal(small.gray, thumbnail(film).gray)
    assert cached.thumbnail(14).doubts == (POLARITY,)


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "torn"])
def test_damaged_remarks_make_no_film_say_anything_else(said, damage):
    look(said)
    path = array_of(said).with_suffix(".remarks")
    content = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        os.truncate(path, len(content) - 5)
    elif damage == "torn":
        path.write_bytes(content + b'[["what a killed process')
    else:
        content[4] ^= 1
        path.write_bytes(content)
    written(said / "15.dcm", dicom(DEEP[:, ::-1].copy(), BitsStored=12, WindowCenter="-9999", WindowWidth="7"))
    for _ in range(2):
        cached = look(said).cached
        for row in range(18):
            small, film = cached.thumbnail(row), read_film(said / f"{row:02}.dcm")
            assert small is None or (small.remarks, small.doubts) == (film.remarks, film.doubts)
        assert cached.count >= 3 if damage == "gone" else cached.count >= 5


def test_a_text_is_written_once_however_many_films_have_it(said):
    look(said)
    assert len(array_of(said).with_suffix(".remarks").read_bytes().splitlines()) == 4
    files = cache_files.CacheFiles(Path(array_of(said)), 40)
    assert {files.record(place).remarks for place in files.places.values()} == {
        (),
        (WINDOW,),
        (FRAMES,),
        ("the first of 2 frames",),
        (POLARITY,),
    }
    files.close()


def test_remarks_that_differ_in_numbers_are_of_one_kind():
    first, second = by_kind([("a", ["the first of 3 frames", "x"]), ("b", []), ("c", ["the first of 12 frames"])])
    assert (first.text, first.names, first.few(1)) == ("the first of 3 frames", ["a", "c"], "a and 1 more")
    assert (second.text, second.names, second.few(9)) == ("x", ["a"], "a")
