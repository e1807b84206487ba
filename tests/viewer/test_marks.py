"""Readers' marks: stored before they are shown as stored, never overwritten, taken back, and exported."""

import sqlite3
import threading
import time

import pytest
from readings import a_room, client, films, mark, names, rows_for, write_film

from legradnet.data.manifest import load_manifest
from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.viewer.journal import Journal


def test_a_mark_is_stored_with_what_the_model_had_said_and_whether_it_was_shown(room, reader, tmp_path):
    film = films(reader, sort="listed")[1]
    answer = mark(reader, film["id"], 3, note=" sclerosis\0 ", shown=False)
    assert (answer["mark"]["grade"], answer["mark"]["note"], answer["mark"]["shown"]) == (3, "sclerosis", False)
    with sqlite3.connect(tmp_path / "marks.sqlite") as other:  # another connection sees what is committed
        other.row_factory = sqlite3.Row
        (row,) = other.execute("SELECT * FROM marks").fetchall()
    assert (row["reader"], row["grade"], row["seconds"], row["shown"], row["name"]) == ("A", 3, 6.0, 0, "knee1L.png")
    assert '"grade": 1' in row["model"] and len(row["film"]) == 64


def test_the_journal_waits_until_a_mark_is_safe_on_disk(room):
    assert room.journal._number("synchronous") == 2  # FULL


@pytest.mark.parametrize("words", ["UPDATE marks SET grade = 0", "DELETE FROM marks"])
def test_nothing_in_the_journal_is_ever_changed(room, reader, tmp_path, words):
    mark(reader, films(reader)[0]["id"], 2)
    with pytest.raises(sqlite3.IntegrityError, match="a journal is not changed"):
        sqlite3.connect(tmp_path / "marks.sqlite").execute(words)


def test_marks_are_there_again_for_the_same_films_and_not_for_others_of_that_name(tmp_path):
    with a_room(tmp_path) as room:
        reader = client(room, "A")
        for film in films(reader, sort="listed")[:3]:
            mark(reader, film["id"], 4)
    with a_room(tmp_path, rows=[]) as room:
        again = list(rows_for(tmp_path / "again"))
        again[1].film.film.write_bytes((tmp_path / "again/knee5L.png").read_bytes())  # another film of that name
        room.worklist.add(again)
        room.recall()
        assert names(client(room, "A"), mark="any", sort="listed") == ["knee0R.png", "knee2R.png"]


def test_undo_takes_back_one_mark_after_the_other_and_then_says_that_there_is_none(reader):
    first, second, *_ = films(reader, sort="listed")
    mark(reader, first["id"], 1)
    mark(reader, second["id"], 2)
    mark(reader, second["id"], 3)
    assert reader.post("/api/undo").json()["item"]["mark"]["grade"] == 2
    assert reader.post("/api/undo").json()["item"]["mark"] is None
    assert reader.post("/api/undo").json()["film"] == first["id"]
    assert reader.post("/api/undo").status_code == 409


def test_a_mark_that_is_sent_again_as_its_answer_was_lost_is_stored_once(room, reader):
    film = films(reader)[0]["id"]
    told = [mark(reader, film, 2, note="a", seconds=4.2)["mark"] for _ in range(3)]
    assert room.journal.revision == 1 and told[0] == told[2]
    mark(reader, film, 2, note="a", seconds=1.5)  # was looked at again
    assert room.journal.revision == 2
    assert reader.get("/api/summary").json()["pace"][0]["minutes"] == pytest.approx(5.7 / 60)


def test_undo_is_the_readers_own(room, reader):
    other = client(room, "B")
    film = films(reader)[0]["id"]
    mark(reader, film, 1)
    assert other.post("/api/undo").status_code == 409
    mark(other, film, 2)
    reader.post("/api/undo")
    assert [(m["reader"], m["grade"]) for m in films(reader)[0]["marks"]] == [("B", 2)]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"grade": 5},
        {"grade": -1},
        {"grade": True},
        {"grade": 2.0},
        {"grade": "2"},
        {"grade": 2, "ungradable": True},
        {"grade": None, "ungradable": False},
        {"grade": 2, "note": 5},
        {"grade": 2, "note": "x" * 2001},
        {"grade": 2, "seconds": -1},
        {"grade": 2, "seconds": "x"},
        {"grade": 2, "colour": "red"},
        [2],
    ],
)
def test_what_is_no_mark_is_refused_and_nothing_is_stored(room, reader, body):
    answer = reader.post(f"/api/films/{films(reader)[0]['id']}/mark", json=body)
    assert answer.status_code == 400 and answer.json()["error"].endswith(".")
    assert room.journal.revision == 0


@pytest.mark.parametrize(
    "error",
    [sqlite3.OperationalError("database or disk is full"), sqlite3.DatabaseError("database disk image is malformed")],
)
def test_a_mark_that_cannot_be_stored_is_told_and_not_shown(room, reader, monkeypatch, error):
    def refuse(*_):
        raise error

    class Refusing:
        execute, close = refuse, room.journal._database.close

    monkeypatch.setattr(room.journal, "_database", Refusing())
    answer = reader.post(f"/api/films/{films(reader)[0]['id']}/mark", json={"grade": 2})
    assert answer.status_code == 503 and str(error) in answer.json()["error"]
    assert films(reader)[0]["mark"] is None


