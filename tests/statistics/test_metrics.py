import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from legradnet.statistics.training_metrics import grading_metrics, ranked_probability_score


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.sampled_from([2, 3, 5]))
def test_metrics_equal_scikit_learns(seed, count, classes):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), count)
    grades, labels = probabilities.argmax(1), rng.integers(0, classes, count)
    ours = grading_metrics(*map(torch.from_numpy, (probabilities, grades, labels)))
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(labels, grades), abs=1e-6)
    recalls = sk.recall_score(labels, grades, labels=np.unique(labels), average=None, zero_division=0)
    assert ours["balanced_accuracy"] == pytest.approx(recalls.mean(), abs=1e-6)
    assert ours["macro_f1"] == pytest.approx(sk.f1_score(labels, grades, average="macro", zero_division=0), abs=1e-6)
    assert ours["mae"] == pytest.approx(sk.mean_absolute_error(labels, grades), abs=1e-6)
    if len(set(labels) | set(grades)) > 1:
        kappa = sk.cohen_kappa_score(labels, grades, weights="quadratic", labels=np.arange(classes))
        assert ours["qwk"] == pytest.approx(kappa, abs=1e-5)
    ece = multiclass_calibration_error(*map(torch.from_numpy, (probabilities, labels)), classes, n_bins=15)
    assert ours["ece"] == pytest.approx(float(ece), abs=1e-6)
    if classes == 5 and 0 < (labels >= 2).sum() < count:
        auroc = sk.roc_auc_score(labels >= 2, probabilities[:, 2:].sum(1))
        assert ours["auroc_kl2"] == pytest.approx(auroc, abs=1e-5)
    assert ("auroc_kl2" in ours) == (classes == 5)


def test_rps_by_hand():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])
    labels = torch.tensor([1, 2])
    # film 0: cumulative .2, .7 against 0, 1; film 1: 1, 1 against 0, 0
    expected = ((0.2**2 + 0.3**2) / 2 + (1 + 1) / 2) / 2
    assert ranked_probability_score(probabilities, labels).item() == pytest.approx(expected)


def test_ece_by_hand():
    probabilities = torch.tensor([[0.9, 0.1]] * 10)
    labels = torch.tensor([0] * 7 + [1] * 3)
    values = grading_metrics(probabilities, probabilities.argmax(1), labels)
    assert values["ece"] == pytest.approx(0.2, abs=1e-6)


def test_perfect_grades_score_perfectly():
    labels = torch.tensor([0, 1, 2, 3, 4])
    values = grading_metrics(torch.eye(5), labels, labels)
    assert values["qwk"] == values["accuracy"] == values["auroc_kl2"] == 1
    assert values["mae"] == values["rps"] == values["ece"] == 0


def test_films_of_one_grade_only_give_numbers_or_an_honest_nan():
    labels = torch.tensor([3, 3])
    values = grading_metrics(torch.eye(5)[[3, 3]], labels, labels)
    assert values["qwk"] == 0
    assert math.isnan(values["auroc_kl2"])


def test_the_calibration_error_is_the_same_in_any_order_of_the_films():
    rng = np.random.default_rng(0)
    probabilities = torch.from_numpy(rng.dirichlet(np.ones(5), 500)).float().double()
    labels = torch.from_numpy(rng.integers(0, 5, 500))
    order = torch.from_numpy(rng.permutation(500))
    one, other = (
        grading_metrics(p, p.argmax(1), y)["ece"]
        for p, y in ((probabilities, labels), (probabilities[order], labels[order]))
    )
    assert one == pytest.approx(other, abs=1e-14)
