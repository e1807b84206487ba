"""A reading made up for tests: films on disk, what a model is said to say of them, and a client for each reader."""

from contextlib import contextmanager

import numpy as np
from PIL import Image
from starlette.testclient import TestClient

from legradnet.data.inputs import InputFilm
from legradnet.viewer.app import create_app
from legradnet.viewer.background import BackgroundGrading
from legradnet.viewer.entry import Entry
from legradnet.viewer.journal import Journal
from legradnet.viewer.room import Model, ReadingRoom
from legradnet.viewer.uploads import Uploads
from legradnet.viewer.worklist import Worklist, new_row

PORT = 8000
ADDRESS = f"http://127.0.0.1:{PORT}"


def said(name, grade, *, sure=0.6, grades=None, referred=False, reason="", **more):
    """A line of predictions.jsonl."""
    probabilities = [(1 - sure) / 4] * 5
    probabilities[grade] = sure
    return {
        "filename": name, "label": None, "grade": grade, "probabilities": probabilities, "expected_grade": float(grade),
        "prediction_set": grades or [grade], "referred": referred, "reason": reason,
        "gate_weights": {"vit": 0.75, "swin": 0.25}, "error": None, **more,
    }  # fmt: skip


def write_film(folder, name, seed=0, size=(48, 40)):
    path = folder / name
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, np.uint8)).save(path, "PNG")
    return path


def rows_for(folder, count=6):
    """Films of `count` / 2 patients, right and left; the model is surer of each than of the one before."""
    folder.mkdir(exist_ok=True)
    for i in range(count):
        name = f"knee{i}{'RL'[i % 2]}.png"
        film = InputFilm(name, write_film(folder, name, seed=i), patient=f"secret-{i // 2}", side="RL"[i % 2])
        record = said(name, i % 5, sure=0.3 + 0.6 * i / count, grades=[i % 5, i % 5 + 1], referred=i < 2,
                      reason="unsure: probability 0.30; side unknown" if i < 2 else "")  # fmt: skip
        yield new_row(film, film.side, patient=i // 2, record=record)


@contextmanager
def a_room(folder, *, count=6, readers=("A", "B"), blind=False, rows=None, grader=None, output=None, journal=None):
    """A reading in `folder`; nothing grades its films but `grader`."""
    worklist = Worklist()
    worklist.add(rows_for(folder / "films", count) if rows is None else rows)

    def load():
        assert grader is not None
        return grader

    room = ReadingRoom(
        worklist,
        Journal(journal or folder / "marks.sqlite"),
        BackgroundGrading(worklist, load, batch_size=4),
        Uploads(output),
        Entry(readers, PORT, secure=False),
        readers=readers,
        model=Model("run/best.ckpt", 5, ("vit", "swin")),
        blind=blind,
        seed=7,
    )
    try:
        if grader is not None:
            room.grading.start()
        yield room
    finally:
        room.grading.end()
        room.uploads.close()
        room.journal.close()


def stranger(room):
    """A client without a cookie."""
    return TestClient(create_app(room, hosts=[f"127.0.0.1:{PORT}"]), base_url=ADDRESS, follow_redirects=False)


def client(room, reader):
    """A client that has entered as a reader."""
    made = stranger(room)
    assert made.get(f"/?token={room.entry.tokens[reader]}").status_code == 303
    return made


def films(made, **asked):
    answer = made.get("/api/films", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


def names(made, **asked):
    return [film["name"] for film in films(made, **asked)]


def mark(made, film, grade, **more):
    body = {"grade": grade, "ungradable": grade is None, "seconds": 6.0, **more}
    answer = made.post(f"/api/films/{film}/mark", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()
