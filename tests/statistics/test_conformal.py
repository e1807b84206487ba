"""Conformal sets keep their promise, and films that count for less change it by no more than they may."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.statistics.conformal import conformal_quantile, weight_of_older

SCORES = st.lists(st.floats(0, 4), min_size=1, max_size=60)
COVERAGES = st.floats(0.05, 0.95)


@settings(max_examples=30, deadline=None)
@given(SCORES, COVERAGES)
def test_with_equal_films_the_quantile_is_that_of_split_conformal_prediction(scores, coverage):
    rank = math.ceil((len(scores) + 1) * coverage)
    expected = sorted(scores)[rank - 1] if rank <= len(scores) else math.inf
    assert conformal_quantile(np.array(scores), coverage) == expected
    assert conformal_quantile(np.array(scores), coverage, np.ones(len(scores))) == expected


@settings(max_examples=30, deadline=None)
@given(SCORES, SCORES, COVERAGES)
def test_films_that_count_for_nothing_change_nothing(scores, older, coverage):
    weights = np.concatenate([np.ones(len(scores)), np.zeros(len(older))])
    assert conformal_quantile(np.array([*scores, *older]), coverage, weights) == conformal_quantile(
        np.array(scores), coverage
    )


@settings(max_examples=30, deadline=None)
@given(SCORES, st.data())
def test_the_order_of_films_does_not_matter(scores, data):
    quarters = data.draw(st.lists(st.integers(0, 4), min_size=len(scores), max_size=len(scores)))
    order = data.draw(st.permutations(range(len(scores))))
    values, weights = np.array(scores), np.array(quarters) / 4  # whose sums are exact
    assert conformal_quantile(values[order], 0.8, weights[order]) == conformal_quantile(values, 0.8, weights)


@settings(max_examples=30, deadline=None)
@given(SCORES, COVERAGES, COVERAGES)
def test_a_higher_coverage_has_no_lower_quantile(scores, one, other):
    low, high = sorted((one, other))
    assert conformal_quantile(np.array(scores), low) <= conformal_quantile(np.array(scores), high)


def test_without_a_film_nothing_is_beyond_the_quantile():
    assert conformal_quantile(np.zeros(0), 0.5) == math.inf
    assert conformal_quantile(np.zeros(0), 0.5, np.zeros(0)) == math.inf


def test_the_next_film_is_covered_as_often_as_wanted():
    random = np.random.default_rng(0)
    inside = [scores[0] <= conformal_quantile(scores[1:], 0.8) for scores in random.normal(size=(3000, 40))]
    assert np.mean(inside) == pytest.approx(0.8, abs=0.02)


def test_older_films_cost_no_more_coverage_than_their_share_times_how_unlike_they_are():
    random = np.random.default_rng(1)
    weight = weight_of_older(40, 300, 100)
    weights = np.concatenate([np.ones(40), np.full(300, weight)])
    share = weights[40:].sum() / (weights.sum() + 1)
    inside = []
    for _ in range(1500):
        site, older = random.normal(size=41), random.normal(loc=-0.3, size=300)
        inside.append(site[0] <= conformal_quantile(np.concatenate([site[1:], older]), 0.8, weights))
    unlike = 0.1192  # total variation of two normal distributions 0.3 apart
    assert np.mean(inside) >= 0.8 - share * unlike - 0.025


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 500), st.integers(0, 500), st.integers(1, 200))
def test_older_films_fill_up_what_a_site_lacks_and_no_more(site, older, enough):
    weight = weight_of_older(site, older, enough)
    assert 0 <= weight <= 1
    assert weight * older == pytest.approx(min(older, max(0, enough - site)))
