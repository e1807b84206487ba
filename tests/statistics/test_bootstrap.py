from dataclasses import replace

import numpy as np
import pytest

from graded_films import graded_films, repeated
from legradnet.evaluation.numbers import measure, metric_intervals
from legradnet.statistics import bootstrap as module
from legradnet.statistics.bootstrap import bootstrap, percentile_interval, resampled_weights


def width(estimate):
    return estimate["high"] - estimate["low"]


def weighted_mean(values):
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_knees_of_a_patient_are_drawn_together_and_as_many_patients_as_there_are():
    patients = np.array([0, 1, 0, 2, 2, 2, 3])
    (weights,) = resampled_weights(patients, resamples=500, seed=0)
    assert weights.shape == (500, 7)
    assert (weights[:, 0] == weights[:, 2]).all()
    assert (weights[:, 3] == weights[:, 4]).all()
    assert (weights[:, 4] == weights[:, 5]).all()
    drawn = weights[:, [0, 1, 3, 6]]
    assert (drawn.sum(axis=1) == 4).all()
    assert drawn.mean(axis=0) == pytest.approx(np.ones(4), abs=0.15)


def test_duplicating_each_knee_of_a_patient_does_not_narrow_the_interval():
    graded = graded_films(200)
    twice = repeated(graded, np.full(200, 2))
    once, doubled = metric_intervals(graded, resamples=500), metric_intervals(twice, resamples=500)
    # a film without a patient counts as a patient of its own
    nobodys = replace(twice, table=twice.table.assign(patient=""))
    separate = metric_intervals(nobodys, resamples=500)
    for name in ("accuracy", "mae", "rps", "auroc_kl2", "coverage"):
        assert width(doubled[name]) == pytest.approx(width(once[name]), rel=1e-6)
        assert width(separate[name]) < 0.85 * width(once[name])


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    graded = graded_films()
    first = measure(graded, resamples=100, seed=7)
    assert measure(graded, resamples=100, seed=7) == first
    other = measure(graded, resamples=100, seed=8)
    assert other["metrics"] != first["metrics"]
    assert {name: each["value"] for name, each in other["metrics"].items()} == {
        name: each["value"] for name, each in first["metrics"].items()
    }


def test_blocks_of_resamples_are_all_resamples(monkeypatch):
    graded = graded_films()
    whole = measure(graded, resamples=25)
    monkeypatch.setattr(module, "_CELLS", 7 * len(graded))
    assert [len(block) for block in resampled_weights(graded.patients, resamples=25, seed=0)] == [7, 7, 7, 4]
    blocks = measure(graded, resamples=25)
    assert blocks["metrics"]["accuracy"] == pytest.approx(whole["metrics"]["accuracy"])
    assert blocks["metrics"]["qwk"] == pytest.approx(whole["metrics"]["qwk"])


def test_an_interval_holds_the_truth_as_often_as_it_says():
    random = np.random.default_rng(0)
    patients = np.repeat(np.arange(60), 2)
    hits = {"patients": 0, "films": 0}
    for seed in range(200):
        values = np.repeat(random.normal(size=60), 2) + 0.3 * random.normal(size=120)  # around 0, knees alike
        for kind, clusters in (("patients", patients), ("films", np.arange(120))):
            samples = bootstrap(weighted_mean(values), clusters, resamples=300, seed=seed)
            low, high = percentile_interval(samples["mean"], 0.95)
            hits[kind] += bool(low <= 0 <= high)
    assert 0.89 <= hits["patients"] / 200 <= 0.99
    assert hits["films"] / 200 < 0.88


def test_an_interval_has_the_width_that_theory_gives_it():
    values = np.random.default_rng(0).normal(size=400)
    samples = bootstrap(weighted_mean(values), np.arange(400), resamples=4000, seed=0)["mean"]
    low, high = percentile_interval(samples, 0.9)
    assert high - low == pytest.approx(2 * 1.645 * values.std() / np.sqrt(400), rel=0.05)


def test_resamples_where_a_value_is_not_defined_are_left_out():
    values = np.array([np.nan, *range(101), np.nan])
    never = np.full(103, np.nan)
    low, high = percentile_interval(np.stack([values, never], axis=1), 0.9)
    assert low.tolist() == pytest.approx([5, np.nan], nan_ok=True)
    assert high.tolist() == pytest.approx([95, np.nan], nan_ok=True)


def test_one_patient_alone_has_no_interval():
    samples = bootstrap(weighted_mean(np.array([1.0, 2.0])), np.array([0, 0]), resamples=20, seed=0)
    assert np.isnan(samples["mean"]).all()


def test_a_higher_confidence_level_gives_a_wider_interval():
    graded = graded_films()
    narrow, wide = (metric_intervals(graded, resamples=200, confidence_level=level) for level in (0.5, 0.95))
    assert width(narrow["mae"]) < 0.6 * width(wide["mae"])


def test_intervals_of_the_curves_are_around_their_values():
    numbers = measure(graded_films(300), resamples=200)
    for row in numbers["coverage_by_grade"]:
        assert row["low"] < row["value"] < row["high"]
    for row in numbers["referral_curve"][:15]:
        assert row["low"] <= row["error"] <= row["high"]
        assert row["low"] < row["high"]
    start, accuracy = numbers["referral_curve"][0], numbers["metrics"]["accuracy"]
    assert (start["low"], start["high"]) == pytest.approx((1 - accuracy["high"], 1 - accuracy["low"]))
