"""What films are called in the tables of a run, where their names are formulas, or look like something else."""

import numpy as np
import pandas as pd
import pytest

from graded_films import graded_films
from legradnet.errors import UserError
from legradnet.evaluation.films import seen_in_training
from legradnet.evaluation.graded import predictions_text, read_graded
from legradnet.run_folder import RunFolder
from legradnet.tables import read_table

NAMES = ['=HYPERLINK("x")', "+1", "@x", "-2.png", "NA", "a\rb.png", "ü,\n.png", "a.png"]
PATIENTS = ["=1+1", "'=1", "-5", "NA", "", "@", "p\r", "007"]


@pytest.fixture
def films():
    split = ["train", "val", "test", "train", "train", "val", "test", "train"]
    return pd.DataFrame({"filename": NAMES, "label": 1, "patient": PATIENTS, "side": "L", "split": split})


def test_the_split_of_a_run_runs_no_formula_and_is_that_of_its_films(films, tmp_path):
    run = RunFolder(tmp_path)
    run.write_data(films, pd.DataFrame({"filename": NAMES, "error": "=1"}), resumed=False)
    for path in (run.split, run.skipped):
        rows = read_table(path, ["filename"]).rows
        assert len(rows) == len(NAMES)
        assert not [cell for cells in rows for cell in cells if cell.startswith(("=", "+", "-", "@"))]
        assert read_table(path, ["filename"]).column("filename") == NAMES
    run.check_split(films)
    assert seen_in_training(films, run) == 6
    assert seen_in_training(films.assign(filename="other"), run) == 5  # one has no patient
    with pytest.raises(UserError, match="have changed"):
        run.check_split(films.assign(label=2))


def test_a_run_that_an_older_version_began_is_gone_on_with(films, tmp_path):
    run = RunFolder(tmp_path)
    films = films[~films["filename"].str.contains("\r")]
    old = films[["filename", "label", "patient", "side", "split"]].to_csv(index=False)
    run.split.write_text(old, newline="")
    run.write_data(films, films.iloc[:0][["filename"]], resumed=True)
    assert run.split.read_text() != old
    assert seen_in_training(films, run) == 5


def test_predictions_are_read_back_with_their_true_names_and_numbers(tmp_path):
    graded = graded_films(8)
    table = graded.table.assign(filename=NAMES, patient=PATIENTS)
    (tmp_path / "predictions.csv").write_text(predictions_text(type(graded)(**{**vars(graded), "table": table})))
    read = read_graded(tmp_path / "predictions.csv")
    assert read.table["filename"].tolist() == NAMES
    assert read.table["patient"].tolist() == [name.strip() for name in PATIENTS]
    assert np.array_equal(read.grades, graded.grades)
    assert np.array_equal(read.labels, graded.labels)
    assert read.probabilities == pytest.approx(graded.probabilities, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace(",grade,", ",degree,", 1), "no column grade"),
        (lambda text: text + '"a.png,1', "is a quote missing"),
        (lambda text: text + "a.png,1\n", "row 10 holds 2 cells"),
        (lambda text: text.replace("\na.png,", "\na.png,x", 1), "row . is no number|label is no number"),
    ],
)
def test_damaged_predictions_are_told_in_words(change, reason, tmp_path):
    graded = graded_films(8)
    text = predictions_text(type(graded)(**{**vars(graded), "table": graded.table.assign(filename="a.png")}))
    (tmp_path / "predictions.csv").write_text(change(text))
    with pytest.raises(UserError, match=reason):
        read_graded(tmp_path / "predictions.csv")
