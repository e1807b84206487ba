"""A blind study: the server itself keeps the model's answer, and other readers, from who has not marked the film."""

import pytest
from readings import a_room, client, films, mark, names, write_film

OF_THE_MODEL = (
    "grade",
    "probability",
    "prediction_set",
    "referred",
    "reason",
    "probabilities",
    "expected_grade",
    "gate_weights",
)


def hidden(film):
    return not film["shown"] and all(film[name] is None for name in OF_THE_MODEL if name in film)


def test_the_answer_is_there_when_the_mark_is_and_only_for_that_film_and_reader(blind):
    reader, other = client(blind, "A"), client(blind, "B")
    first, second = films(reader)[:2]
    assert all(hidden(film) for film in films(reader))
    whole = reader.get(f"/api/films/{first['id']}").json()
    assert hidden(whole) and whole["reasons"] == []
    told = mark(reader, first["id"], 2)
    assert told["shown"] and told["grade"] is not None and told["gate_weights"]
    assert hidden(reader.get(f"/api/films/{second['id']}").json())
    assert hidden(other.get(f"/api/films/{first['id']}").json())


def test_a_mark_taken_back_hides_the_answer_again_and_the_next_one_counts_as_given_with_it(blind):
    reader = client(blind, "A")
    film = films(reader)[0]["id"]
    assert not mark(reader, film, 2, shown=True)["mark"]["shown"]  # whatever the page says
    assert hidden(reader.post("/api/undo").json()["item"])
    assert mark(reader, film, 3, shown=False)["mark"]["shown"]


def test_nobody_sees_anothers_mark(blind):
    reader, other = client(blind, "A"), client(blind, "B")
    film = films(reader)[0]["id"]
    mark(reader, film, 4)
    mark(other, film, 1)
    for made in (reader, other):
        assert all(film["marks"] == [] for film in films(made))
        assert made.get(f"/api/films/{film}").json()["marks"] == []


@pytest.mark.parametrize(
    "asked",
    [
        *(f"sort={name}" for name in ("uncertainty", "grade", "probability", "set", "referred", "reason")),
        *("grade=2", "probability=0-0.5", "set=1", "referred=yes", "reason=unsure", "mark=differs"),
    ],
)
def test_nothing_is_sorted_or_chosen_by_the_answer(blind, asked):
    answer = client(blind, "A").get(f"/api/films?{asked}")
    assert answer.status_code == 403 and "blind study" in answer.json()["error"]


def test_the_order_is_seeded_differs_between_readers_and_says_nothing_of_the_answer(blind):
    readers = [client(blind, name) for name in "AB"]
    orders = [names(made) for made in readers]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    for row in blind.worklist.rows:
        row.record = {**row.record, "grade": 4 - row.record["grade"], "probabilities": [0.2] * 5}
    blind.worklist.touch("")
    assert [names(made) for made in readers] == orders


def test_a_heat_map_waits_for_the_mark(blind):
    reader = client(blind, "A")
    film = films(reader)[0]["id"]
    assert reader.get(f"/api/films/{film}/map").status_code == 403
    mark(reader, film, 2)
    assert reader.get(f"/api/films/{film}/map").status_code == 409  # the model isn't loaded in this test


def test_events_tell_nobody_of_anothers_mark(blind):
    told = []
    blind.events.tell = lambda row, only=None: told.append((row, only))
    reader = client(blind, "A")
    film = films(reader)[0]["id"]
    mark(reader, film, 2)
    reader.post("/api/undo")
    assert told == [(film, "A"), (film, "A")]


def test_others_numbers_and_exports_wait_until_a_reader_has_marked_every_film(tmp_path):
    with a_room(tmp_path, blind=True, count=4) as room:
        reader, other = client(room, "A"), client(room, "B")
        for film in films(other):
            mark(other, film["id"], 3)
        ids = [film["id"] for film in films(reader)]
        for film in ids[:-1]:
            mark(reader, film, 3)
        numbers = reader.get("/api/summary").json()
        assert numbers["readers"] == [] and "every film" in numbers["waiting"]
        assert {row["reader"] for row in numbers["model"] + numbers["pace"] + numbers["changed"]} == {"A"}
        assert [reader.get(f"/api/export{end}").status_code for end in ("", "?reader=B", "?reader=A")] == [
            403,
            403,
            200,
        ]
        mark(reader, ids[-1], None)
        numbers = reader.get("/api/summary").json()
        assert (numbers["waiting"], len(numbers["readers"]), numbers["readers"][0]["films"]) == ("", 1, 3)
        assert reader.get("/api/export").status_code == 200


def test_no_copy_of_a_film_is_taken_whose_answer_would_be_the_films_own(blind, tmp_path):
    reader = client(blind, "A")
    answer = reader.put("/films?name=copy.png", content=(tmp_path / "films/knee0R.png").read_bytes() + b" ")
    assert answer.status_code == 403 and answer.json()["error"] == reader.get("/api/session").json()["words"]["adding"]
    assert len(blind.worklist.rows) == 6


def test_a_study_of_dropped_films_takes_them_until_one_is_marked(tmp_path):
    with a_room(tmp_path, blind=True, rows=[], count=0) as room:
        reader, other = client(room, "A"), client(room, "B")
        first, second = (write_film(tmp_path, f"{seed}.png", seed).read_bytes() for seed in (1, 2))
        film = reader.put("/films?name=1.png", content=first).json()["id"]
        assert other.get("/api/session").json()["words"]["adding"] == ""
        mark(reader, film, 2)
        assert other.put("/films?name=2.png", content=second).status_code == 403


def test_the_session_of_a_blind_study_says_so(blind):
    assert client(blind, "A").get("/api/session").json()["study"] == "blind"
