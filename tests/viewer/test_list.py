"""The list and the film: sorted and filtered on the server, and no more of a patient than the film."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from readings import a_room, client, films, mark, names, said, write_film

from legradnet.data.inputs import InputFilm
from legradnet.viewer.worklist import new_row


def test_the_most_uncertain_film_comes_first_and_what_has_no_grade_last(tmp_path):
    folder = tmp_path
    told = [said("sure.png", 2, sure=0.9), None, said("unsure.png", 1, sure=0.3)]
    broken = {"filename": "broken.png", "label": None, "error": "the file is empty"}
    rows = [
        new_row(InputFilm(name, write_film(folder, name)), "", record=record)
        for name, record in zip(["broken.png", "sure.png", "waiting.png", "unsure.png"], [broken, *told], strict=True)
    ]
    with a_room(tmp_path, rows=rows) as room:
        reader = client(room, "A")
        assert names(reader) == ["unsure.png", "sure.png", "waiting.png", "broken.png"]
        assert names(reader, order="desc") == ["sure.png", "unsure.png", "waiting.png", "broken.png"]
        assert names(reader, sort="listed") == ["broken.png", "sure.png", "waiting.png", "unsure.png"]
        assert names(reader, status="error") == ["broken.png"]
        assert films(reader, status="error")[0]["error"] == "the file is empty"


@pytest.mark.parametrize(
    ("asked", "numbers"),
    [
        ({"sort": "grade"}, [0, 5, 1, 2, 3, 4]),
        ({"sort": "probability", "order": "desc"}, [5, 4, 3, 2, 1, 0]),
        ({"sort": "side"}, [1, 3, 5, 0, 2, 4]),
        ({"sort": "referred", "order": "desc"}, [0, 1, 2, 3, 4, 5]),
        ({"sort": "set", "order": "desc"}, [4, 3, 2, 1, 0, 5]),
        ({"sort": "reason"}, [0, 1, 2, 3, 4, 5]),
        ({"side": "L"}, [1, 3, 5]),
        ({"grade": "0,4"}, [0, 4, 5]),
        ({"probability": "0.45-0.65"}, [2, 3]),
        ({"set": "2"}, [1, 2]),
        ({"referred": "yes"}, [0, 1]),
        ({"reason": "SIDE unknown"}, [0, 1]),
        ({"q": "KNEE3"}, [3]),
        ({"patient": "2"}, [4, 5]),
        ({"mark": "none", "side": "R"}, [0, 2, 4]),
    ],
)
def test_films_are_sorted_and_chosen_by_each_column(reader, asked, numbers):
    assert names(reader, **asked) == [f"knee{i}{'RL'[i % 2]}.png" for i in numbers]


def test_films_are_sorted_and_chosen_by_the_readers_own_mark(reader):
    ids = [film["id"] for film in films(reader, sort="listed")]
    assert names(reader, mark="any", sort="listed") == []
    for film, grade in ((ids[0], 3), (ids[1], None), (ids[2], 2)):
        mark(reader, film, grade)
    assert names(reader, sort="mark")[:4] == ["knee2R.png", "knee0R.png", "knee1L.png", "knee3L.png"]
    assert names(reader, mark="ungradable") == ["knee1L.png"]
    assert names(reader, mark="any", sort="listed") == ["knee0R.png", "knee1L.png", "knee2R.png"]
    assert names(reader, mark="differs", sort="listed") == ["knee0R.png", "knee1L.png"]


@pytest.mark.parametrize(
    "asked", ["sort=colour", "order=up", "limit=-1", "offset=x", "side=X", "probability=high", "grade=a", "colour=red"]
)
def test_what_makes_no_sense_is_told_in_a_sentence(reader, asked):
    answer = reader.get(f"/api/films?{asked}")
    assert answer.status_code == 400 and answer.json()["error"].endswith(".")


def test_a_part_of_the_list_is_given_with_the_number_of_all(reader):
    answer = reader.get("/api/films?offset=4&limit=10&sort=listed").json()
    assert (answer["total"], [film["name"] for film in answer["items"]]) == (6, ["knee4R.png", "knee5L.png"])


def test_a_film_tells_probabilities_gate_weights_reasons_and_the_patients_other_films(reader):
    first, second, *_ = films(reader, sort="listed")
    film = reader.get(f"/api/films/{first['id']}").json()
    assert film["gate_weights"] == {"vit": 0.75, "swin": 0.25}
    assert len(film["probabilities"]) == 5
    assert film["reasons"] == ["unsure: probability 0.30", "side unknown"]
    assert (film["other_knee"], film["earlier"]) == ([second["id"]], [])
    assert first["patient_group"] == second["patient_group"] == 0


def test_no_answer_holds_what_names_a_patient_or_a_path(reader, tmp_path):
    first = films(reader)[0]["id"]
    places = ["/api/session", "/api/films", f"/api/films/{first}", "/api/summary", "/"]
    for place in places:
        text = reader.get(place).text
        assert "secret-" not in text and str(tmp_path) not in text


def test_pixels_are_those_of_the_file_and_the_size_is_known_from_then_on(reader, tmp_path):
    film = films(reader, sort="listed")[0]
    answer = reader.get(f"/api/films/{film['id']}/pixels")
    shape = int(answer.headers["X-Height"]), int(answer.headers["X-Width"])
    assert (
        np.frombuffer(answer.content, "<u2").reshape(shape) == np.asarray(Image.open(tmp_path / "films/knee0R.png"))
    ).all()
    assert (answer.headers["X-Bits"], answer.headers["X-Window-Center"]) == ("8", "127.5")
    again = films(reader, sort="listed")[0]
    assert (film["width"], again["width"], again["height"], again["depth"]) == (None, 40, 48, 8)


def test_a_16_bit_film_keeps_its_depth(tmp_path):
    values = np.linspace(1000, 40_000, 48 * 48).astype(np.uint16).reshape(48, 48)
    Image.fromarray(values).save(tmp_path / "deep.png")
    with a_room(tmp_path, rows=[new_row(InputFilm("deep.png", tmp_path / "deep.png"), "")]) as room:
        reader = client(room, "A")
        answer = reader.get(f"/api/films/{films(reader)[0]['id']}/pixels")
    assert answer.headers["X-Bits"] == "16"
    assert (np.frombuffer(answer.content, "<u2").reshape(48, 48) == values).all()
    black = float(answer.headers["X-Window-Center"]) - float(answer.headers["X-Window-Width"]) / 2
    assert black == pytest.approx(np.percentile(values, 0.5), rel=0.02)


def test_a_thumbnail_is_small_and_that_of_one_knee_shows_its_box(tmp_path):
    write_film(tmp_path, "whole.png", size=(400, 800))
    film = InputFilm("whole.png", tmp_path / "whole.png")
    rows = [new_row(film, "", knee="R", box=(0, 0, 300)), new_row(film, "")]
    with a_room(tmp_path, rows=rows) as room:
        reader = client(room, "A")
        sizes = [
            Image.open(io.BytesIO(reader.get(f"/api/films/{film['id']}/thumbnail").content)).size
            for film in films(reader, sort="listed")
        ]
    assert sizes == [(160, 160), (160, 80)]


def test_a_film_that_cannot_be_read_is_told_in_words_without_its_path(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    with a_room(tmp_path, rows=[new_row(InputFilm("broken.png", tmp_path / "broken.png"), "")]) as room:
        reader = client(room, "A")
        for picture in ("pixels", "thumbnail"):
            answer = reader.get(f"/api/films/{films(reader)[0]['id']}/{picture}")
            assert answer.status_code == 422 and str(tmp_path) not in answer.text
            assert answer.json()["error"].startswith("The film can't be shown: ")


def test_ten_thousand_films_are_listed_by_one_sort_of_them_all(tmp_path):
    film = InputFilm("a.png", write_film(tmp_path, "a.png"))
    with a_room(
        tmp_path, rows=[new_row(film, "", record=said("a.png", i % 5, sure=0.2 + i / 12_500)) for i in range(10_000)]
    ) as room:
        reader = client(room, "A")
        shown = [film["probability"] for start in (0, 5000, 9900) for film in films(reader, offset=start, limit=100)]
        assert len(shown) == 300 and shown == sorted(shown)
        assert reader.get("/api/films?limit=5000").json()["total"] == 10_000
        assert len(reader.get("/api/films?limit=5000").json()["items"]) == 1000


def test_json_is_json_whatever_the_name_of_a_film_is(tmp_path):
    name = '<script>alert("x")</script>\u2028.png'
    film = InputFilm(name, write_film(tmp_path, "a.png"))
    with a_room(tmp_path, rows=[new_row(film, "")]) as room:
        answer = client(room, "A").get("/api/films")
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.text)["items"][0]["name"] == name
    assert "script-src 'self';" in answer.headers["content-security-policy"]
