import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hostile_films import dicom, dicom_bytes
from legradnet.data.images import read_film, read_image
from legradnet.data.manifest import load_manifest
from legradnet.data.synthetic import synthesize
from legradnet.localise.film_knees import CUT_OFF, NO_KNEE
from legradnet.localise.metal import PROSTHESIS
from legradnet.localise.run import crop
from whole_films import CLEAR, LEFT, RIGHT, SIDE, whole_film


@pytest.fixture
def films(tmp_path):
    (tmp_path / "films").mkdir()
    return tmp_path / "films"


def cut(films, **settings):
    """Cut what is in `films`; gives whether all went well, and both tables."""
    done = crop({"input": str(films), "output": str(films.parents[0] / "out"), **settings})
    out = films.parent / "out" if films.is_dir() else films.parents[0] / "out"
    return done, *(pd.read_csv(out / name, dtype=str, keep_default_na=False) for name in ("knees.csv", "left_out.csv"))


def write(path, pixels):
    Image.fromarray(pixels).save(path)


def test_cropped_knees_are_a_table_that_training_takes(typed, tmp_path, films):
    write(films / "a.png", whole_film(RIGHT, LEFT)), write(films / "b.png", whole_film(RIGHT, LEFT, seed=3))
    (films / "c.png").write_bytes(b"no film")
    pd.DataFrame(
        [["a.png", "R", 2, "test", "x"], ["a.png", "L", 3, "test", "y"], ["b.png", "L", 0, "train", "z"],
         ["c.png", "", 1, "train", ""]],
        columns=["filename", "knee", "label", "split", "site"],
    ).to_csv(films / "list.csv", index=False)  # fmt: skip
    done = typed("legradnet-crop", f"input={films}/list.csv", f"output={tmp_path}/out")
    assert done.returncode == 1, done.stderr  # c.png
    table = pd.read_csv(tmp_path / "out/knees.csv")
    columns = ["filename", "label", "patient", "side", "split", "site", "film"]
    assert list(table)[:7] == columns and table[columns[:6]].to_numpy().tolist() == [
        ["knees/a_R.png", 2, "a.png", "R", "test", "x"],
        ["knees/a_L.png", 3, "a.png", "L", "test", "y"],
        ["knees/b_L.png", 0, "b.png", "L", "train", "z"],
    ]
    side = int(table["box"][0].split()[-1])
    assert Image.open(tmp_path / "out/knees/a_R.png").size == (side, side)
    assert "c.png" in (tmp_path / "out/left_out.csv").read_text()
    assert Image.open(tmp_path / "out/sheet_1.png").width > 200
    manifest = load_manifest(tmp_path / "out", tmp_path / "out/knees.csv", num_classes=5)
    assert len(manifest.table) == 3


def test_squares_come_in_one_size_where_it_is_given(typed, tmp_path):
    write(tmp_path / "a.png", whole_film(RIGHT, LEFT))
    done = typed("legradnet-crop", f"input={tmp_path}/a.png", f"output={tmp_path}/out", "image_size=64")
    assert done.returncode == 0, done.stderr
    assert [Image.open(path).size for path in (tmp_path / "out/knees").iterdir()] == [(64, 64)] * 2
    again = typed("legradnet-crop", f"input={tmp_path}/a.png", f"output={tmp_path}/out")
    assert again.returncode == 2 and "not empty" in again.stderr


@pytest.mark.parametrize("kind", ["png", "dcm"])
def test_squares_keep_the_depth_of_their_film_and_look_as_they_do_in_it(tmp_path, kind):
    deep = (whole_film(RIGHT, LEFT, seed=CLEAR).astype(np.uint16) + 3) * 150
    deep += np.arange(deep.size, dtype=np.uint16).reshape(deep.shape) % 97  # more than 256 values
    path = tmp_path / f"deep.{kind}"
    if kind == "png":
        write(path, deep)
    else:
        window = {"WindowCenter": 20_000, "WindowWidth": 30_000}
        path.write_bytes(dicom_bytes(dicom(deep, PhotometricInterpretation="MONOCHROME2", **window)))
    assert crop({"input": str(path), "output": str(tmp_path / "out")})
    table = pd.read_csv(tmp_path / "out/knees.csv")
    assert len(table) == 2
    for name, box in zip(table["filename"], table["box"], strict=True):
        x, y, side = map(int, box.split())
        place = np.s_[y : y + side, x : x + side]
        square = np.asarray(Image.open(tmp_path / "out" / name))
        assert square.dtype == np.uint16 and np.array_equal(square, deep[place])
        as_seen = read_image(tmp_path / "out" / name).astype(int)
        assert np.abs(as_seen - read_film(path).gray[place]).max() <= 1
    small = tmp_path / "small"
    assert crop({"input": str(path), "output": str(small), "image_size": 48})
    assert {Image.open(square).mode for square in (small / "knees").iterdir()} == {"I;16"}


