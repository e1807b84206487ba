"""The table of film formats: content decides, and a row is all that a new format needs."""

import numpy as np
import pytest
from dicom_films import KNEE
from pictures import RAMP, saved

from hostile_films import dicom, dicom_bytes
from legradnet.data import cache as caching
from legradnet.data import images
from legradnet.data.film import NO_PIXELS, Film, ImageError
from legradnet.data.images import FORMATS, HEAD, FilmFormat, check_header, format_of, read_film
from legradnet.data.inputs import list_films


def read_plain(file, allow):
    """A made-up format: its name, height and width in a byte each, and the pixels."""
    height, width = file.read(7)[5:]
    return Film(np.frombuffer(file.read(), np.uint8).reshape(height, width)) if allow else NO_PIXELS


PLAIN = FilmFormat("PLAIN", lambda head: head.startswith(b"plain"), read_plain, ("numpy",), lambda file: True)


@pytest.fixture
def plain_film(tmp_path):
    """A film in the made-up format, with the ending of a text."""
    path = tmp_path / "film.txt"
    path.write_bytes(b"plain" + bytes(RAMP.shape) + RAMP.tobytes())
    return path


def test_a_row_makes_a_format_readable_wherever_films_are_read(plain_film, monkeypatch):
    with pytest.raises(ImageError, match="not a readable PNG, JPEG, TIFF, BMP or DICOM image"):
        read_film(plain_film)
    monkeypatch.setattr(images, "FORMATS", (*FORMATS, PLAIN))
    assert np.array_equal(read_film(plain_film).gray, RAMP)
    assert check_header(str(plain_film)) == ""
    assert [film.filename for film in list_films(plain_film.parent)] == ["film.txt"]
    plain_film.write_bytes(b"plane")
    with pytest.raises(ImageError, match="not a readable PNG, JPEG, TIFF, BMP, DICOM or PLAIN image"):
        read_film(plain_film)


def test_a_row_begins_another_cache(monkeypatch):
    digests = []
    for formats in (FORMATS, (*FORMATS, PLAIN), (*FORMATS, PLAIN._replace(packages=("numpy", "scipy")))):
        monkeypatch.setattr(images, "FORMATS", formats)
        caching._reading.cache_clear()
        digests.append(caching._reading())
    caching._reading.cache_clear()
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", ["PNG", "JPEG", "TIFF", "BMP", "DICOM"])
def test_a_file_is_known_by_one_row_alone(tmp_path, name):
    path = tmp_path / "film"
    if name == "DICOM":
        path.write_bytes(dicom_bytes(dicom(KNEE)))
    else:
        saved(path, RAMP, format=name)
    head = path.read_bytes()[:HEAD]
    assert [film_format.name for film_format in FORMATS if film_format.is_start(head)] == [name]


def test_a_dicom_film_with_the_start_of_a_tiff_before_its_own_is_read_as_dicom(tmp_path):
    content = dicom_bytes(dicom(KNEE, ImageLaterality="R"))  # PS3.10 7.1 allows both in one file
    (tmp_path / "both").write_bytes(b"II*\0" + content[4:])
    film = read_film(tmp_path / "both")
    assert np.array_equal(film.gray, KNEE)
    assert film.side == "R"


def test_a_table_that_begins_with_the_letters_of_a_bitmap_is_a_table(tmp_path):
    saved(tmp_path / "a.png", RAMP)
    (tmp_path / "knees.csv").write_text("BMI,filename\n27,a.png\n")
    assert [film.filename for film in list_films(tmp_path / "knees.csv")] == ["a.png"]
    assert format_of((tmp_path / "knees.csv").read_bytes()) is None
