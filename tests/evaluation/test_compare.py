import json
from dataclasses import replace

import numpy as np
import pytest

from graded_films import by_hand, graded_films
from legradnet.errors import UserError
from legradnet.evaluation.compare import compare
from legradnet.evaluation.numbers import metric_intervals
from legradnet.statistics.bootstrap import resampled_weights


def better(graded, share=0.3, seed=1):
    """The same films with a share of the wrong grades put right."""
    mended = np.random.default_rng(seed).random(len(graded)) < share
    return replace(graded, grades=np.where(mended, graded.labels, graded.grades))


def shuffled(graded, seed=0):
    order = np.random.default_rng(seed).permutation(len(graded))
    return replace(
        graded,
        table=graded.table.iloc[order].reset_index(drop=True),
        grades=graded.grades[order],
        probabilities=graded.probabilities[order],
        raw=graded.raw[order],
        sets=graded.sets[order],
        referred=graded.referred[order],
        gate_weights=graded.gate_weights[order],
    )


def test_a_difference_by_hand():
    a = by_hand()
    b = replace(a, grades=np.array([0, 1, 1, 1, 2]))
    accuracy, mae = (compare(a, b, resamples=50)[name] for name in ("accuracy", "mae"))
    assert (accuracy["a"], accuracy["b"], accuracy["difference"]) == pytest.approx((0.6, 0.8, 0.2), abs=1e-6)
    assert (mae["a"], mae["b"], mae["difference"]) == pytest.approx((0.6, 0.2, -0.4))


def test_a_grading_does_not_differ_from_itself():
    graded = graded_films()
    for name, row in compare(graded, graded, resamples=50).items():
        assert row["difference"] == row["low"] == row["high"] == 0, name


def test_the_interval_is_that_of_the_difference_on_the_same_resamples():
    a = graded_films(200)
    b = better(a)
    (weights,) = resampled_weights(a.patients, resamples=300, seed=5)
    gain = (b.grades == b.labels).astype(float) - (a.grades == a.labels)
    low, high = np.quantile(weights @ gain / weights.sum(axis=1), [0.05, 0.95])
    row = compare(a, b, resamples=300, seed=5, confidence_level=0.9)["accuracy"]
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    alone = [metric_intervals(each, resamples=300, confidence_level=0.9)["accuracy"] for each in (a, b)]
    unpaired = np.sqrt(sum((each["high"] - each["low"]) ** 2 for each in alone))
    assert row["high"] - row["low"] < 0.7 * unpaired


def test_the_order_of_films_does_not_matter():
    a = graded_films()
    b = better(a)
    straight, mixed = compare(a, b, resamples=50), compare(a, shuffled(b), resamples=50)
    for name, row in straight.items():
        assert mixed[name] == pytest.approx(row, abs=1e-6), name


def test_only_metrics_that_both_have_are_compared():
    a = graded_films()
    b = replace(a, sets=None)
    for rows in (compare(a, b, resamples=10), compare(b, a, resamples=10)):
        assert "accuracy" in rows
        assert not {"coverage", "set_size"} & set(rows)


@pytest.mark.filterwarnings("error")
def test_what_is_not_defined_is_none():
    graded = graded_films(6, knees=6, true_grades=[3])
    rows = compare(graded, better(graded), resamples=20)
    json.dumps(rows, allow_nan=False)
    assert rows["auroc_kl2"] == dict.fromkeys(("a", "b", "difference", "low", "high"))
    assert rows["accuracy"]["difference"] is not None
    assert rows["accuracy"]["low"] is None


def changed(graded, row, **cells):
    table = graded.table.copy()
    for name, value in cells.items():
        table.loc[row, name] = value
    return replace(graded, table=table)


A = graded_films(10)
UNLIKE = {
    "not of the same films, knee9.png is in one only": A.subset(np.arange(10) < 9),
    "not of the same films, knee3.png, other.png are in one only": changed(A, 3, filename="other.png"),
    "not the same true grade in both, knee2.png is different": changed(A, 2, label=(A.labels[2] + 1) % 5),
    "not the same patient in both, knee2.png is different": changed(A, 2, patient="p9"),
    "knee0.png is there more than once": changed(A, 1, filename="knee0.png"),
    "one has 5 grades, the other 6": replace(A, probabilities=np.pad(A.probabilities, ((0, 0), (0, 1)))),
}


@pytest.mark.parametrize(("words", "b"), UNLIKE.items(), ids=["fewer", "other", "label", "patient", "twice", "grades"])
def test_what_can_not_be_compared_is_told_in_words(words, b):
    with pytest.raises(UserError, match=words):
        compare(A, b, resamples=5)
    assert compare(A, A, resamples=5)
