import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from legradnet.grades import grades_of
from legradnet.grading.calibration import MIN_FILMS, Calibration, fit_calibration, nonconformity, tempered
from legradnet.network.losses import Corn, CrossEntropy, SoftLabels

RULES = ("mode", "median")
logits = arrays(np.float64, st.tuples(st.integers(1, 30), st.integers(2, 6)), elements=st.floats(-12, 12))


def softmax(values):
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def knees(count, seed=0, sharpness=1.0, classes=5):
    """Probabilities that tell the truth at `sharpness` 1, and labels drawn from them."""
    rng = np.random.default_rng(seed)
    truth = softmax(rng.normal(size=(count, classes)) * 2)
    labels = (truth.cumsum(axis=1) < rng.random((count, 1))).sum(axis=1).clip(0, classes - 1)
    return softmax(np.log(truth) * sharpness), labels


@given(logits, st.floats(0.1, 10), st.sampled_from(RULES))
def test_no_temperature_changes_a_grade(values, temperature, rule):
    raw = softmax(values)
    edge = np.abs(raw.cumsum(axis=1) - 0.5).min(axis=1) if rule == "median" else np.diff(np.sort(raw)[:, -2:])[:, 0]
    clear = edge > 1e-6  # of exact ties the last digit decides
    calibrated = tempered(raw, temperature, rule)
    assert np.allclose(calibrated.sum(axis=1), 1)
    assert (calibrated >= 0).all()
    assert (grades_of(calibrated, rule) == grades_of(raw, rule))[clear].all()


@pytest.mark.parametrize("kind", [CrossEntropy, SoftLabels, Corn])
@given(arrays(np.float32, (20, 4), elements=st.floats(-6, 6, width=32)))
def test_grades_are_those_of_the_loss(kind, values):
    loss = kind(4 + (kind is Corn))
    probabilities = loss.probabilities(torch.from_numpy(values))
    assert grades_of(probabilities.numpy(), loss.rule).tolist() == loss.grades(probabilities).tolist()


@pytest.mark.parametrize("rule", RULES)
def test_the_temperature_that_spoiled_the_probabilities_is_found(rule):
    truth, labels = knees(4000)
    spoiled = tempered(truth, 1 / 2.5, rule)
    assert fit_calibration(spoiled, labels, rule).temperature == pytest.approx(2.5, rel=0.1)


@given(logits)
def test_sets_are_contiguous_before_they_are_made_so(values):
    scores = nonconformity(softmax(values))
    for threshold in (0.05, 0.3, 1.0):
        inside = scores <= threshold
        assert (np.abs(np.diff(inside.astype(int), axis=1)).sum(axis=1) <= 2).all()
        assert not (inside[:, 0] & inside[:, -1] & ~inside.all(axis=1)).any()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_cover_new_knees_as_often_as_stated_in_every_grade(rule, coverage):
    raw, labels = knees(6000, sharpness=2.0)
    fitted = fit_calibration(raw[:3000], labels[:3000], rule, coverage=coverage)
    assert fitted.by_grade
    grades = grades_of(raw[3000:], rule)
    sets = fitted.sets(fitted.probabilities(raw[3000:]), grades)
    covered = (sets[:, 0] <= labels[3000:]) & (labels[3000:] <= sets[:, 1])
    for grade in range(5):
        assert covered[labels[3000:] == grade].mean() >= coverage - 0.04
    assert (sets[:, 0] <= grades).all() and (grades <= sets[:, 1]).all()


def test_a_rare_grade_turns_coverage_for_each_grade_into_coverage_on_average_and_says_so():
    raw, labels = knees(500)
    few = (labels != 4) | (np.cumsum(labels == 4) <= 5)
    fitted = fit_calibration(raw[few], labels[few], "mode")
    assert not fitted.by_grade
    assert any("5 of grade 4" in note for note in fitted.notes)
    assert len(set(fitted.thresholds)) == 1


def test_films_that_are_not_referred_have_at_most_the_wanted_error():
    raw, labels = knees(8000)
    fitted = fit_calibration(raw[:4000], labels[:4000], "mode", target_error=0.2)
    grades = grades_of(raw[4000:], "mode")
    confidence = fitted.probabilities(raw[4000:])[np.arange(4000), grades]
    accepted = confidence >= fitted.min_confidence
    assert 0.1 < accepted.mean() < 0.9
    assert (grades != labels[4000:])[accepted].mean() <= 0.22
    assert (grades != labels[4000:]).mean() > 0.3


def test_a_good_network_refers_nothing_and_a_hopeless_one_everything():
    labels = np.arange(300) % 5
    sure = np.eye(5)[labels] * 0.96 + 0.008
    assert fit_calibration(sure, labels, "mode").min_confidence == 0
    hopeless = fit_calibration(np.roll(sure, 1, axis=1), labels, "mode")
    assert hopeless.min_confidence == math.inf
    assert any("all are referred" in note for note in hopeless.notes)


def test_too_few_knees_calibrate_nothing_and_say_so():
    raw, labels = knees(MIN_FILMS - 1)
    fitted = fit_calibration(raw, labels, "median")
    assert fitted.notes and fitted.coverage is None and fitted.min_confidence == 0
    assert (fitted.probabilities(raw) == raw).all()
    assert fitted.sets(raw, labels) is None


@given(st.integers(0, 60), st.integers(0, 4), st.sampled_from(RULES))
def test_one_grade_only_never_crashes(count, grade, rule):
    raw, _ = knees(count)
    fitted = fit_calibration(raw, np.full(count, grade), rule)
    assert fitted.temperature == 1
    assert fitted.notes


def test_calibration_survives_the_checkpoint(tmp_path):
    raw, labels = knees(400)
    fitted = fit_calibration(raw, labels, "median")
    torch.save(fitted.model_dump(), tmp_path / "plain")
    assert Calibration.model_validate(torch.load(tmp_path / "plain", weights_only=True)) == fitted


def test_films_of_equal_confidence_are_accepted_or_referred_together():
    labels = np.zeros(120, int)
    probabilities = np.full((120, 2), [0.8, 0.2])
    labels[60:] = 1  # the first half is right, but no threshold can tell it from the second
    assert fit_calibration(probabilities, labels, "mode", target_error=0.3).min_confidence == math.inf
