import logging
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_films import KNEE, film_of, written
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLSLossless,
    RLELossless,
)

from hostile_films import COMPRESSED, LOSSY, SYNTAXES, codestream, dicom, dicom_bytes
from legradnet.data.dicom import film as dicom_film
from legradnet.data.dicom import streams
from legradnet.data.film import ImageError
from legradnet.data.images import check_header, read_film, read_image
from legradnet.data.manifest import ManifestError, load_manifest

SHIPPED = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))


# ------------------------------------------------------------------------------------------------------ files and forms
@pytest.mark.parametrize("name", ["a.dcm", "a", "a.png", "IM000001"])
def test_the_content_and_not_the_ending_makes_it_dicom(tmp_path, name):
    assert np.array_equal(read_image(written(tmp_path / name, dicom(KNEE))), KNEE)


def test_any_name_and_a_relative_path_reach_the_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("new\nline", "ü 膝", '"quoted"', os.fsdecode(b"not-utf8-\xff"), "-rf"):
        assert np.array_equal(read_image(written(Path(name), dicom(KNEE))), KNEE)


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_eight_bit_gray_is_left_as_it_is_in_every_transfer_syntax(tmp_path, syntax):
    gray = read_image(written(tmp_path / "a", dicom(KNEE, syntax))).astype(int)
    assert np.abs(gray - KNEE).max() <= (12 if syntax in LOSSY else 0)


@pytest.mark.parametrize("syntax", [syntax for syntax in SYNTAXES if syntax not in LOSSY])
@pytest.mark.parametrize(("dtype", "bits"), [("u2", 10), ("u2", 12), ("u2", 16), ("i2", 13), ("i2", 16)])
def test_deep_values_come_back_exactly_in_every_transfer_syntax(syntax, dtype, bits):
    low, high = (0, 2**bits - 1) if dtype == "u2" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    deep = np.round(np.interp(KNEE, (0, 255), (low, high))).astype(dtype)
    window = {"WindowCenter": (low + high) / 2, "WindowWidth": float(high - low), "VOILUTFunction": "LINEAR_EXACT"}
    assert np.array_equal(film_of(deep, syntax, BitsStored=bits, **window).gray, KNEE)


def test_a_data_set_without_preamble_is_known_by_its_first_element(tmp_path):
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian):
        dataset = dicom(KNEE, syntax)
        del dataset.file_meta
        with (tmp_path / "a").open("wb") as file:
            pydicom.dcmwrite(
                file, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
            )
        assert np.array_equal(read_image(tmp_path / "a"), KNEE)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_file_that_pydicom_ships_is_a_film_or_an_error(path):
    try:
        film = read_film(path)
    except ImageError as error:
        assert str(path) in str(error)
    else:
        assert film.gray.shape == (pydicom.dcmread(path).Rows, pydicom.dcmread(path).Columns)
        assert film.gray.min() < film.gray.max()


def test_most_films_that_pydicom_ships_are_read():
    def readable(path: Path) -> bool:
        try:
            return read_film(path).gray.size > 0
        except ImageError:
            return False

    assert sum(readable(path) for path in SHIPPED) >= 50


@pytest.mark.parametrize("syntax", ["", "_RLE", "_bigendian", "_implicit", "_jp2klossless", "_jpeg_ls_lossless"])
def test_one_real_film_is_the_same_in_all_its_forms(syntax):
    (plain,) = (path for path in SHIPPED if path.name == "MR_small.dcm")
    assert np.array_equal(read_image(plain.with_name(f"MR_small{syntax}.dcm")), read_image(plain))


# ------------------------------------------------------------------------------------------------------ what it knows
def test_colour_becomes_its_luma_and_is_measured():
    colour = np.full((20, 30, 3), (200, 100, 50), np.uint8)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    for syntax in (ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEGLossless):
        film = film_of(colour, syntax)
        assert np.unique(film.gray) == [luma]
        assert film.colour == pytest.approx(150 / 255)
    assert film_of(np.dstack([KNEE] * 3)).colour == 0
    assert np.array_equal(film_of(np.dstack([KNEE] * 3)).gray, KNEE)


def test_deep_colour_is_scaled_by_its_bits():
    colour = np.full((20, 30, 3), (200 * 16, 100 * 16, 50 * 16), np.uint16)
    for syntax in (ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless):
        film = film_of(colour, syntax, BitsStored=12)
        assert np.unique(film.gray) == [round(0.299 * 199 + 0.587 * 100 + 0.114 * 50)]
        assert film.colour == pytest.approx(150 / 255, abs=0.01)


def test_ybr_is_turned_into_colour_first():
    ybr = np.full((20, 30, 3), (100, 128, 128), np.uint8)
    film = film_of(ybr, PhotometricInterpretation="YBR_FULL")
    assert np.unique(film.gray) == [100]
    assert film.colour == 0


def test_the_first_frame_is_read_and_told():
    frames = np.concatenate([KNEE, 255 - KNEE, KNEE])
    film = film_of(frames, Rows=len(KNEE), NumberOfFrames="3")
    assert np.array_equal(film.gray, KNEE)
    assert film.remarks == ("the first of 3 frames",)
    assert film_of(KNEE, RLELossless, NumberOfFrames="3").remarks == ("the first of 3 frames",)


@pytest.mark.parametrize(
    ("elements", "side"),
    [
        ({"ImageLaterality": "R"}, "R"),
        ({"Laterality": "L"}, "L"),
        ({"ImageLaterality": "L", "Laterality": "R"}, "L"),
        ({"ImageLaterality": "B", "Laterality": ""}, ""),
        ({}, ""),
    ],
)
def test_the_side_is_taken_from_the_file(tmp_path, elements, side):
    assert read_film(written(tmp_path / "a", dicom(KNEE, **elements))).side == side


