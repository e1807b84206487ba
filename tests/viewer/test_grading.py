"""Grading behind the page, heat maps, and a predict run that is looked at without grading anything twice."""

import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image
from readings import a_room, client, films, mark, said, write_film

from legradnet.data.inputs import InputFilm, list_films
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.journal import json_lines
from legradnet.grading.predictions import record
from legradnet.run_folder import RunFolder
from legradnet.viewer.finished import Given, OwnGrades, given_films, rows_of
from legradnet.viewer.run import start_grading
from legradnet.viewer.settings import ViewSettings
from legradnet.viewer.worklist import new_row


@pytest.fixture(scope="module")
def grader(trained):
    return Grader.load(trained / "checkpoints/best.ckpt", device="cpu", precision="f32")


@pytest.fixture
def waiting(knees):
    """Rows of 40 films that nobody has graded."""
    return [new_row(film, film.side) for film in list_films(knees)]


def until(is_so, seconds=30):
    end = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_films_are_graded_as_predict_grades_them_and_the_first_is_there_before_the_last(tmp_path, grader, waiting):
    finished = []
    with a_room(tmp_path, rows=waiting, grader=grader) as room:
        room.worklist.changed = lambda row: finished.append(room.worklist.finished)
        until(lambda: room.grading.state == "done")
        made = [row.record for row in room.worklist.rows]
    assert 1 in finished and finished[-1] == 40
    films_ = [row.film for row in waiting]
    batches = Grader(grader.networks, batch_size=4).stream(Request(film.film, film.side) for film in films_)
    assert made == [record(film, grading) for film, grading in zip(films_, sum(batches, []), strict=True)]  # noqa: RUF017


def test_grading_is_paused_gone_on_with_and_stopped(tmp_path, grader, waiting):
    gate = threading.Event()
    with a_room(tmp_path, rows=waiting, grader=grader) as room:
        reader = client(room, "A")
        room.grading._kept = lambda records: gate.wait(10)
        act = lambda action: reader.post("/api/grading", json={"action": action}).json()["state"]  # noqa: E731
        assert act("pause") == "paused"
        gate.set()
        time.sleep(0.3)
        at_rest = room.worklist.finished
        time.sleep(0.3)
        assert room.worklist.finished == at_rest < 40
        assert act("resume") == "grading"
        until(lambda: room.worklist.finished > at_rest)
        gate.clear()
        assert act("stop") == "stopped"
        gate.set()
        until(lambda: not room.grading._is_busy)
        stopped = room.worklist.finished
        assert stopped < 40 and act("resume") == "stopped"
        assert reader.post("/api/grading", json={"action": "burn"}).status_code == 400
        assert mark(reader, films(reader, status="waiting")[0]["id"], 2)["mark"]["grade"] == 2


def test_a_model_that_cannot_be_loaded_is_told_and_films_are_looked_at_all_the_same(tmp_path):
    def load():
        raise UserError("best.ckpt does not exist.")

    with a_room(tmp_path) as room:
        room.grading._load = load
        room.grading.start()
        until(lambda: room.grading.error)
        reader = client(room, "A")
        session = reader.get("/api/session").json()
        assert (session["error"], session["words"]["maps"], session["methods"]) == (
            *["best.ckpt does not exist."] * 2,
            [],
        )
        film = films(reader)[0]["id"]
        assert reader.get(f"/api/films/{film}/map").status_code == 409
        assert reader.get(f"/api/films/{film}/pixels").status_code == 200


def test_where_all_films_are_graded_the_first_one_is_shown_before_the_model_is_loaded(tmp_path):
    loads = threading.Event()
    with a_room(tmp_path) as room:
        room.grading._load = lambda: loads.set() or time.sleep(0.1)
        starting = threading.Thread(target=start_grading, args=(room,))
        starting.start()
        reader = client(room, "A")
        film = films(reader)[0]["id"]
        assert not loads.is_set()
        assert reader.get(f"/api/films/{film}/pixels").status_code == 200
        assert loads.wait(2.5)
        starting.join()


