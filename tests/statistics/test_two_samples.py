"""Alarms are as rare as promised, and labels are not needed to see that a network has become worse."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.statistics.two_samples import (
    accuracy_without_labels,
    distributions_differ,
    holm,
    share_above,
    shares_differ,
    threshold_of,
)

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@settings(max_examples=30, deadline=None)
@given(P_VALUES, st.floats(0.001, 0.2))
def test_together_those_are_below_a_level_that_holms_steps_reject(p_values, level):
    rejected = set()
    for place, i in enumerate(np.argsort(p_values, kind="stable")):
        if p_values[i] * (len(p_values) - place) > level:
            break
        rejected.add(int(i))
    assert {i for i, p in enumerate(holm(p_values)) if p <= level} == rejected


@settings(max_examples=30, deadline=None)
@given(P_VALUES)
def test_no_p_value_gets_smaller_and_their_order_stays(p_values):
    together = holm(p_values)
    assert all(one >= alone for one, alone in zip(together, p_values, strict=True))
    assert [together[i] for i in np.argsort(p_values, kind="stable")] == sorted(together)


def test_samples_of_one_distribution_differ_in_one_of_twenty_cases_at_most():
    random = np.random.default_rng(0)
    values = random.normal(size=(150, 2, 60)).round(1)  # with ties
    assert np.mean([distributions_differ(*pair) <= 0.05 for pair in values]) <= 0.08
    assert np.mean([shares_differ(*(pair > 0.5)) <= 0.05 for pair in values]) <= 0.08


def test_a_shift_of_one_standard_deviation_is_found():
    random = np.random.default_rng(1)
    assert distributions_differ(random.normal(size=60), random.normal(1.0, size=60)) < 0.001
    assert shares_differ(np.arange(60) < 10, np.arange(60) < 40) < 0.001


def test_an_empty_sample_differs_from_none():
    assert distributions_differ(np.zeros(0), np.ones(4)) == 1.0
    assert shares_differ(np.zeros(0, bool), np.ones(4, bool)) == 1.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0.2, 1), st.booleans()), min_size=1, max_size=40, unique_by=lambda film: film[0]))
def test_as_many_films_lie_above_the_threshold_as_are_graded_right(films):
    confidence, right = (np.array(column) for column in zip(*films, strict=True))
    assert share_above(confidence, threshold_of(confidence, right)) == pytest.approx(right.mean())


def graded(random, count, hard):
    """Confidence of films, some hard, and whether they are graded right: 19 of 20 easy, 3 of 10 hard ones."""
    is_hard = random.random(count) < hard
    confidence = np.where(is_hard, random.uniform(0.3, 0.5, count), random.uniform(0.8, 1, count))
    return confidence, random.random(count) < np.where(is_hard, 0.3, 0.95)


def test_the_estimated_accuracy_follows_films_that_become_harder():
    random = np.random.default_rng(2)
    confidence, right = graded(random, 2000, 0.3)
    harder, truth = graded(random, 2000, 0.6)
    estimate, low, high = accuracy_without_labels(confidence, right, harder)
    assert low < estimate < high
    assert estimate == pytest.approx(truth.mean(), abs=0.07) and estimate < right.mean() - 0.1
