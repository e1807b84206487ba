"""Whole films in a reading: a row a knee, its square, its map and its marks; and films that tell of one patient."""

import io
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from readings import a_room, client, films, mark, said

from hostile_films import dicom, dicom_bytes
from legradnet.data.inputs import InputFilm
from legradnet.data.manifest import load_manifest
from legradnet.data.patients import digest_of
from legradnet.grading.grader import Grader
from legradnet.localise.film_knees import NO_KNEE
from legradnet.viewer.worklist import new_row
from whole_films import CLEAR, LEFT, RIGHT, whole_film


@pytest.fixture(scope="module")
def grader(trained):
    return Grader.load(trained / "checkpoints/best.ckpt", device="cpu", precision="f32")


def until(is_so, seconds=30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(scope="module")
def legs(tmp_path_factory):
    path = tmp_path_factory.mktemp("legs") / "legs.png"
    Image.fromarray(whole_film(RIGHT, LEFT, seed=CLEAR)).save(path)
    return path


@pytest.fixture
def graded(tmp_path, legs, grader):
    """A reading of a film of both knees and of one without, that was graded behind the page."""
    Image.fromarray(np.full((300, 400), 90, np.uint8)).save(tmp_path / "none.png")
    rows = [new_row(InputFilm(path.name, path), "") for path in (legs, tmp_path / "none.png")]
    with a_room(tmp_path, rows=rows, grader=grader) as room:
        until(lambda: room.grading.state == "done")
        yield room


def test_the_knees_of_a_whole_film_become_rows_that_stand_side_by_side(graded):
    reader = client(graded, "A")
    left, right, none = films(reader, sort="side")
    assert (left["knee"], right["knee"], left["side"]) == ("L", "R", "L") and left["box"] != right["box"]
    assert left["patient_group"] == right["patient_group"] is not None
    assert reader.get(f"/api/films/{left['id']}").json()["other_knee"] == [right["id"]]
    assert none["grade"] is None and none["status"] == "graded" and none["reason"].startswith(NO_KNEE)
    assert none["box"] is None and none["patient_group"] is None


def test_marks_and_exports_go_by_film_and_knee_and_measuring_takes_them(graded, tmp_path, legs):
    reader = client(graded, "A")
    left, right, _ = films(reader, sort="side")
    mark(reader, left["id"], 3)
    assert [film["mark"] and film["mark"]["grade"] for film in films(reader, sort="side")] == [3, None, None]
    mark(reader, right["id"], 1)
    text = reader.get("/api/export").text
    table = pd.read_csv(io.StringIO(text), dtype=str)
    assert table[["filename", "knee", "side", "label"]].to_numpy().tolist() == [
        ["legs.png", "R", "R", "1"],
        ["legs.png", "L", "L", "3"],
    ]
    assert table["patient"].tolist() == ["legs.png"] * 2
    assert table["box"][1] == " ".join(map(str, left["box"]))
    (tmp_path / "labels.csv").write_text(text)
    manifest = load_manifest(legs.parent, tmp_path / "labels.csv", num_classes=5, knees=True)
    assert manifest.table["label"].tolist() == [1, 3]


def test_the_map_of_a_knee_lies_in_its_square_and_its_thumbnail_shows_it(graded):
    reader = client(graded, "A")
    left, right, _ = films(reader, sort="side")
    answer = reader.get(f"/api/films/{left['id']}/map", params={"method": "occlusion"})
    assert answer.status_code == 200, answer.text
    heat = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert heat.shape == (300, 400)
    x, y, side = left["box"]
    outside = heat.copy()
    outside[y : y + side, x : x + side] = 0
    assert heat.any() and not outside.any()
    small = [reader.get(f"/api/films/{film['id']}/thumbnail").content for film in (left, right)]
    assert small[0] != small[1] and Image.open(io.BytesIO(small[0])).size == (min(160, side),) * 2


def test_a_square_that_is_not_on_its_film_has_no_map(tmp_path, legs, grader):
    record = said("legs.png", 1, knee="R", box=[5000, 5000, 100])
    row = new_row(InputFilm("legs.png", legs), "", record=record)
    with a_room(tmp_path, rows=[row], grader=grader) as room:
        until(lambda: room.grading.grader)
        answer = client(room, "A").get(f"/api/films/{row.id}/map")
    assert answer.status_code == 422 and "not on its film" in answer.json()["error"]


def test_a_mark_waits_until_it_is_known_which_knees_a_film_shows(tmp_path, legs, knees):
    crop = sorted(knees.glob("*R.png"))[0]
    rows = [new_row(InputFilm(path.name, path), "") for path in (legs, crop)]
    asked = new_row(InputFilm("legs.png", legs, knee="L"), "")
    with a_room(tmp_path, rows=[*rows, asked]) as room:
        reader = client(room, "A")
        body = {"grade": 1, "ungradable": False}
        refused = reader.post(f"/api/films/{rows[0].id}/mark", json=body)
        assert refused.status_code == 409 and "a row for each of its knees" in refused.json()["error"]
        assert mark(reader, rows[1].id, 2)["mark"]["grade"] == 2  # a knee cut close is no other film afterwards
        assert mark(reader, asked.id, 3)["knee"] == "L"


# --------------------------------------------------------------------------------------------------- whose a film is
def write(folder, name, patient):
    pixels = np.random.default_rng(len(name)).integers(0, 255, (40, 30)).astype(np.uint8)
    (folder / name).write_bytes(dicom_bytes(dicom(pixels, PatientID=patient, ImageLaterality=name[0])))
    return InputFilm(name, folder / name)


def test_films_of_one_patient_stand_side_by_side_by_their_tags_which_leave_them_nowhere(tmp_path):
    given = [("R1.dcm", "PID-77"), ("L1.dcm", "PID-77"), ("R_2019.dcm", "PID-77"), ("R2.dcm", "PID-78")]
    given += [("Rx.dcm", "ANONYMOUS"), ("Ry.dcm", "ANONYMOUS")]
    rows = [new_row(write(tmp_path, *film), film[0][0]) for film in given]
    told = new_row(write(tmp_path, "L_told.dcm", "PID-77"), "L", patient=0, is_patient_told=True)
    with a_room(tmp_path, rows=[told, *rows]) as room:
        room.recall()
        reader = client(room, "A")
        listed = {film["name"]: film for film in films(reader, sort="listed")}
        groups = {name: film["patient_group"] for name, film in listed.items()}
        first = reader.get(f"/api/films/{rows[0].id}").json()
        (tmp_path / "list.txt").write_text(str(listed))
    assert groups["R1.dcm"] == groups["L1.dcm"] == groups["R_2019.dcm"] not in (None, 0)
    assert groups["R2.dcm"] not in (None, groups["R1.dcm"])
    assert groups["Rx.dcm"] is groups["Ry.dcm"] is None and groups["L_told.dcm"] == 0
    assert (first["other_knee"], first["earlier"]) == ([rows[1].id], [rows[2].id])
    digests = (digest_of("PID-77"), digest_of("PID-78"))
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.suffix != ".dcm":
            content = path.read_bytes()
            assert b"PID-7" not in content and not any(digest.encode() in content for digest in digests), path


def test_a_dropped_film_stands_beside_its_patients_others(tmp_path):
    row = new_row(write(tmp_path, "R1.dcm", "PID-77"), "R")
    with a_room(tmp_path, rows=[row]) as room:
        room.recall()
        reader = client(room, "A")
        content = write(tmp_path, "L9.dcm", "PID-77").film.read_bytes()
        dropped = reader.put("/films", params={"name": "L9.dcm"}, content=content).json()["id"]
        assert reader.get(f"/api/films/{dropped}").json()["other_knee"] == [row.id]
