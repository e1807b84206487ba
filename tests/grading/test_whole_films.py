import json
import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from hostile_films import dicom, dicom_bytes
from legradnet import Grader
from legradnet.cli import config_folder
from legradnet.data.film import ImageError
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.grading.grading import Grading, Knee, NotGraded, Request
from legradnet.grading.predictions import read_predictions
from legradnet.grading.run import predict
from legradnet.grading.whole_films import prepare_knees
from legradnet.localise.composites import Place, compose, with_prosthesis
from legradnet.localise.film_knees import BY_CONVENTION, CUT_OFF, NO_KNEE
from legradnet.localise.knees import Box
from legradnet.localise.metal import PROSTHESIS
from whole_films import CLEAR, LEFT, RIGHT, SIDE, whole_film


@pytest.fixture(scope="module")
def grader(trained):
    return Grader.load(trained / "checkpoints/best.ckpt", precision="f32")


@pytest.fixture(scope="module")
def both():
    return whole_film(RIGHT, LEFT, seed=CLEAR)


@pytest.fixture
def settings(trained):
    return plain_settings(trained)


def plain_settings(trained):
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "predict.yaml"), resolve=False)
    del config["hydra"]
    return config | {"checkpoint": str(trained / "checkpoints/best.ckpt"), "batch_size": 2}


def rows(folder):
    return pd.read_csv(folder / "predictions.csv", dtype=str, keep_default_na=False)


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_each_knee_is_graded_as_its_square_cut_by_hand(grader, both):
    right, left = grader.grade_knees(both)
    assert [knee.knee.side for knee in (right, left)] == ["R", "L"] and BY_CONVENTION in right.reason
    for knee in (right, left):
        alone = grader.grade(knee.knee.box.cut(both), knee.knee.side)
        assert knee.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    assert abs(right.knee.box.x + right.knee.box.side / 2 - RIGHT.x) < 0.15 * SIDE


def test_a_knee_cut_close_is_graded_as_ever(grader, knees):
    path = sorted(knees.glob("*.png"))[0]
    (found,) = grader.grade_knees(path)
    alone = grader.grade(path)
    assert found.knee is None
    assert (found.probabilities.tolist(), found.reason) == (alone.probabilities.tolist(), alone.reason)


def test_what_has_no_grade_has_a_reason(grader, both):
    (blank,) = grader.grade_knees(np.full((300, 400), 90, np.uint8), kind="whole")
    assert blank == NotGraded(blank.knee, NO_KNEE) and blank.knee.box is None
    start = round(RIGHT.x - 0.2 * SIDE)
    cut_off, other = grader.grade_knees(both[:, start:], kind="whole")
    assert isinstance(cut_off, NotGraded) and CUT_OFF in cut_off.reason and cut_off.knee.box.x < 0
    assert isinstance(other, Grading)
    with pytest.raises(UserError, match="auto, crop, whole"):
        grader.grade_knees(both, kind="all")


def test_a_replaced_knee_is_boxed_and_not_graded(grader):
    film = whole_film(RIGHT, LEFT, seed=CLEAR, replaced=[RIGHT])
    replaced, left = grader.grade_knees(film, kind="whole")
    assert isinstance(replaced, NotGraded) and PROSTHESIS in replaced.reason
    assert replaced.knee.side == "R" and replaced.knee.box is not None and isinstance(left, Grading)


@pytest.mark.parametrize("is_close", [True, False])
def test_a_replaced_knee_cut_close_is_not_graded_but_by_who_says_that_it_is_a_crop(grader, monkeypatch, is_close):
    monkeypatch.setattr("legradnet.grading.whole_films.is_cut_close", lambda _: is_close)
    (knee,), _ = synthesize(1, size=224, seed=CLEAR)
    film = np.roll(with_prosthesis(knee, np.random.default_rng(8)), int(is_close), axis=0)  # looks are remembered
    (replaced,) = grader.grade_knees(film)
    assert isinstance(replaced, NotGraded) and PROSTHESIS in replaced.reason
    (forced,) = grader.grade_knees(film, kind="crop")
    assert isinstance(forced, Grading) and PROSTHESIS in forced.reason and forced.referred