def test_shared_and_frame_groups_are_read_as_the_elements_that_they_replace():
    anatomy, shared, window, frame = Dataset(), Dataset(), Dataset(), Dataset()
    anatomy.FrameLaterality = "R"
    shared.FrameAnatomySequence = Sequence([anatomy])
    window.WindowCenter, window.WindowWidth = "64", "128"
    frame.FrameVOILUTSequence = Sequence([window])
    film = film_of(
        KNEE,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence([frame, frame]),
    )
    assert film.side == "R"
    assert np.array_equal(film.gray, film_of(KNEE, WindowCenter="64", WindowWidth="128").gray)


# ------------------------------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("check", [read_film, check_header])
def test_what_a_header_gives_away_is_told_before_decoding(tmp_path, check):
    for elements, reason in (
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 is more than 100,000,000 pixels"),
        ({"Rows": 61}, "is truncated: 3,840 of 3,904 bytes"),
        ({"Rows": 3}, "too small"),
        ({"Rows": None}, "its Rows is missing"),
        ({"SamplesPerPixel": 2}, "2 x 8 of 8 bits a pixel is not supported"),
    ):
        with pytest.raises(ImageError, match=reason):
            check(written(tmp_path / "a.dcm", dicom(KNEE, **elements)))
    pixelless = dicom(KNEE)
    del pixelless.PixelData
    with pytest.raises(ImageError, match=r"a\.dcm: a DICOM file without pixel data"):
        check(written(tmp_path / "a.dcm", pixelless))


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLSLossless, JPEGBaseline8Bit])
def test_a_codestream_without_its_end_never_reaches_a_decoder(monkeypatch, syntax):
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", lambda *_, **__: pytest.fail("decoded"))
    cut = encapsulate([codestream(dicom(KNEE), syntax)[:-20]])
    with pytest.raises(ImageError, match="is truncated: its compressed pixels have no end"):
        film_of(KNEE, syntax, PixelData=cut)


@pytest.mark.parametrize("syntax", [syntax for syntax in COMPRESSED if syntax != RLELossless])
def test_a_codestream_of_another_size_is_refused_before_its_decoder(monkeypatch, syntax):
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.as_array", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(ImageError, match="of another size than its header says"):
        film_of(KNEE, syntax, Rows=30, Columns=128)


def test_a_missing_decoder_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setattr(dicom_film, "_PLUGINS", ())
    with pytest.raises(ImageError, match=r"JPEG Lossless.* needs a decoder: pip install -e '\.\[dicom\]'"):
        film_of(KNEE, JPEGLossless)


def test_lossy_jpeg_of_twelve_bits_is_refused_in_words():
    with pytest.raises(ImageError, match="of more than 8 bits is not supported"):
        read_film(next(path for path in SHIPPED if path.name == "JPGExtended.dcm"))


def test_what_deflates_to_too_much_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "a", dicom(KNEE, DeflatedExplicitVRLittleEndian))
    monkeypatch.setattr(streams, "MOST", 1000)
    with path.open("rb") as file, pytest.raises(ImageError, match="inflates to more than 1,000 bytes"):
        dicom_film.open_dicom(file)


def test_no_value_of_a_patient_reaches_an_error_a_log_or_a_stream(tmp_path, caplog, capfd):
    for name, elements in (
        ("a", {"PhotometricInterpretation": "SECRET"}),
        ("b", {"ImageLaterality": "Secret^Name", "Rows": 9999}),
        ("c", {"NumberOfFrames": "7"}),
        ("d", {"PhotometricInterpretation": "PALETTE COLOR"}),
        ("e", {}),
    ):
        content = dicom_bytes(dicom(KNEE, **elements)).replace(b"7 ", b"XX").replace(b"1.2.3.4", b"Secret!")
        (tmp_path / name).write_bytes(content)
    caplog.set_level(logging.DEBUG)
    caplog.clear()
    capfd.readouterr()
    for name in "abcde":
        try:
            told = repr(read_film(tmp_path / name))
        except ImageError as error:
            told = f"{error} {error.__cause__} {error.__context__}"
        assert "secret" not in told.lower()
    assert "secret" not in (caplog.text + "".join(capfd.readouterr())).lower()


def test_jpeg_colour_is_read(tmp_path):
    colour = np.full((32, 32, 3), (200, 100, 50), np.uint8)
    film = read_film(written(tmp_path / "a", dicom(colour, JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422")))
    assert film.colour == pytest.approx(150 / 255, abs=0.03)


@pytest.mark.parametrize("verify", ["decode", "header"])
def test_a_training_table_takes_dicom_films_and_their_sides(tmp_path, verify):
    for name, side in {"a": "L", "b": "R", "c": ""}.items():
        turned = np.roll(KNEE, len(side) + (side == "R"))
        written(tmp_path / name, dicom(turned, **({"ImageLaterality": side} if side else {})))
    (tmp_path / "knees.csv").write_text("filename,label\na,0\nb,1\nc,2\n")
    manifest = load_manifest(tmp_path, tmp_path / "knees.csv", num_classes=5, verify=verify)
    assert manifest.table["side"].tolist() == ["L", "R", ""]
    (tmp_path / "knees.csv").write_text("filename,label,side\na,0,L\nb,1,L\nc,2,R\n")
    with pytest.raises(ManifestError, match="row 3 'b': L, but the file says R"):
        load_manifest(tmp_path, tmp_path / "knees.csv", num_classes=5, verify=verify)