def test_a_heat_map_is_that_of_explain_on_one_scale_for_all_backbones(tmp_path, grader, knees):
    film = InputFilm("knee.png", sorted(knees.glob("*R.png"))[0])
    with a_room(tmp_path, rows=[new_row(film, "R", record=said("knee.png", 1))], grader=grader) as room:
        reader = client(room, "A")
        until(lambda: room.grading.grader)
        session = reader.get("/api/session").json()
        assert {"name": "occlusion", "slow": True} in session["methods"] and session["ready"]
        place = f"/api/films/{films(reader)[0]['id']}/map"
        answers = {key: reader.get(place, params={"backbone": key}) for key in ("fused", *session["backbones"])}
        assert len({answer.headers["X-Scale"] for answer in answers.values()}) == 1
        assert sum(float(answers[key].headers["X-Share"]) for key in session["backbones"]) == pytest.approx(1, abs=1e-4)
        wanted = grader.explain(film.film, "R").maps["fused"] / float(answers["fused"].headers["X-Scale"])
        shown = np.asarray(Image.open(io.BytesIO(answers["fused"].content)))
        assert np.abs(shown - 255 * wanted.clip(0, 1)).max() <= 1
        for asked, words in (({"method": "gaze"}, "unknown"), ({"backbone": "resnet"}, "has no map")):
            answer = reader.get(place, params=asked)
            assert answer.status_code == 422 and words in answer.json()["error"]
        assert room.maps.map(room.worklist.rows[0], "gradcam", "fused").png is room.maps.map(
            room.worklist.rows[0], "gradcam", "fused").png  # fmt: skip


def test_the_map_of_one_knee_of_a_whole_film_lies_in_its_box(tmp_path, grader):
    film = InputFilm("whole.png", write_film(tmp_path, "whole.png", size=(100, 200)))
    rows = [new_row(film, "R", knee="R", box=(20, 10, 80), record=said("whole.png", 1))]
    with a_room(tmp_path, rows=rows, grader=grader) as room:
        reader = client(room, "A")
        until(lambda: room.grading.grader)
        answer = reader.get(f"/api/films/{films(reader)[0]['id']}/map")
    shown = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert shown.shape == (100, 200) and shown[10:90, 20:100].any()
    shown = shown.copy()
    shown[10:90, 20:100] = 0
    assert not shown.any()


# ------------------------------------------------------------------------------------------ a predict run
def predict_run(folder, source, records, **settings):
    run = RunFolder(folder)
    run.write_config({"checkpoint": "best.ckpt", "input": str(source), **settings})
    run.predictions_json.write_text("".join(json.dumps(line) + "\n" for line in records))
    return ViewSettings(input=str(folder))


def test_a_predict_run_is_looked_at_without_grading_and_what_it_left_out_waits(tmp_path):
    for i in range(3):
        write_film(tmp_path, f"knee{i}.png")
    (tmp_path / "films.csv").write_text(
        "filename,patient,side\n" + "".join(f"knee{i}.png,p,{'RL'[i % 2]}\n" for i in range(3))
    )
    lines = [said("knee0.png", 2), {"filename": "knee1.png", "label": None, "error": "the file is empty"}]
    settings = predict_run(tmp_path / "run", tmp_path / "films.csv", lines)
    given = given_films(settings)
    rows = list(rows_of(given, settings))
    assert [row.status for row in rows] == ["graded", "error", "waiting"]
    assert given.checkpoint == "best.ckpt" and [row.side for row in rows] == ["R", "L", "R"]
    assert {row.patient for row in rows} == {0}


def test_both_knees_of_a_whole_film_are_a_row_each(tmp_path):
    name = str(write_film(tmp_path, "both.png"))
    lines = [said(name, 1, knee="R", box=[0, 5, 20], knees=2), said(name, 3, knee="L", box=[25, 5, 20], knees=2)]
    settings = predict_run(tmp_path / "run", name, lines)
    rows = list(rows_of(given_films(settings), settings))
    assert [(row.knee, row.box, row.grade) for row in rows] == [("R", (0, 5, 20), 1), ("L", (25, 5, 20), 3)]


def test_a_film_that_is_listed_twice_is_two_rows(tmp_path):
    write_film(tmp_path, "a.png")
    (tmp_path / "films.csv").write_text("filename\na.png\na.png\n")
    settings = predict_run(tmp_path / "run", tmp_path / "films.csv", [said("a.png", 1), said("a.png", 2)])
    assert [row.grade for row in rows_of(given_films(settings), settings)] == [1, 2]