def test_one_knee_may_be_asked_for(grader, both):
    ((left,), (right,)) = next(grader.stream_knees([Request(both, knee="L"), Request(both, knee="R")]))
    assert left.knee.side == "L" and right.knee.side == "R"
    ((missing,),) = next(grader.stream_knees([Request(np.full((300, 400), 9, np.uint8), knee="L")], film="whole"))
    assert missing == NotGraded(Knee("L", None), NO_KNEE)


def test_a_lone_knee_of_a_film_of_both_legs_is_not_taken_for_the_other(grader):
    lone = whole_film(RIGHT, seed=CLEAR)
    requests = [Request(lone, knee="R"), Request(lone, knee="L"), Request(lone, "L", knee="L")]
    ((right,), (left,), (told,)) = next(grader.stream_knees(requests, film="whole"))
    assert right.knee.side == "R" and right.knee.box is not None
    assert left == NotGraded(Knee("L", None), "no left knee was found")
    assert told.knee == Knee("L", right.knee.box)  # whoever knows better says so


def test_a_dicom_film_of_both_knees_in_sixteen_bits_is_taken_and_one_of_one_knee_has_its_tag(grader, both, tmp_path):
    deep = both.astype(np.uint16) * 200
    (tmp_path / "both.dcm").write_bytes(
        dicom_bytes(dicom(deep, Laterality="B", PhotometricInterpretation="MONOCHROME1"))
    )
    inverted = grader.grade_knees(tmp_path / "both.dcm")
    assert [knee.knee.side for knee in inverted] == ["R", "L"]
    (tmp_path / "one.dcm").write_bytes(dicom_bytes(dicom(deep[:, :200], ImageLaterality="L")))
    (lone,) = grader.grade_knees(tmp_path / "one.dcm", kind="whole")
    assert lone.knee.side == "L" and BY_CONVENTION not in lone.reason


def test_the_table_has_a_row_a_knee_and_other_rows_stay_as_they_are(settings, tmp_path, knees, both):
    films = tmp_path / "films"
    films.mkdir()
    for number, path in enumerate(sorted(knees.glob("*.png"))[:5]):
        (films / f"{number}.png").write_bytes(path.read_bytes())
    predict(settings | {"input": str(films)}, tmp_path / "before")
    assert "knee" not in rows(tmp_path / "before")
    Image.fromarray(both).save(films / "3b.png")
    Image.fromarray(np.full((300, 400), 90, np.uint8)).save(films / "9.png")
    assert predict(settings | {"input": str(films)}, tmp_path / "run")
    table = rows(tmp_path / "run")
    assert list(table)[:4] == ["filename", "knee", "box", "grade"]
    assert table["filename"].tolist() == ["0.png", "1.png", "2.png", "3.png", "3b.png", "3b.png", "4.png", "9.png"]
    assert table["knee"].tolist() == ["", "", "", "", "R", "L", "", ""]
    assert (table["grade"] == "").tolist() == [False] * 7 + [True]
    assert table["reason"].tolist()[-1].startswith(NO_KNEE) and (table["error"] == "").all()
    x, y, side = map(int, table["box"][4].split())
    assert lines(tmp_path / "run")[4]["box"] == [x, y, side] == list(Box(x, y, side))
    crops = [line for line in lines(tmp_path / "run") if line["filename"] not in ("3b.png", "9.png")]
    assert crops == lines(tmp_path / "before")
    assert len(read_predictions(tmp_path / "run/predictions.csv").table) == 7


def lateral():
    """One condyle as wide as two, as a knee is seen from the side."""
    knees, _ = synthesize(1, size=128, seed=CLEAR)
    half = np.array(Image.fromarray(knees[0][:, :64]).resize((128, 128), Image.Resampling.BILINEAR))
    return compose([half], [Place(200, 150, 150)], (300, 400), np.random.default_rng(CLEAR))


KINDS = {  # of each film: its knees, and what is said of those without a grade
    "ankle.png": [("R", ""), ("L", "")],
    "both.dcm": [("R", ""), ("L", "")],
    "both.png": [("R", ""), ("L", "")],
    "close.png": [("", "")],
    "cut_off.png": [("R", CUT_OFF), ("L", "")],
    "deep.png": [("R", ""), ("L", "")],
    "leg_L.png": [("L", "")],
    "none.png": [("", NO_KNEE)],
    "replaced.png": [("R", PROSTHESIS), ("L", "")],
    "tagged.dcm": [("L", "")],
    "tiny.png": [("", "too small")],
}


