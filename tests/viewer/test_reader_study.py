"""The numbers of a reading are those of statistics."""

import numpy as np
import pytest
from readings import a_room, client, films, mark
from sklearn.metrics import cohen_kappa_score

from legradnet.viewer.study import Agreement


def test_agreement_is_kappa_with_an_interval_from_resampling_patients():
    random = np.random.default_rng(0)
    first = random.integers(0, 5, 60)
    second = np.clip(first + random.integers(-1, 2, 60), 0, 4)
    told = Agreement({i: f"p{i // 2}" for i in range(60)}, 5, seed=0).of(
        dict(enumerate(first.tolist())), dict(enumerate(second.tolist()))
    )
    assert told["qwk"] == pytest.approx(cohen_kappa_score(first, second, weights="quadratic"))
    assert told["agreement"] == pytest.approx((first == second).mean())
    assert told["low"] < told["qwk"] < told["high"] and told["films"] == 60


def test_what_is_not_defined_is_null():
    assert Agreement({}, 5, 0).of({}, {}) == {"films": 0, "qwk": None, "low": None, "high": None, "agreement": None}
    alone = Agreement({0: "p", 1: "p"}, 5, 0).of({0: 1, 1: 2}, {0: 1, 1: 2})
    assert (alone["qwk"], alone["low"]) == (1.0, None)  # one patient can't be resampled


def test_grades_before_and_after_the_answer_are_told_apart_and_changes_counted(tmp_path):
    with a_room(tmp_path, blind=True, readers=("A",)) as room:
        reader = client(room, "A")
        films_ = films(reader)
        grades = {row.id: row.grade for row in room.worklist.rows}
        for film in films_:
            mark(reader, film["id"], (grades[film["id"]] + 1) % 5, seconds=30)
        for film in films_[:4]:
            mark(reader, film["id"], grades[film["id"]], seconds=6)  # accepted
        numbers = reader.get("/api/summary").json()
    before, after = numbers["model"]
    assert (before["when"], before["films"], before["agreement"]) == ("before", 6, 0.0)
    assert (after["when"], after["films"], after["agreement"]) == ("after", 6, pytest.approx(4 / 6))
    assert numbers["changed"] == [{"reader": "A", "films": 6, "changed": 4, "towards": 4}]
    assert numbers["pace"][0]["minutes"] == pytest.approx((6 * 30 + 4 * 6) / 6 / 60)
    assert (numbers["marked"], numbers["finished"]) == (6, True)


def test_readers_are_compared_by_what_both_have_graded(room):
    readers = [client(room, name) for name in "AB"]
    ids = [film["id"] for film in films(readers[0], sort="listed")]
    for film in ids[:4]:
        mark(readers[0], film, 2)
    for film, grade in zip(ids[2:], (2, 3, None, 1), strict=True):
        mark(readers[1], film, grade)
    (pair,) = readers[0].get("/api/summary").json()["readers"]
    assert (pair["first"], pair["second"], pair["films"], pair["agreement"]) == ("A", "B", 2, 0.5)