def test_a_knee_without_a_grade_is_shown_with_the_reason(tmp_path):
    left = {"filename": "a.png", "label": None, "error": None, "grade": None, "reason": "metal", "referred": True}
    row = new_row(InputFilm("a.png", write_film(tmp_path, "a.png")), "", record=left)
    with a_room(tmp_path, rows=[row]) as room:
        reader = client(room, "A")
        (film,) = films(reader)
        whole = reader.get(f"/api/films/{film['id']}").json()
        assert (film["status"], film["grade"], film["reason"], whole["reasons"]) == ("graded", None, "metal", ["metal"])
        assert mark(reader, film["id"], 3)["mark"]["grade"] == 3


def test_a_predict_run_whose_films_have_gone_is_told(tmp_path):
    settings = predict_run(tmp_path / "run", tmp_path / "gone", [said("a.png", 1)])
    with pytest.raises(UserError, match=r"predict run of films that are not found: input=.*gone does not exist"):
        given_films(settings)


def test_patients_of_a_folder_are_found_by_their_names(tmp_path):
    for name in ("p1_R.png", "p1_L.png", "p2_R.png", "other.png"):
        write_film(tmp_path, name)
    settings = ViewSettings(input=str(tmp_path), data={"patient_regex": r"(?P<patient>p\d)_(?P<side>[LR])"})
    rows = {row.film.filename: row for row in rows_of(given_films(settings), settings)}
    assert rows["p1_R.png"].patient == rows["p1_L.png"].patient != rows["p2_R.png"].patient
    assert rows["other.png"].patient is None and rows["p1_L.png"].side == "L"


def test_what_was_graded_in_an_output_folder_is_not_graded_again_nor_by_other_settings(tmp_path):
    settings = ViewSettings(checkpoint="a.ckpt")
    own = OwnGrades(tmp_path, settings)
    own.path.write_text(json.dumps(said("a.png", 1)) + "\n" + '{"filename": "cut')
    (tmp_path / "films").mkdir()
    write_film(tmp_path / "films", "a.png")
    again = OwnGrades(tmp_path, settings)
    assert list(again.records) == ["a.png"] and again.path.read_text().count("\n") == 1
    assert [film.filename for film in again.dropped] == ["a.png"]
    with pytest.raises(UserError, match=r"checkpoint: was a.ckpt, now b.ckpt"):
        OwnGrades(tmp_path, ViewSettings(checkpoint="b.ckpt"))
    with pytest.raises(UserError, match=r"study: was None, now blind"):
        OwnGrades(tmp_path, ViewSettings(checkpoint="a.ckpt", study="blind"))
    (tmp_path / "predictions.csv").touch()
    with pytest.raises(UserError, match="another run"):
        OwnGrades(tmp_path, settings)


def test_a_blind_study_is_gone_on_with_in_its_own_order(tmp_path):
    OwnGrades(tmp_path, ViewSettings(study="blind", seed=1))
    OwnGrades(tmp_path, ViewSettings(study="blind", seed=1))
    with pytest.raises(UserError, match=r"seed: was 1, now 2"):
        OwnGrades(tmp_path, ViewSettings(study="blind", seed=2))


def test_a_film_that_was_replaced_since_is_graded_again_and_one_that_was_not_is_not(tmp_path, grader, knees):
    paths = sorted(knees.glob("*R.png"))[:2]
    (tmp_path / "films").mkdir()
    for path in paths:
        (tmp_path / "films" / path.name).write_bytes(path.read_bytes())
    kept = []
    listed = list_films(tmp_path / "films")
    with a_room(tmp_path, rows=[new_row(film, "R") for film in listed], grader=grader) as room:
        room.grading._kept = kept.extend
        until(lambda: room.grading.state == "done")
    (tmp_path / "films" / paths[0].name).write_bytes(paths[0].read_bytes() + b" ")
    own = OwnGrades(tmp_path / "out", ViewSettings())
    own.path.write_text(json_lines(kept))
    given = Given(listed, OwnGrades(tmp_path / "out", ViewSettings()).records)
    assert [row.status for row in rows_of(given, ViewSettings())] == ["waiting", "graded"]
