"""Films that are dropped on the page."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from readings import a_room, client, films, mark, names, write_film

from legradnet.viewer import uploads


def drop(made, path, name=None):
    return made.put("/films", params={"name": name or path.name}, content=path.read_bytes())


def test_a_dropped_film_is_in_the_list_once_and_gone_with_the_command(tmp_path, room, reader):
    path = write_film(tmp_path, "new.png", seed=99)
    first, again = drop(reader, path), drop(reader, path, "other.png")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert names(reader, status="waiting") == ["new.png"]
    assert reader.get(f"/api/films/{first.json()['id']}/pixels").status_code == 200
    folder = room.uploads.folder
    room.uploads.close()
    assert not folder.exists()


def test_films_of_the_same_name_are_told_apart(tmp_path, room, reader):
    for seed in range(3):
        drop(reader, write_film(tmp_path, "knee0R.png", seed=50 + seed))
    assert names(reader, status="waiting") == ["knee0R (2).png", "knee0R (3).png", "knee0R (4).png"]


def test_an_output_folder_keeps_dropped_films_under_their_names(tmp_path):
    (tmp_path / "out").mkdir()
    with a_room(tmp_path, output=tmp_path / "out") as room:
        reader = client(room, "A")
        film = drop(reader, write_film(tmp_path, "new.png", seed=99), "../../<b>new.png").json()["id"]
        mark(reader, film, 2)
    kept = tmp_path / "out/films/<b>new.png"
    assert kept.read_bytes() == (tmp_path / "new.png").read_bytes() and kept.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "out/films").iterdir()] == ["<b>new.png"]


def test_marks_of_a_film_are_there_when_it_is_dropped_again(tmp_path):
    path = write_film(tmp_path, "new.png", seed=99)
    for grade in (None, 3):
        with a_room(tmp_path) as room:
            reader = client(room, "A")
            film = drop(reader, path).json()["id"]
            before = reader.get(f"/api/films/{film}").json()["mark"]
            mark(reader, film, 3)
        assert (before and before["grade"]) == grade


def test_a_full_disk_is_told_before_anything_is_read(reader, monkeypatch):
    monkeypatch.setattr(uploads, "_LEFT_FREE", 10**18)
    answer = reader.put("/films?name=a.png", content=b"x" * 100)
    assert answer.status_code == 503 and "disk" in answer.json()["error"]


def test_films_that_are_on_their_way_count_too(room, monkeypatch):
    class Disk:
        free = uploads._LEFT_FREE + 150

    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: Disk)
    part, file = room.uploads.begin(100)
    file.close()
    with pytest.raises(uploads.FullError, match="disk of the server is full"):
        room.uploads.begin(100)
    room.uploads.end(part, 100)
    part, file = room.uploads.begin(100)
    file.close()
    room.uploads.end(part, 100)
    assert not part.exists()


def test_a_disk_that_is_full_meanwhile_is_told_and_nothing_is_left(room, reader, monkeypatch):
    begin = room.uploads.begin

    def full(size):
        part, file = begin(size)
        file.close()
        return part, open("/dev/full", "wb", buffering=0)  # noqa: PTH123

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    monkeypatch.setattr(room.uploads, "begin", full)
    answer = reader.put("/films?name=a.png", content=b"x" * 100)
    assert answer.status_code == 503 and "the disk is full" in answer.json()["error"]
    assert not list(room.uploads.folder.glob(".*.part"))


def test_there_are_not_more_films_than_can_be_shown(reader, monkeypatch):
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 0)
    assert reader.put("/films?name=a.png", content=b"x" * 100).status_code == 503


@pytest.mark.skipif(sys.platform == "win32", reason="no kill")
def test_what_a_killed_command_has_left_is_deleted_by_the_next_and_what_a_living_one_has_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = "import os, sys, tempfile; tempfile.tempdir = sys.argv[1]\n"
    program += "from legradnet.viewer.uploads import Uploads; u = Uploads(None); (u.folder / 'film').touch(); "
    killed = subprocess.run([sys.executable, "-c", program + "os.kill(os.getpid(), 9)", tmp_path], check=False)
    assert killed.returncode == -9
    (left,) = tmp_path.glob("legradnet-view-*")
    alive = uploads.Uploads(None)
    assert not left.exists()
    other = uploads.Uploads(None)
    assert alive.folder.is_dir()
    alive.close()
    other.close()
    assert not list(tmp_path.glob("legradnet-view-*"))


def test_a_folder_that_only_has_such_a_name_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Path(tmp_path, "legradnet-view-mine").mkdir()
    uploads.Uploads(None).close()
    assert Path(tmp_path, "legradnet-view-mine").is_dir()


def test_a_broken_film_is_a_row_with_its_error(tmp_path, trained, knees):
    from legradnet.grading.grader import Grader

    with a_room(tmp_path, rows=[], grader=Grader.load(trained / "checkpoints/best.ckpt", device="cpu")) as room:
        reader = client(room, "A")
        (tmp_path / "broken.dcm").write_bytes(b"no film")
        drop(reader, tmp_path / "broken.dcm")
        drop(reader, min(knees.glob("*.png")), "new.png")
        while room.worklist.finished < 2:
            room.grading._thread.join(0.01)
        broken, whole = films(reader, sort="name")
    assert broken["error"].startswith("not a readable PNG") and broken["status"] == "error"
    assert whole["status"] == "graded" and 0 <= whole["grade"] <= 4
