import io
import json
import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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

from hostile import COMPRESSED, LOSSY, SYNTAXES, codestream, dicom, dicom_bytes
from legradnet.data.dicom import film as dicom_film
from legradnet.data.dicom import process as reader
from legradnet.data.dicom.gray import windowed
from legradnet.data.film import Film, ImageError
from legradnet.data.images import check_header, read_film, read_image
from legradnet.data.manifest import ManifestError, load_manifest
from legradnet.data.synthetic import draw_knee

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # files here are wrong on purpose

KNEE = draw_knee(0.4, "L", np.random.default_rng(0), size=64)[:60]  # not square
SHIPPED = sorted((Path(pydicom.__file__).parent / "data").rglob("*.dcm"))
DEEP = KNEE.astype(np.uint16) * 16
quick = settings(max_examples=40, deadline=None)


def film_of(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Film:
    """Read in this process, which is quicker and shows its errors."""
    return dicom_film.film_of_dicom(*dicom_film.open_dicom(io.BytesIO(dicom_bytes(dicom(pixels, syntax, **elements)))))


def written(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(dicom_bytes(dataset))
    return path


def lut(entries: list[int], first: int, bits: int, dtype: str = "<u2") -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, dtype).tobytes())
    return Sequence([item])


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


# ---------------------------------------------------------------------------------------------------- values to bright
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
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535 is more than 80,000,000 pixels"),
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
    with pytest.raises(ImageError, match=r"JPEG Lossless.* needs a decoder: pip install 'legradnet\[dicom\]'"):
        film_of(KNEE, JPEGLossless)


def test_lossy_jpeg_of_twelve_bits_is_refused_in_words():
    with pytest.raises(ImageError, match="of more than 8 bits is not supported"):
        read_film(next(path for path in SHIPPED if path.name == "JPGExtended.dcm"))


def test_what_deflates_to_too_much_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path / "a", dicom(KNEE, DeflatedExplicitVRLittleEndian))
    monkeypatch.setattr(dicom_film, "_MAX_INFLATED", 1000)
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


# -------------------------------------------------------------------------------------------------- the child process
def test_a_reader_that_crashes_is_an_error_and_the_next_film_is_read(tmp_path, monkeypatch):
    path = written(tmp_path / "a", dicom(KNEE))
    read_film(path)
    child = reader._IDLE.get_nowait()
    reader._IDLE.put(child)
    process = child.process
    assert process is not None
    process.kill()
    process.wait()
    with monkeypatch.context() as patch:
        patch.setattr(process, "poll", lambda: None)  # it dies while it reads
        with pytest.raises(ImageError, match=r"a: its decoder crashed"):
            read_film(path)
    assert np.array_equal(read_image(path), KNEE)


def test_a_film_that_takes_too_long_is_an_error(tmp_path):
    path = written(tmp_path / "a", dicom(KNEE))
    code = (
        "import time; from pathlib import Path; from legradnet.data.dicom import process; process.SECONDS = 0.3;"
        "process.open_dicom = lambda file: time.sleep(60); process.serve()"
    )
    asked = json.dumps([str(path), True]).encode() + b"\n"
    start = time.monotonic()
    child = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, timeout=30)
    assert child.returncode == 1
    assert child.stdout == b"ready\n"
    assert time.monotonic() - start < 10


def test_an_interrupt_while_reading_does_not_give_a_film_to_the_next(tmp_path, monkeypatch):
    first, second = (written(tmp_path / name, dicom(pixels)) for name, pixels in (("a", 255 - KNEE), ("b", KNEE)))

    def interrupted(text: str) -> object:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(reader.json, "loads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read_film(first)
    assert np.array_equal(read_image(second), KNEE)


def test_threads_and_forks_read_with_a_child_of_their_own(tmp_path):
    paths = [written(tmp_path / str(shift), dicom(np.roll(KNEE, shift, 0))) for shift in range(8)]
    read_film(paths[0])
    wrong: list[int] = []

    def read_all() -> None:
        for shift, path in list(enumerate(paths)) * 5:
            if not np.array_equal(read_image(path), np.roll(KNEE, shift, 0)):
                wrong.append(shift)

    threads = [threading.Thread(target=read_all) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if (fork := os.fork()) == 0:
        read_all()
        os._exit(len(wrong))
    read_all()
    assert os.waitpid(fork, 0)[1] == 0
    assert not wrong


def test_importing_the_image_reader_does_not_import_pydicom():
    code = "import sys, legradnet.data.images; sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


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


def test_readers_that_come_and_go_share_the_same_processes(tmp_path):
    path = written(tmp_path / "a", dicom(KNEE))
    for _ in range(4):
        thread = threading.Thread(target=read_film, args=(path,))
        thread.start()
        thread.join()
    before = reader._IDLE.qsize()
    for _ in range(4):
        thread = threading.Thread(target=read_film, args=(path,))
        thread.start()
        thread.join()
    assert reader._IDLE.qsize() == before
