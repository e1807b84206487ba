"""Names of films as text that leads back to the file, and as names of what is made of each film."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import RAMP, saved

from legradnet.data.film_names import as_name, as_text, output_names
from legradnet.data.inputs import list_films

ENDINGS = (".npz", ".png")
PIECES = st.sampled_from([b"a", b"A", b"\xff", b"\xc3", b"\xa9", b"\\", b"x", b"\\xff", b"\\x5c", b"41", b".png", b"/"])


@given(st.lists(PIECES | st.binary(max_size=3), max_size=12).map(b"".join))
def test_a_name_told_as_text_leads_back_to_the_file_whatever_its_bytes_are(name):
    name = name.replace(b"\0", b"").decode("utf-8", "surrogateescape")
    told = as_text(name)
    told.encode()
    assert as_name(told) == name
    if "\\" not in name and told.isascii():
        assert told == name or not name.isascii()


def test_what_is_utf_8_is_told_as_it_is():
    for name in ("S00001L.png", "膝 1.png", "Röntgen\\links.png", "a\\xyz.png", "a\\x41.png"):
        assert as_text(name) == name


@pytest.mark.parametrize(
    ("films", "places"),
    [
        (["S1L.png", "more/S1R.png"], ["S1L", "more/S1R"]),
        (["a.png", "a.bmp", "b.png"], ["a.png", "a.bmp", "b"]),
        (["a.png", "a.jpg", "a.png.jpg"], ["a.png", "a.jpg", "a.png.jpg"]),
        (["a.png", "A.png", "Ä.png", "a\u0308.png"], ["a.png", "A.png_2", "Ä.png", "a\u0308.png_2"]),
        (["x", "x.png/y.png"], ["x_2", "x.png/y"]),
        (["a.png", "a.png"], ["a.png", "a.png_2"]),
        (["a.png", "a.png", "a.png_2", "a.png_2.jpg"], ["a.png", "a.png_3", "a.png_2", "a.png_2.jpg"]),
        (["/somewhere/else/k.png"], ["k"]),
        (["../k.png", "//k/../l.png"], ["k", "k/l"]),
        (["", "..", "a\nb.png"], ["film", "film_2", "a_b"]),
        (
            ["k/..2", "k/...", "1.2.840.10008.5", "1.3.840.10008.123456789012"],
            ["k/..2", "k/...", "1.2.840.10008", "1.3.840.10008"],
        ),
    ],
)
def test_outputs_have_the_names_of_their_films_and_where_those_clash_others(films, places):
    assert output_names(films, ENDINGS) == places


@given(st.lists(st.text("aAÄx\u0308./_2~\\\ud800\udcff\n", max_size=8) | st.text("é", min_size=200), max_size=12))
def test_outputs_are_one_a_film_on_any_file_system_and_lead_nowhere_else(films):
    def alike(path):
        return path.casefold()

    places = output_names(films, ENDINGS)
    files = [alike(place + ending) for place in places for ending in ENDINGS]
    folders = {"/".join(parts[:i]) for file in files for parts in [file.split("/")] for i in range(1, len(parts))}
    assert len(set(files)) == len(files) == 2 * len(films)
    assert not folders & set(files)
    for place in places:
        *above, name = place.split("/")
        assert all(part not in ("", ".", "..") and len(part.encode()) <= 255 for part in [*above, name, f"{name}.npz"])


def test_long_names_are_cut_and_stay_apart(tmp_path):
    films = ["k" * 251, "k" * 250 + "l", "k" * 247 + ".png", "k" * 230 + ".png", f"{'膝' * 83}.png"]
    places = output_names(films, ENDINGS)
    assert places[3] == "k" * 230
    assert len(set(places)) == 5
    for place in places:
        (tmp_path / f"{place}.npz").touch()


@pytest.mark.skipif(os.name != "posix", reason="names are text here")
def test_a_film_whose_name_is_not_utf_8_is_found_in_its_folder_and_again_by_the_name_that_was_told(tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for name in (b"k\xff.png", b"k\\xff.png", b"k.png"):
        saved(films / os.fsdecode(name), RAMP)
    listed = list_films(films)
    assert sorted(film.filename for film in listed) == ["k.png", "k\\x5cxff.png", "k\\xff.png"]
    table = tmp_path / "told.csv"
    table.write_text("\n".join(["filename", *(film.filename for film in listed)]) + "\n", encoding="utf-8")
    again = {film.filename: film.film for film in list_films(table, films)}
    assert again == {film.filename: film.film for film in listed}
    assert os.fsencode(again["k\\xff.png"]).endswith(b"/k\xff.png")
