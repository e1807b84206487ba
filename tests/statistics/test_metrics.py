import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from legradnet.statistics.metrics import (
    ECE_BINS,
    IN_TRAINING,
    METRICS,
    WeightedFilms,
    grading_metrics,
    weighted_metrics,
)


@st.composite
def graded(draw, classes=(2, 3, 5)):
    """Probabilities, grades and labels of a few films; often a subset of the grades occurs."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    count, classes = draw(st.integers(1, 40)), draw(st.sampled_from(classes))
    occur = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes))
    probabilities = random.dirichlet(np.ones(classes), count)
    probabilities[random.random(count) < 0.3] = probabilities[0]  # ties
    return probabilities, probabilities.argmax(axis=1), random.choice(occur, count)


@settings(max_examples=100, deadline=None)
@given(graded())
def test_metrics_of_training_equal_scikit_learns(films):
    probabilities, grades, labels = films
    classes = probabilities.shape[1]
    ours = grading_metrics(probabilities, grades, labels)
    distances = (probabilities.cumsum(axis=1) - (labels[:, None] <= np.arange(classes)))[:, :-1]
    expected = {
        "accuracy": sk.accuracy_score(labels, grades),
        "balanced_accuracy": sk.recall_score(labels, grades, labels=np.unique(labels), average="macro"),
        "macro_f1": sk.f1_score(labels, grades, average="macro", zero_division=0),
        "mae": sk.mean_absolute_error(labels, grades),
        "qwk": np.nan,
        "ece": float(multiclass_calibration_error(*map(torch.tensor, (probabilities, labels)), classes, n_bins=15)),
        "rps": np.square(distances).mean(),
    }
    if len(set(labels) | set(grades)) > 1:
        expected["qwk"] = sk.cohen_kappa_score(labels, grades, weights="quadratic", labels=np.arange(classes))
    if classes == 5:
        both = 0 < (labels >= 2).sum() < len(labels)
        expected["auroc_kl2"] = sk.roc_auc_score(labels >= 2, probabilities[:, 2:].sum(axis=1)) if both else np.nan
    assert ours == pytest.approx(expected, abs=1e-6, nan_ok=True)


@settings(max_examples=50, deadline=None)
@given(graded(), st.data())
def test_a_film_that_counts_twice_is_as_if_it_were_there_twice(films, data):
    count = len(films[1])
    times = data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count).filter(any))
    probabilities, grades, labels = films
    weights = np.array([np.ones(count), times])  # two weightings: they must not mix
    ours = weighted_metrics(WeightedFilms(weights, labels, grades, probabilities), IN_TRAINING)
    repeated = grading_metrics(*(np.repeat(column, times, axis=0) for column in films))
    assert {name: value[1] for name, value in ours.items()} == pytest.approx(repeated, abs=1e-9, nan_ok=True)
    assert {name: value[0] for name, value in ours.items()} == pytest.approx(grading_metrics(*films), nan_ok=True)


def test_rps_by_hand():
    probabilities = np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    # film 0: cumulative .2, .7 against 0, 1; film 1: 1, 1 against 0, 0
    expected = ((0.2**2 + 0.3**2) / 2 + (1 + 1) / 2) / 2
    assert grading_metrics(probabilities, np.array([1, 0]), np.array([1, 2]))["rps"] == pytest.approx(expected)


def test_ece_by_hand():
    probabilities = np.array([[0.9, 0.1]] * 10)
    labels = np.array([0] * 7 + [1] * 3)
    assert grading_metrics(probabilities, probabilities.argmax(1), labels)["ece"] == pytest.approx(0.2)


@pytest.mark.parametrize("edge", np.arange(ECE_BINS // 2 + 1, ECE_BINS) / ECE_BINS)
def test_a_probability_on_the_edge_of_two_bins_falls_into_the_upper_one(edge):
    # were they in one bin, their gaps (right and too unsure, wrong and too sure) would cancel out in part
    probabilities = np.array([[edge, 1 - edge], [edge - 0.03, 1.03 - edge]])
    values = grading_metrics(probabilities, np.array([0, 0]), np.array([0, 1]))
    sure = [edge, max(edge - 0.03, 1.03 - edge)]
    right = [1, float(edge - 0.03 < 0.5)]
    assert values["ece"] == pytest.approx(sum(abs(p - hit) for p, hit in zip(sure, right, strict=True)) / 2)


def test_perfect_grades_score_perfectly():
    labels = np.arange(5)
    values = grading_metrics(np.eye(5), labels, labels)
    assert values["qwk"] == values["accuracy"] == values["auroc_kl2"] == 1
    assert values["mae"] == values["rps"] == values["ece"] == 0


def test_what_films_of_one_grade_do_not_define_is_nan_and_never_a_number():
    labels = np.array([3, 3])
    values = grading_metrics(np.eye(5)[[3, 3]], labels, labels)
    assert {name for name, value in values.items() if np.isnan(value)} == {"qwk", "auroc_kl2"}
    assert grading_metrics(np.eye(5)[[2, 3]], np.array([2, 3]), labels)["qwk"] == 0


def test_what_films_do_not_have_is_not_measured():
    films = WeightedFilms(np.ones((1, 2)), np.array([0, 1]), np.array([0, 1]), np.eye(3)[:2])
    of_all = {"accuracy", "balanced_accuracy", "macro_f1", "f1_0", "f1_1", "f1_2", "mae", "qwk", "within_one"}
    assert set(weighted_metrics(films)) == of_all | {"rps", "ece"}


def test_a_metric_is_a_function_and_a_row(monkeypatch):
    monkeypatch.setitem(METRICS, "films", lambda films: films.weights.sum(axis=1))
    films = WeightedFilms(np.array([[1.0, 1], [2, 0]]), np.array([0, 1]), np.array([0, 1]), np.eye(2))
    assert weighted_metrics(films)["films"].tolist() == [2, 2]


def test_the_calibration_error_is_the_same_in_any_order_of_the_films():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), 500).astype(np.float32)
    labels, order = random.integers(0, 5, 500), random.permutation(500)
    once = grading_metrics(probabilities, probabilities.argmax(1), labels)["ece"]
    again = grading_metrics(probabilities[order], probabilities[order].argmax(1), labels[order])["ece"]
    assert once == pytest.approx(again, abs=1e-14)
