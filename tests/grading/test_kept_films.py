"""What a model keeps of films: enough to know them again or to hold others beside them, and no more."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.errors import UserError
from legradnet.grading.calibration import Calibration
from legradnet.grading.journal import json_lines
from legradnet.grading.reference import ReferenceFilms, one_a_patient, reference_of
from legradnet.grading.reference_file import read_reference
from legradnet.grading.seen_films import SeenFilms, seen_films

PRINTS = st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=40, unique_by=lambda whole: whole[:6])


@settings(max_examples=30, deadline=None)
@given(PRINTS, PRINTS)
def test_a_picture_is_known_if_and_only_if_it_was_there(ours, others):
    seen = SeenFilms(**json.loads(seen_films(ours).model_dump_json()))
    assert seen.among(ours) == list(range(len(ours)))
    known = {whole[:6] for whole in ours}
    assert seen.among([*others, b""]) == [i for i, whole in enumerate(others) if whole[:6] in known]


def test_many_pictures_stand_in_texts_that_metadata_may_have():
    random = np.random.default_rng(0)
    prints = [random.bytes(16) for _ in range(25_000)]
    seen = seen_films(prints)
    assert all(len(text) <= 100_000 for text in seen.fingerprints) and len(seen.fingerprints) == 3
    assert seen.among(prints[::5000]) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("text", ["", "AAAA", "not base 64!", "A" * 9])
def test_fingerprints_that_are_none_are_told(text):
    if text:
        with pytest.raises(UserError, match="fingerprints of 6 bytes"):
            SeenFilms(fingerprints=[text])
    assert seen_films([b"", b""]) is None


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(1, 50), st.integers(0, 9))
def test_of_each_patient_one_film_is_kept(patients, most, seed):
    numbers = np.unique(patients, return_inverse=True)[1]
    rows = one_a_patient(numbers, most, seed)
    kept = numbers[rows].tolist()
    assert len(set(kept)) == len(kept) == min(most, len(set(patients)))
    assert rows.tolist() == sorted(rows.tolist())


def lines_of(raw, labels, calibration):
    return [
        {
            "filename": f"{i}.png",
            "label": int(label),
            "grade": int(calibration.grades(row[None])[0]),
            "probabilities": calibration.probabilities(row[None])[0].round(6).tolist(),
            "expected_grade": 1.0,
            "prediction_set": [],
            "referred": bool(i % 3 == 0),
            "reason": "",
            "gate_weights": {"one": 1.0},
            "error": None,
        }
        for i, (row, label) in enumerate(zip(raw, labels, strict=True))
    ]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.5, 3),
    st.sampled_from(["mode", "median"]),
    st.lists(st.floats(-1, 1), min_size=4, max_size=4),
)
def test_what_the_network_said_follows_from_predictions_and_the_calibration(
    tmp_path_factory, seed, degree, rule, biases
):
    random = np.random.default_rng(seed)
    raw = random.dirichlet(np.full(4, 2.0), 12).clip(0.02)
    raw /= raw.sum(axis=1, keepdims=True)
    calibration = Calibration(rule=rule, temperature=degree, biases=biases if seed % 2 else [])
    path = tmp_path_factory.mktemp("known") / "predictions.jsonl"
    path.write_text(json_lines(lines_of(raw, random.integers(0, 4, 12), calibration)))
    found = read_reference(path, calibration, 4)
    assert found.raw == pytest.approx(raw, abs=2e-3)
    assert found.films == 12 and found.measures == {} and found.distances == []


def columns(**changed):
    plain = {
        "films": 2,
        "labels": [0, 1],
        "probabilities": np.array([[0.6, 0.4], [0.1, 0.9]]),
        "referred": [False, True],
        "distances": [],
        "gate_weights": [{}, {}],
        "measures": [{}, {}],
    }
    return reference_of(**plain | changed).model_dump()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": [0, 2]}, "a column for each grade"),
        ({"labels": [0]}, "a value each of everything"),
        ({"probabilities": [[0.6, 0.4], [0.1, 0.2]]}, "a sum of 1"),
        ({"probabilities": [[0.6, 0.4], [1.0]]}, "of one number of grades"),
        ({"measures": {"colour": [1.0, 2.0]}}, "the measures of a reference are"),
        ({"distances": [1.0, 1.0, 1.0]}, "a value each"),
    ],
)
def test_a_reference_that_contradicts_itself_is_refused(changed, words):
    with pytest.raises(UserError, match=words):
        ReferenceFilms(**columns() | changed)
