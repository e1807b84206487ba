"""How many numbers a site's films are allowed to teach is decided by the films."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.grades import grades_of
from legradnet.grading.calibration import Calibration
from legradnet.site.scaling import FAMILIES, choose_scaling, fit_scaling, folds_of, losses_of, numbers_of

TRAINING = np.array([0.4, 0.18, 0.26, 0.13, 0.03])
OLDER = np.array([0.05, 0.1, 0.3, 0.35, 0.2])


def answers(count, *, of=TRAINING, sharpened=1.5, seed=0):
    """Probabilities of a network that knows the prior of training and is too sure, of films with the prior `of`."""
    random = np.random.default_rng(seed)
    labels = random.choice(5, count, p=of)
    seen = labels + random.normal(0, 0.7, count)
    raw = (TRAINING * np.exp(-0.5 * ((seen[:, None] - np.arange(5)) / 0.7) ** 2)) ** sharpened
    return raw / raw.sum(axis=1, keepdims=True), labels


def chosen(count, rule="median", **how):
    raw, labels = answers(count, **how)
    calibration, tried = choose_scaling(raw, labels, np.arange(count) // 2, rule)
    return calibration, {one.family: one for one in tried}, raw, labels


@pytest.mark.parametrize("rule", ["mode", "median"])
def test_a_temperature_is_enough_for_a_network_that_is_only_too_sure(rule):
    calibration, tried, raw, _ = chosen(200, rule)
    assert tried["temperature"].chosen and not calibration.biases
    assert calibration.temperature == pytest.approx(1.5, abs=0.35)
    assert (calibration.grades(raw) == grades_of(raw, rule)).all()


@pytest.mark.parametrize("rule", ["mode", "median"])
def test_a_bias_a_grade_is_fitted_where_grades_are_as_frequent_as_nowhere_in_training(rule):
    calibration, tried, raw, labels = chosen(200, rule, of=OLDER)
    assert tried["biases"].chosen and calibration.biases[4] > calibration.biases[0] + 1
    tempered = Calibration(rule=rule, temperature=calibration.temperature)
    biased, plain = (losses_of(one.probabilities(raw), labels).mean() for one in (calibration, tempered))
    assert biased < plain
    assert (calibration.grades(raw) == labels).mean() > (grades_of(raw, rule) == labels).mean()


@pytest.mark.parametrize("count", [40, 100, 200])
def test_a_matrix_for_few_films_is_worse_on_other_patients_and_is_not_taken(count):
    _, tried, _, _ = chosen(count)
    assert tried["matrix"].log_loss > tried["temperature"].log_loss
    assert not tried["matrix"].chosen and not tried["vector"].chosen


def test_a_matrix_needs_ten_films_for_each_of_its_numbers_however_well_it_fits():
    raw, labels = answers(200)
    swapped = raw[:, [1, 0, 3, 2, 4]]  # which a matrix alone mends
    _, tried = choose_scaling(swapped, labels, np.arange(200), "mode")
    matrix = tried[-1]
    assert matrix.numbers == 29 and matrix.gain > 2 * matrix.error and not matrix.chosen
    raw, labels = answers(400)
    calibration, tried = choose_scaling(raw[:, [1, 0, 3, 2, 4]], labels, np.arange(400), "mode")
    assert tried[-1].chosen and (calibration.grades(raw[:, [1, 0, 3, 2, 4]]) == labels).mean() > 0.5


@settings(deadline=None, max_examples=6)
@given(st.integers(0, 10_000), st.sampled_from(FAMILIES), st.sampled_from(["mode", "median"]))
def test_whatever_is_fitted_gives_probabilities_that_fit_no_worse_than_those_before(seed, family, rule):
    raw, labels = answers(60, seed=seed)
    probabilities = fit_scaling(family, raw, labels, rule).probabilities(raw)
    assert np.isfinite(probabilities).all() and (probabilities >= 0).all()
    assert probabilities.sum(axis=1) == pytest.approx(1)
    assert losses_of(probabilities, labels).mean() <= losses_of(raw, labels).mean() + 1e-3


def test_films_of_one_grade_teach_nothing_about_probabilities():
    raw, _ = answers(40)
    for family in FAMILIES:
        fitted = fit_scaling(family, raw, np.full(40, 2), "mode")
        assert (fitted.temperature, fitted.biases, fitted.mixing) == (1.0, [], [])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=60).filter(lambda names: len(set(names)) > 1))
def test_a_patients_films_are_in_one_fold_and_no_fold_is_empty(patients):
    folds = folds_of(np.array(patients), 0)
    assert set(folds) == set(range(min(5, len(set(patients)))))
    for patient in set(patients):
        assert len({fold for fold, other in zip(folds.tolist(), patients, strict=True) if other == patient}) == 1


def test_numbers_are_counted_without_the_one_that_changes_nothing():
    assert [numbers_of(family, 5) for family in FAMILIES] == [1, 5, 9, 29]