def test_while_another_program_holds_the_journal_films_are_looked_at_and_a_mark_waits(room, reader, tmp_path):
    other = sqlite3.connect(tmp_path / "marks.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    film, told = films(reader)[0]["id"], []
    body = {"grade": 2, "ungradable": False}
    marking = threading.Thread(target=lambda: told.append(reader.post(f"/api/films/{film}/mark", json=body)))
    marking.start()
    while not room.worklist.by_id[film].digest:  # until it is on its way
        time.sleep(0.001)
    assert films(client(room, "B"))[0]["mark"] is None
    other.execute("COMMIT")
    marking.join()
    assert told[0].status_code == 200 and films(reader)[0]["mark"]["grade"] == 2


def test_a_journal_that_a_kill_left_without_a_table_is_begun_anew(tmp_path):
    with sqlite3.connect(tmp_path / "marks.sqlite") as begun:
        begun.execute("PRAGMA journal_mode = WAL")  # writes the head of the file and no more
    begun.close()
    assert (tmp_path / "marks.sqlite").stat().st_size > 0
    Journal(tmp_path / "marks.sqlite").close()


def test_what_is_said_of_a_film_is_said_of_no_other_that_takes_its_place(room, reader, tmp_path):
    first, second, *_ = films(reader, sort="listed")
    mark(reader, first["id"], 1)
    assert reader.get(f"/api/films/{second['id']}/thumbnail").status_code == 200
    for name in ("knee0R.png", "knee1L.png"):
        write_film(tmp_path / "films", name, seed=77, size=(50, 50))
    for film in (first, second):
        answer = reader.post(f"/api/films/{film['id']}/mark", json={"grade": 4})
        assert answer.status_code == 422 and "its file has changed" in answer.json()["error"]
        assert reader.get(f"/api/films/{film['id']}/pixels").status_code == 422
    assert room.journal.revision == 1


def test_a_marked_film_that_is_gone_keeps_its_marks(reader, tmp_path):
    film = films(reader, sort="listed")[0]["id"]
    mark(reader, film, 1)
    (tmp_path / "films/knee0R.png").unlink()
    assert mark(reader, film, 2)["mark"]["grade"] == 2
    answer = reader.get(f"/api/films/{film}/pixels")
    assert answer.status_code == 422 and "No such file" in answer.json()["error"]


@pytest.mark.parametrize("content", [b"no database at all, but a text of some length" * 50, None])
def test_a_file_that_is_no_journal_is_refused(tmp_path, content):
    path = tmp_path / "marks.sqlite"
    if content is None:
        sqlite3.connect(path).execute("CREATE TABLE marks (id)")
    else:
        path.write_bytes(content)
    with pytest.raises(UserError, match="journal of marks"):
        Journal(path)


def test_a_journal_is_not_written_through_a_link(tmp_path):
    (tmp_path / "marks.sqlite").symlink_to(tmp_path / "victim")
    with pytest.raises(NotWrittenError, match="link"):
        Journal(tmp_path / "marks.sqlite")
    assert not (tmp_path / "victim").exists()


def test_who_has_read_before_counts_too(tmp_path):
    with a_room(tmp_path, readers=("A",)) as room:
        reader = client(room, "A")
        mark(reader, films(reader, sort="listed")[0]["id"], 4)
    with a_room(tmp_path, readers=("B",)) as room:
        room.recall()
        reader = client(room, "B")
        assert [own["reader"] for own in films(reader, sort="listed")[0]["marks"]] == ["A"]
        assert [row[1] for row in export(reader)] == ["4"]
        assert reader.get("/api/session").json()["readers"] == ["B", "A"]


def export(made, which="", **asked):
    answer = made.get(f"/api/export{which}", params=asked)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8", answer.text
    return [line.split(",") for line in answer.text.splitlines()[1:]]


def test_the_export_has_what_most_readers_say_and_apart_what_has_no_grade(tmp_path):
    with a_room(tmp_path, readers=("A", "B", "C")) as room:
        readers = [client(room, name) for name in "ABC"]
        ids = [film["id"] for film in films(readers[0], sort="listed")]
        for film, grades in zip(ids, [(1, 1, 2), (0, 1, 2), (None, None, 3), (4,)], strict=False):
            for made, grade in zip(readers, grades, strict=False):
                mark(made, film, grade)
        assert export(readers[0]) == [
            ["knee0R.png", "1", "secret-0", "R", "3", ""],
            ["knee3L.png", "4", "secret-1", "L", "1", ""],
        ]
        assert [(row[0], row[3]) for row in export(readers[0], "/ungradable")] == [
            ("knee1L.png", '"no majority (A: 0'),
            ("knee2R.png", "ungradable"),
        ]
        assert [row[:2] for row in export(readers[1], reader="C")] == [
            ["knee0R.png", "2"],
            ["knee1L.png", "2"],
            ["knee2R.png", "3"],
        ]
        assert readers[0].get("/api/export?reader=nobody").status_code == 404


def test_a_formula_in_a_note_is_text_in_the_export(reader):
    for film, note in zip(
        films(reader, sort="listed"), ['=HYPERLINK("x")', "+1", "\t@a", "-1\n=2", "a;=1+1 | +2;b"], strict=False
    ):
        mark(reader, film["id"], 1, note=note)
    text = reader.get("/api/export?reader=A").text
    assert [line.rpartition(",")[2] for line in text.splitlines()[1:]] == [
        '"\'=HYPERLINK(""x"")"',
        "'+1",
        "'@a",
        "'-1 =2",
        "a;'=1+1 | '+2;b",  # where a semicolon or a bar begins a cell
    ]


def test_training_takes_the_export_as_it_is(reader, tmp_path):
    for i, film in enumerate(films(reader, sort="listed")):
        mark(reader, film["id"], i % 5, note="a note")
    (tmp_path / "labels.csv").write_text(reader.get("/api/export").text)
    manifest = load_manifest(tmp_path / "films", tmp_path / "labels.csv", num_classes=5)
    assert manifest.table["label"].tolist() == [0, 1, 2, 3, 4, 0]
    assert manifest.table["patient"].nunique() == 3