def test_what_is_left_out_is_told_in_sentences_and_in_a_table(films, caplog):
    both = whole_film(RIGHT, LEFT, seed=CLEAR)
    write(films / "cut_off.png", both[:, round(RIGHT.x - 0.2 * SIDE) :])
    write(films / "replaced.png", whole_film(RIGHT, LEFT, seed=CLEAR, replaced=[RIGHT]))
    write(films / "none.png", np.full((300, 400), 90, np.uint8))
    write(films / "tiny.png", np.full((10, 10), 90, np.uint8))
    (films / "broken.png").write_bytes((films / "none.png").read_bytes()[:60])
    with caplog.at_level(logging.INFO):
        done, table, left = cut(films)
    assert not done  # two films can't be read
    assert table["filename"].tolist() == ["knees/cut_off_L.png", "knees/replaced_L.png"]
    reasons = dict(zip(left["film"], zip(left["knee"], left["reason"], strict=True), strict=True))
    assert reasons["cut_off.png"] == ("R", CUT_OFF) and reasons["replaced.png"] == ("R", PROSTHESIS)
    assert reasons["none.png"] == ("", NO_KNEE)
    assert "too small" in reasons["tiny.png"][1] and str(films) not in reasons["broken.png"][1]
    assert f"1 left out, {CUT_OFF}: cut_off.png (R)" in caplog.text
    assert "5 films: 2 knees cut, 3 left out (left_out.csv), 2 films could not be read" in caplog.text
    assert "2 of 2 knees have no label" in caplog.text


def test_where_no_film_has_a_knee_that_is_a_failure_in_one_sentence(films, caplog):
    write(films / "none.png", np.full((300, 400), 90, np.uint8))
    done, table, left = cut(films)
    assert not done and table.empty and len(left) == 1
    assert "No knee was cut, so that there is nothing to train on" in caplog.text


def test_a_knee_that_is_asked_for_and_one_that_is_listed_twice_are_told_apart(films):
    write(films / "a.png", whole_film(RIGHT, shape=(300, 400), seed=CLEAR))
    (films / "list.csv").write_text("filename,knee,label\na.png,L,3\na.png,R,1\na.png,R,2\n")
    done, table, left = cut(films / "list.csv")
    assert done and table[["filename", "label"]].to_numpy().tolist() == [["knees/a_R.png", "1"]]
    assert left[["knee", "label", "reason"]].to_numpy().tolist() == [
        ["L", "3", "no left knee was found"],
        ["R", "2", "listed twice"],
    ]


def test_films_that_tell_of_one_patient_are_one_patients_and_nothing_tells_which(films):
    for seed, name in enumerate(("b", "a", "c")):
        film = dicom(whole_film(RIGHT, LEFT, seed=CLEAR + seed), PatientID="PID-1" if name in "ab" else "PID-2")
        (films / f"{name}.dcm").write_bytes(dicom_bytes(film))
    _, table, _ = cut(films)
    assert dict(zip(table["film"], table["patient"], strict=True)) == {
        "a.dcm": "a.dcm",
        "b.dcm": "a.dcm",
        "c.dcm": "c.dcm",
    }
    written = [path.read_bytes() for path in (films.parent / "out").rglob("*") if path.is_file()]
    assert not any(b"PID-" in content for content in written)


def test_a_knee_that_is_cut_close_already_is_cut_as_it_is_and_side_tells_whose(films):
    knee, _ = synthesize(1, size=160, seed=5)
    write(films / "knee.png", knee[0])
    _, table, left = cut(films, side="L")
    assert table["side"].tolist() == ["L"] and left.empty
    assert table["box"].tolist() == ["0 0 160"]
    assert np.array_equal(np.asarray(Image.open(films.parent / "out" / table["filename"][0])), knee[0])


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["input=nowhere"], "input=nowhere does not exist."),
        (["input=.", "image_size=7"], "image_size=7"),
        ([], "input"),
    ],
)
def test_mistakes_are_one_sentence(typed, tmp_path, monkeypatch, inputs, words):
    monkeypatch.chdir(tmp_path)
    done = typed("legradnet-crop", *inputs, f"output={tmp_path}/out")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    monkeypatch.undo()
