"""Films that have not changed raise no alarm, films that have do, and both are told in one sentence and one figure."""

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from evaluations import config_of
from legradnet.data.film import Film
from legradnet.data.inputs import InputFilm
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.evaluation.drift import ACCURACY, REFERRED, compare_samples, sample_of, sample_of_reference, sentence
from legradnet.evaluation.run import evaluate
from legradnet.grading.calibration import Calibration
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Request
from legradnet.grading.journal import json_lines
from legradnet.grading.measures import MEASURES, measures_of
from legradnet.grading.predictions import record
from legradnet.grading.reference import reference_films

CALIBRATION = Calibration(rule="mode")


def graded(random, count, *, knees=1, moved=0.0):
    """Gradings of `count` films, `knees` a patient, and their labels; `moved`: by how much all numbers are others."""
    gradings, labels = [], []
    for number in range(count):
        if number % knees == 0:
            build = random.normal(moved)
        own = build + 0.3 * random.normal(size=8)
        odds = np.exp(0.8 * np.arange(5) * own[0])
        label = int(random.integers(5))
        odds[label] *= 6
        raw = odds / odds.sum()
        raw = raw + min(0.6, 0.4 * moved) * (0.2 - raw)
        measures = dict(zip(MEASURES, [*(0.3 + 0.05 * own[1:4]), 200 + 9 * own[4], 220 + 9 * own[5]], strict=True))
        share = 1 / (1 + np.exp(-own[6]))
        gradings.append(
            Grading(
                grade=int(raw.argmax()),
                probabilities=raw,
                expected_grade=0.0,
                prediction_set=(),
                referred=bool(own[7] > 0.7),
                reason="",
                gate_weights={"one": share, "other": 1 - share},
                raw=raw,
                distance=float(np.exp(own[7] / 4)),
                measures=measures,
            )
        )
        labels.append(label)
    return gradings, np.array(labels)


def records(gradings, knees=1):
    return [record(InputFilm(f"{i}.png", Path(), patient=f"p{i // knees}"), film) for i, film in enumerate(gradings)]