def test_every_kind_of_film_has_its_rows(settings, tmp_path, both, knees):
    (tmp_path / "films").mkdir()
    deep = both.astype(np.uint16) * 200
    pictures = {
        "ankle": whole_film(Place(110, 450, 84), Place(290, 455, 84), shape=(1000, 400), seed=CLEAR),
        "both": both,
        "cut_off": both[:, round(RIGHT.x - 0.2 * SIDE) :],
        "deep": deep,
        "lateral": lateral(),
        "leg_L": deep[:, :200],
        "none": np.full((300, 400), 90, np.uint8),
        "replaced": whole_film(RIGHT, LEFT, seed=CLEAR, replaced=[RIGHT]),
        "tiny": np.full((10, 10), 90, np.uint8),
    }
    for name, picture in pictures.items():
        Image.fromarray(picture).save(tmp_path / "films" / f"{name}.png")
    shutil.copy(sorted(knees.glob("*R.png"))[0], tmp_path / "films/close.png")
    for name, pixels, side in (("both", deep, "B"), ("tagged", deep[:, :200], "L")):
        (tmp_path / f"films/{name}.dcm").write_bytes(dicom_bytes(dicom(pixels, Laterality=side)))
    assert not predict(settings | {"input": str(tmp_path / "films"), "batch_size": 8}, tmp_path / "run")  # tiny
    table = rows(tmp_path / "run")
    found = {}
    for _, row in table.iterrows():
        found.setdefault(row["filename"], []).append(row)
    assert set(found) == {*KINDS, "lateral.png"}
    assert all(row["grade"] == "" or row["referred"] == "true" for row in found["lateral.png"])
    for name, expected in KINDS.items():
        assert [row["knee"] for row in found[name]] == [knee for knee, _ in expected], name
        for row, (_, why) in zip(found[name], expected, strict=True):
            assert (row["grade"] == "") == bool(why) and why in row["reason"] + row["error"], name


@pytest.fixture(scope="module")
def never_killed(trained, both, tmp_path_factory):
    films = tmp_path_factory.mktemp("killed") / "films"
    films.mkdir()
    for name in "ab":
        Image.fromarray(both).save(films / f"{name}.png")
    config = plain_settings(trained) | {"input": str(films), "batch_size": 1}
    predict(config, films.parent / "run")
    return config, films.parent / "run"


@pytest.mark.parametrize("kept", [1, 2, 3])
def test_a_run_cut_off_between_two_knees_goes_on_to_the_same_files(never_killed, tmp_path, kept):
    config, whole = never_killed
    shutil.copytree(whole, tmp_path / "run")
    names = ("predictions.csv", "predictions.jsonl")
    lines = (whole / names[1]).read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    (tmp_path / "run" / names[1]).write_bytes(b"".join(lines[:kept]))
    predict(config | {"resume": True}, tmp_path / "run")
    assert all((tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes() for name in names)


def test_labels_of_a_csv_are_of_the_knee_that_they_name(settings, tmp_path, both):
    Image.fromarray(both).save(tmp_path / "a.png")
    cells = [["a.png", "left", 3], ["a.png", "R", 1], ["a.png", "", 4], ["none.png", "R", 2]]
    pd.DataFrame(cells, columns=["filename", "knee", "label"]).to_csv(tmp_path / "list.csv", index=False)
    predict(settings | {"input": str(tmp_path / "list.csv")}, tmp_path / "run")
    table = rows(tmp_path / "run")
    assert table[["knee", "label"]].to_numpy().tolist() == [["L", "3"], ["R", "1"], ["R", ""], ["L", ""], ["R", "2"]]


def test_the_map_of_a_knee_lies_on_the_whole_film(grader, both):
    right, _ = prepare_knees(grader.networks, Request(both))
    explained = grader.explain(both, knee="R", method="occlusion")
    assert explained.grading.knee == right.knee
    with pytest.raises(ImageError, match="not explained: no left knee was found"):
        grader.explain(whole_film(RIGHT, seed=CLEAR), knee="L")
    assert explained.film.shape == explained.maps["fused"].shape == both.shape
    x, y, side = right.knee.box
    outside = explained.maps["fused"].copy()
    outside[max(y, 0) : y + side, max(x, 0) : x + side] = 0
    assert not outside.any()
