"""Measuring on whole films: a label a knee."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from evaluations import config_of
from legradnet.errors import UserError
from legradnet.evaluation.compare import compare
from legradnet.evaluation.films import load_films
from legradnet.evaluation.graded import read_graded
from legradnet.evaluation.run import evaluate
from legradnet.evaluation.settings import MeasuredFilms
from legradnet.export.check import measure_quality
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.localise.film_knees import NO_KNEE
from whole_films import CLEAR, LEFT, RIGHT, whole_film

SEEDS = (CLEAR, 3)


@pytest.fixture(scope="module")
def legs(tmp_path_factory):
    """Films of both knees with a label a knee, and one without a knee."""
    folder = tmp_path_factory.mktemp("legs")
    for seed in SEEDS:
        Image.fromarray(whole_film(RIGHT, LEFT, seed=seed)).save(folder / f"{seed}.png")
    Image.fromarray(np.full((300, 400), 90, np.uint8)).save(folder / "none.png")
    cells = [[f"{seed}.png", knee, label] for seed in SEEDS for knee, label in (("L", 3), ("R", 1))]
    cells += [["none.png", "R", 2]]
    pd.DataFrame(cells, columns=["filename", "knee", "label"]).to_csv(folder / "knees.csv", index=False)
    return folder


def films_of(folder, name="knees.csv"):
    return {"source": "csv", "dataset_path": str(folder), "csv_path": str(folder / name)}


@pytest.fixture(scope="module")
def measured(best, legs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("measured")
    evaluate(config_of([best, best], data=films_of(legs), film="whole"), folder)
    return folder


def test_each_knee_of_a_whole_film_is_measured_by_its_own_label_and_both_are_one_patients(measured):
    table = pd.read_csv(measured / "1/predictions.csv", dtype=str, keep_default_na=False)
    assert list(table)[:6] == ["filename", "knee", "box", "label", "patient", "side"]
    assert table["knee"].tolist() == ["L", "R"] * 2 + ["R"] and table["label"].tolist() == ["3", "1"] * 2 + ["2"]
    assert table["patient"].tolist()[:2] == [f"{CLEAR}.png"] * 2 and (table["side"] == table["knee"]).all()
    graded = read_graded(measured / "1/predictions.csv")
    numbers = json.loads((measured / "1/metrics.json").read_text())
    assert numbers["films"] == len(graded) >= 2 and numbers["patients"] == len(set(graded.table["patient"]))
    assert graded.names[0] == f"{CLEAR}.png (L)"


def test_what_has_no_grade_stays_in_the_table_with_its_reason_and_is_told_on_the_page(measured):
    table = pd.read_csv(measured / "1/predictions.csv", dtype=str, keep_default_na=False)
    assert table["grade"].iat[-1] == "" and table["reason"].iat[-1].startswith(NO_KNEE)
    page = (measured / "1/report.html").read_text()
    assert f"1 x {NO_KNEE}" in page and "in none of these numbers" in page
    assert f"1 x {NO_KNEE}" in (measured / "1/card.md").read_text()


def test_gradings_of_whole_films_are_compared_knee_by_knee(measured):
    differing = json.loads((measured / "metrics.json").read_text())["comparisons"][0]["metrics"]["accuracy"]
    assert differing["difference"] == differing["low"] == differing["high"] == 0
    graded = read_graded(measured / "1/predictions.csv")
    turned = graded.subset(np.ones(len(graded), bool))
    turned.table["label"] = 4 - turned.table["label"]
    with pytest.raises(UserError, match=r"not the same true grade in both, .*png \((L|R)\)"):
        compare(graded, turned)


def test_a_label_that_is_of_no_knee_measures_nothing_where_two_are_found(best, legs, tmp_path):
    pd.DataFrame([[f"{CLEAR}.png", 3]], columns=["filename", "label"]).to_csv(legs / "film.csv", index=False)
    config = config_of(best, data=films_of(legs, "film.csv"), film="whole", joint_masked=False)
    with pytest.raises(UserError, match="No film has a grade.*no column knee says whose the label is"):
        evaluate(config, tmp_path)


def test_an_export_is_checked_on_the_knees_of_whole_films(best, legs):
    network = CheckpointNetwork(best, device="cpu", precision="f32")
    how = {"split": None, "num_classes": 5, "image_size": network.image_size, "film": "whole"}
    films = load_films(MeasuredFilms(**films_of(legs)), best, **how)
    quality = measure_quality(network, network, films)
    assert 2 <= quality.films <= 4 and quality.changed_grades == 0


def test_a_runs_own_films_are_taken_as_they_were_in_training(trained, best):
    how = {"split": None, "num_classes": 5, "image_size": 48, "film": "auto"}
    assert load_films(MeasuredFilms(), best, **how).kind == "crop"