def reference(random, count=120, knees=1):
    gradings, labels = graded(random, count, knees=knees)
    return sample_of_reference(reference_films(gradings, labels, np.arange(count) // knees), CALIBRATION)


@pytest.mark.parametrize("knees", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_splits_of_the_same_films_raise_an_alarm_in_one_of_twenty_cases_at_most(knees):
    random = np.random.default_rng(knees)
    alarms = 0
    for _ in range(50):
        sample = sample_of("week", records(graded(random, 80, knees=knees)[0], knees))
        alarms += bool(compare_samples([sample], *reference(random, knees=knees))[0].alarms)
    assert alarms <= 6  # of 50, where 2.5 are allowed: more than 6 have a probability of 0.012


@pytest.mark.slow
def test_all_weeks_together_raise_no_more_false_alarms_than_one():
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(12):
        weeks = [sample_of(str(week), records(graded(random, 30)[0])) for week in range(5)]
        alarms += any(drift.alarms for drift in compare_samples(weeks, *reference(random)))
    assert alarms <= 2  # of 12: more have a probability of 0.02


def test_what_has_moved_is_named_and_what_has_not_is_not():
    random = np.random.default_rng(1)
    known = reference(random)
    films = [
        replace(film, measures={**film.measures, "brightness": film.measures["brightness"] + 0.2})
        for film in graded(random, 80)[0]
    ]
    (drift,) = compare_samples([sample_of("week 7", records(films))], *known)
    assert [one.name for one in drift.alarms] == ["brightness"]
    said = sentence(drift, "MODEL", 0.05)
    assert said.startswith(
        "week 7: 80 films of 80 patients are unlike those that MODEL was calibrated on, in brightness"
    )
    assert said.count(".") >= 1 and "\n" not in said


def test_a_network_that_becomes_unsure_is_estimated_to_be_worse():
    random = np.random.default_rng(3)
    known, right = reference(random, 300)
    worse = graded(random, 200, moved=1.5)[0]
    (drift,) = compare_samples([sample_of("week", records(worse))], known, right)
    accuracy = drift.of(ACCURACY)
    assert accuracy.alarm and accuracy.here[0] < accuracy.there[0] and drift.of(REFERRED).alarm


def test_predictions_of_older_releases_are_compared_in_what_they_have():
    random = np.random.default_rng(1)
    films = [
        {k: v for k, v in film.items() if k not in ("film", "distance")} for film in records(graded(random, 60)[0])
    ]
    (drift,) = compare_samples([sample_of("old", films)], *reference(random))
    assert [one.name for one in drift.compared] == ["gate one", "gate other", REFERRED, ACCURACY]
    assert sample_of("none", [{"filename": "a.png", "label": None, "error": "is no film"}]) is None


def test_blur_noise_and_another_size_show_in_the_measures_of_a_film():
    knee = synthesize(1, size=96, seed=0)[0][0]
    plain = measures_of(Film(knee), knee)
    blurred = np.array(Image.fromarray(knee).filter(ImageFilter.GaussianBlur(1.5)))
    assert measures_of(Film(blurred), blurred)["sharpness"] < 0.7 * plain["sharpness"]
    inverted = 255 - knee
    assert measures_of(Film(inverted), inverted)["brightness"] == pytest.approx(1 - plain["brightness"], abs=1e-3)
    cut = knee[10:-10, 20:-20]
    assert (measures_of(Film(cut), knee)["width"], measures_of(Film(cut), knee)["height"]) == (56, 76)
    assert 0 <= plain["contrast"] <= 0.5


@pytest.fixture
def weeks(tmp_path):
    random = np.random.default_rng(8)
    for name, moved in (("week1", 0.0), ("week2", 0.0), ("week3", 3.0)):
        (tmp_path / name).mkdir()
        lines = json_lines(records(graded(random, 60, moved=moved)[0]))
        (tmp_path / name / "predictions.jsonl").write_text(lines)
    return tmp_path


def test_the_monitor_gives_one_figure_and_a_sentence_a_week(weeks, best, capsys, caplog):
    labelled = graded(np.random.default_rng(9), 120)
    lines = [
        {**record, "label": int(label)}
        for record, label in zip(records(labelled[0]), labelled[1], strict=True)
    ]  # fmt: skip
    named = [{**line, "gate_weights": {"swin": 0.4, "vit": 0.6}} for line in lines]
    (weeks / "known.jsonl").write_text(json_lines(named))
    for week in ("week1", "week2", "week3"):
        path = weeks / week / "predictions.jsonl"
        path.write_text(
            json_lines({**json.loads(line), "gate_weights": {"swin": 0.4, "vit": 0.6}} for line in path.open())
        )
    config = config_of(best, drift=True, reference=str(weeks / "known.jsonl"))
    evaluate(config | {"predictions": [str(weeks / f"week{i}") for i in (1, 2, 3)]}, weeks / "out")
    said = json.loads((weeks / "out/drift.json").read_text())
    assert [bool(any(one["alarm"] for one in sample["compared"])) for sample in said["samples"]] == [False, False, True]
    assert capsys.readouterr().out.startswith("week3: 60 films of 60 patients are unlike those")
    assert Image.open(weeks / "out/drift.png").size[0] > 800


def test_films_are_watched_without_labels(trained, best, tmp_path, capsys):
    data = {"source": "synthetic", "count": 60, "seed": 31}
    evaluate(config_of(best, drift=True, data=data, precision="f32"), tmp_path / "same")
    said = json.loads((tmp_path / "same/drift.json").read_text())
    names = [one["name"] for one in said["samples"][0]["compared"]]
    assert {"brightness", "contrast", "sharpness", "size", "shape", REFERRED, ACCURACY} <= set(names)
    assert not any(one["alarm"] for one in said["samples"][0]["compared"]), capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictions": "none"}, "There are no predictions at none"),
        ({"checkpoint": ["a.ckpt", "b.ckpt"]}, "watches one model"),
        ({"drift": False, "predictions": "x"}, "predictions= is for drift=true"),
        ({"crossfit": True}, "crossfit= measures grades"),
        ({"reference": "nowhere"}, "There are no predictions at nowhere"),
        ({"predictions": []}, "names none"),
    ],
)
def test_mistakes_are_told(best, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        evaluate(config_of(best, drift=True) | changes, tmp_path / "out")


@pytest.mark.parametrize(
    ("spoilt", "words"),
    [
        ({"probabilities": [0.5, 0.5]}, "is of another model"),
        ({"gate_weights": {"other": 1.0}}, "is of another model"),
        ({"grade": 9}, "is damaged"),
        ({"grade": -1}, "is damaged"),
        ({"probabilities": [7.0] * 5}, "is damaged"),
        ({"grade": None, "knee": "R", "box": None}, "None of .* was graded"),
    ],
)
def test_predictions_that_are_not_the_models_are_told(weeks, best, spoilt, words):
    path = weeks / "week1/predictions.jsonl"
    lines = [json.loads(line) | {"gate_weights": {"swin": 0.4, "vit": 0.6}} | spoilt for line in path.open()]
    path.write_text(json_lines(lines))
    with pytest.raises(UserError, match=words):
        evaluate(config_of(best, drift=True, predictions=str(path)), weeks / "out")


@pytest.mark.parametrize("width", [1e308, "wide", None])
def test_what_is_no_measure_of_a_film_is_not_compared(width):
    random = np.random.default_rng(1)
    films = records(graded(random, 40)[0])
    films[0] = {**films[0], "film": {**films[0]["film"], "width": width}}
    assert "size" not in sample_of("week", films).numbers and "distance" in sample_of("week", films).numbers


def test_a_model_that_has_kept_no_films_says_what_would_help(tmp_path, best):
    from legradnet.checkpoint import read_checkpoint, write_checkpoint

    content = read_checkpoint(best)
    content["legradnet"] = {key: value for key, value in content["legradnet"].items() if key != "reference"}
    with (tmp_path / "old.ckpt").open("wb") as file:
        write_checkpoint(content, file)
    with pytest.raises(UserError, match="old.ckpt has kept none of the films.*reference=FOLDER"):
        evaluate(config_of(str(tmp_path / "old.ckpt"), drift=True, data={"source": "synthetic"}), tmp_path / "out")


SHIFTS = {
    "as they are": lambda film: film,
    "inverted": lambda film: 255 - film,
    "blurred": lambda film: np.array(Image.fromarray(film).filter(ImageFilter.GaussianBlur(1.2))),
    "JPEG": lambda film: jpeg(film, quality=8),
    "cropped": lambda film: np.ascontiguousarray(film[5:-5, 5:-5]),
}


def jpeg(film, quality):
    Image.fromarray(film).save(file := BytesIO(), "JPEG", quality=quality)
    return np.array(Image.open(file))


@pytest.fixture(scope="module")
def watched(best):
    """A small network, its reference, and 80 films of 40 patients that it has not seen."""
    grader = Grader.load(best, precision="f32")
    (network,) = grader.networks
    films, table = synthesize(80, size=48, seed=41)
    return grader, sample_of_reference(network.learned.reference, network.calibration), films, table


@pytest.mark.parametrize("shift", SHIFTS)
def test_inverted_blurred_compressed_and_cropped_films_raise_an_alarm_and_films_as_they_were_do_not(watched, shift):
    grader, known, films, table = watched
    requests = [Request(SHIFTS[shift](film), side) for film, side in zip(films, table["side"], strict=True)]
    gradings = [film for batch in grader.stream(requests) for film in batch]
    found = records(gradings, knees=2)
    (drift,) = compare_samples([sample_of(shift, found)], *known)
    assert bool(drift.alarms) == (shift != "as they are"), [(one.name, one.p) for one in drift.compared]
