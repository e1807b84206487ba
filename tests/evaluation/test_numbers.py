import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from graded_films import by_hand, graded_films, repeated
from legradnet.errors import UserError
from legradnet.evaluation.numbers import measure, metric_intervals, metric_values, subgroups, worst_mistakes
from legradnet.statistics.metrics import (
    ECE_BINS,
    REFERRAL_RATES,
    coverage_by_grade,
    grading_metrics,
    referral_curve,
    weighted_metrics,
)

# a subset of the grades occurs in most examples
films = st.builds(
    graded_films,
    st.integers(1, 40),
    true_grades=st.lists(st.integers(0, 4), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)


def of_sets(graded, weights):
    return coverage_by_grade(weights, graded.labels, graded.sets, graded.classes)


def of_confidence(graded, weights):
    return referral_curve(weights, graded.confidence, graded.grades != graded.labels)


@settings(max_examples=60, deadline=None)
@given(films, st.data())
def test_a_weighted_film_counts_as_if_it_were_there_that_often(graded, data):
    times = data.draw(
        st.lists(st.integers(0, 3), min_size=len(graded), max_size=len(graded)).filter(lambda times: sum(times) > 0)
    )
    weights = np.array([times, np.ones(len(graded))])  # two resamples: they must not mix
    ours = {name: value[0] for name, value in weighted_metrics(graded.weighted(weights)).items()}
    rows = repeated(graded, times)
    labels, grades, score = rows.labels, rows.grades, rows.probabilities[:, 2:].sum(axis=1)
    accepted, arthritis = ~rows.referred, labels >= 2
    expected = {
        "accuracy": sk.accuracy_score(labels, grades),
        "balanced_accuracy": sk.recall_score(labels, grades, labels=np.unique(labels), average="macro"),
        "macro_f1": sk.f1_score(labels, grades, average="macro"),
        "mae": sk.mean_absolute_error(labels, grades),
        "within_one": np.mean(np.abs(labels - grades) <= 1),
        "coverage": rows.covered.mean(),
        "set_size": (rows.sets[:, 1] - rows.sets[:, 0] + 1).mean(),
        "referral_rate": rows.referred.mean(),
    }
    f1 = sk.f1_score(labels, grades, labels=range(5), average=None, zero_division=np.nan)
    expected |= {f"f1_{grade}": value for grade, value in enumerate(f1)}
    if len({*labels, *grades}) > 1:
        expected["qwk"] = sk.cohen_kappa_score(labels, grades, weights="quadratic", labels=range(5))
    if len(set(arthritis)) == 2:
        expected["auroc_kl2"] = sk.roc_auc_score(arthritis, score)
        expected["sensitivity_kl2"] = sk.recall_score(arthritis, score >= 0.5)
        expected["specificity_kl2"] = sk.recall_score(~arthritis, score < 0.5)
    if accepted.any():
        expected["accepted_accuracy"] = sk.accuracy_score(labels[accepted], grades[accepted])
        expected["accepted_error"] = 1 - expected["accepted_accuracy"]
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, abs=1e-9, nan_ok=True), name
    once = np.ones((1, len(rows)))
    for name, value in weighted_metrics(rows.weighted(once)).items():
        assert ours[name] == pytest.approx(value[0], abs=1e-9, nan_ok=True), name
    for curve in (of_sets, of_confidence):
        assert curve(graded, weights)[0] == pytest.approx(curve(rows, once)[0], abs=1e-9, nan_ok=True)


def test_numbers_by_hand():
    numbers = measure(by_hand(), resamples=10)
    values = {name: each["value"] for name, each in numbers["metrics"].items()}
    assert (numbers["films"], numbers["patients"], numbers["by_grade"]) == (5, 3, [2, 2, 1])
    assert numbers["confusion"] == [[1, 0, 1], [0, 2, 0], [0, 1, 0]]
    assert values == pytest.approx(
        {
            "accuracy": 3 / 5,
            "balanced_accuracy": (1 / 2 + 1 + 0) / 3,
            "macro_f1": (2 / 3 + 4 / 5 + 0) / 3,
            "f1_0": 2 / 3,
            "f1_1": 4 / 5,
            "f1_2": 0,
            "mae": 3 / 5,
            "qwk": 1 - 5 / ((2 * 3 + 2 * 4 * 1 + 2 * 1 + 2 * 1 + 1 * 4 + 1 * 3) / 5),
            "within_one": 4 / 5,
            "rps": (0.01 + (0.64 + 0.25) + (0.01 + 0.09) + (0.01 + 0.01) + 0.49) / 2 / 5,
            # in bins of their own: .9 right, .5 wrong, .6 right, .8 right, .7 wrong
            "ece": (0.1 + 0.5 + 0.4 + 0.2 + 0.7) / 5,
            "rps_uncalibrated": (2 + 1) / 2 / 5,
            "ece_uncalibrated": 2 / 5,
            "coverage": 4 / 5,
            "set_size": 9 / 5,
            "referral_rate": 2 / 5,
            "accepted_accuracy": 2 / 3,
            "accepted_error": 1 / 3,
        },
        abs=1e-6,
    )
    assert [(row["films"], row["value"]) for row in numbers["coverage_by_grade"]] == [(2, 0.5), (2, 1), (1, 1)]
    assert numbers["gate_by_grade"]["swin"] == pytest.approx([0.3, 0.5, 1.0])
    assert numbers["gate_by_grade"]["vit"] == pytest.approx([0.7, 0.5, 0.0])


def test_referral_curve_by_hand():
    curve = {round(row["referral_rate"], 2): row["error"] for row in measure(by_hand(), resamples=10)["referral_curve"]}
    assert list(curve) == pytest.approx(np.arange(0, 1, 0.05))
    # least sure first: wrong (.5), right (.6), wrong (.7), right (.8), right (.9)
    assert [curve[rate] for rate in (0, 0.2, 0.4, 0.6, 0.8)] == pytest.approx([2 / 5, 1 / 4, 1 / 3, 0, 0])
    assert curve[0.1] == pytest.approx(1.5 / 4.5)  # half of the first film is left


def test_films_of_equal_confidence_are_referred_in_equal_parts():
    graded = replace(by_hand(), probabilities=np.full((5, 3), 1 / 3))
    assert of_confidence(graded, np.ones((1, 5)))[0] == pytest.approx(np.full(len(REFERRAL_RATES), 2 / 5))


def test_metrics_come_in_the_order_of_the_report():
    always = ["accuracy", "balanced_accuracy", "macro_f1"]
    of_five = [*always, *(f"f1_{grade}" for grade in range(5)), "mae", "qwk", "within_one"]
    of_five += ["auroc_kl2", "sensitivity_kl2", "specificity_kl2", "rps", "ece"]
    of_five += ["rps_uncalibrated", "ece_uncalibrated", "auroc_kl2_uncalibrated", "coverage", "set_size"]
    of_five += ["referral_rate", "accepted_accuracy", "accepted_error"]
    assert list(metric_intervals(graded_films(), resamples=5)) == of_five
    bare = [name for name in of_five if "kl2" not in name and name not in ("f1_3", "f1_4", "coverage", "set_size")]
    assert list(metric_intervals(graded_films(classes=3, sets=False), resamples=5)) == bare


def test_values_equal_those_that_training_wrote():
    graded = graded_films(500)
    wrote = grading_metrics(graded.raw, graded.grades, graded.labels)
    values = metric_values(graded)
    for name, value in wrote.items():
        of_raw = f"{name}_uncalibrated" if name in ("rps", "ece", "auroc_kl2") else name
        assert values[of_raw] == value  # to the last bit
    assert values["rps"] != values["rps_uncalibrated"]


def test_the_metrics_alone_are_those_of_the_whole_measurement():
    settings = {"resamples": 50, "seed": 3, "threshold": 0.4, "confidence_level": 0.8}
    assert metric_intervals(graded_films(), **settings) == measure(graded_films(), **settings)["metrics"]


def test_a_rounding_error_beyond_1_leaves_the_calibration_error_alone():
    graded = by_hand()
    beyond = graded.probabilities + np.array([[0, 0, -1e-17]] + [[0, 0, 0]] * 4)
    assert metric_values(replace(graded, probabilities=beyond))["ece"] == metric_values(graded)["ece"]


def test_the_threshold_trades_sensitivity_for_specificity_and_holds_films_that_reach_it():
    graded = graded_films(4)
    table = graded.table.assign(label=[0, 1, 2, 3])
    low, high = [0.75, 0, 0.25, 0, 0], [0.25, 0, 0, 0, 0.75]
    graded = replace(graded, table=table, probabilities=np.array([low, high, low, high]))
    both = ("sensitivity_kl2", "specificity_kl2")
    for threshold, expected in ((0.1, [1, 0]), (0.25, [1, 0]), (0.5, [0.5, 0.5]), (0.75, [0.5, 0.5]), (0.8, [0, 1])):
        metrics = measure(graded, resamples=5, threshold=threshold)["metrics"]
        assert [metrics[name]["value"] for name in both] == expected


def test_roc_equals_scikit_learns():
    graded = graded_films(300)
    roc = measure(graded, resamples=5)["roc"]
    score = graded.probabilities[:, 2:].sum(axis=1)
    alarms, found, thresholds = sk.roc_curve(graded.labels >= 2, score.clip(0, 1))
    assert roc["false_positive_rate"] == pytest.approx(alarms)
    assert roc["true_positive_rate"] == pytest.approx(found)
    assert roc["thresholds"][1:] == pytest.approx(thresholds[1:])
    assert roc["thresholds"][0] is None
    assert measure(graded_films(classes=3), resamples=5)["roc"] is None


def test_reliability_bins_add_up_to_the_calibration_error():
    graded = graded_films(300)
    graded.raw[:3] = np.eye(5)[2]  # exactly sure: in the last bin
    numbers = measure(graded, resamples=5)
    for kind, name in (("calibrated", "ece"), ("uncalibrated", "ece_uncalibrated")):
        bins = numbers["reliability"][kind]
        assert [each["low"] for each in bins] == pytest.approx(np.arange(ECE_BINS) / ECE_BINS, abs=1e-6)
        assert sum(each["films"] for each in bins) == 300
        full = [each for each in bins if each["films"]]
        assert all(each["low"] <= each["confidence"] <= each["high"] for each in full)
        gap = sum(each["films"] * abs(each["accuracy"] - each["confidence"]) for each in full) / 300
        assert gap == pytest.approx(numbers["metrics"][name]["value"], abs=0.01)
        assert all(each["accuracy"] is None for each in bins if not each["films"])
    assert numbers["reliability"]["uncalibrated"][-1]["films"] >= 3


FEW = {
    "one film": graded_films(1),
    "one patient": graded_films(6, knees=6),
    "one grade": graded_films(8, true_grades=[3]),
    "three classes": graded_films(8, classes=3),
    "no sets, no gate": graded_films(8, sets=False, gates=False),
    "all referred": replace(graded_films(8), referred=np.ones(8, bool)),
    "all the same": replace(graded_films(4, true_grades=[0]), grades=np.zeros(4, np.int64)),
}


@pytest.mark.parametrize("graded", FEW.values(), ids=FEW)
@pytest.mark.filterwarnings("error")
def test_few_films_give_numbers_or_none_but_never_nan(graded):
    numbers = measure(graded, resamples=30)
    json.dumps(numbers, allow_nan=False)
    assert numbers["metrics"]["accuracy"]["value"] is not None
    assert (numbers["coverage_by_grade"] is None) == (graded.sets is None)
    assert (numbers["gate_by_grade"] is None) == (graded.gate_weights is None)


def test_what_is_not_defined_is_none():
    assert measure(FEW["one grade"], resamples=30)["roc"] is None
    assert measure(FEW["one grade"], resamples=30)["gate_by_grade"]["vit"][0] is None
    one_grade = metric_intervals(FEW["one grade"], resamples=30)
    assert one_grade["auroc_kl2"] == one_grade["specificity_kl2"] == {"value": None, "low": None, "high": None}
    assert metric_intervals(FEW["all referred"], resamples=30)["accepted_error"]["value"] is None
    assert metric_intervals(FEW["all the same"], resamples=30)["qwk"]["value"] is None
    one_patient = metric_intervals(FEW["one patient"], resamples=30)["accuracy"]
    assert one_patient["value"] is not None
    assert one_patient["low"] is one_patient["high"] is None


def test_no_film_is_told_in_words():
    with pytest.raises(UserError, match="no labelled film"):
        measure(graded_films().subset(np.zeros(60, bool)))


def test_a_subgroup_is_measured_as_if_its_films_were_all():
    graded = graded_films(40)
    graded.table["site"] = ["z", "a", "", "a"] * 10
    found = subgroups(graded, ["side", "site"], resamples=50, seed=3)
    assert list(found) == ["side", "site"]
    assert list(found["side"]) == ["L", "R"]
    assert list(found["site"]) == ["a", "z", "unknown"]
    assert [found["site"][value]["films"] for value in ("a", "z", "unknown")] == [20, 10, 10]
    assert found["site"]["a"]["patients"] == 20
    alone = graded.subset(graded.table["site"].eq("a").to_numpy())
    assert found["site"]["a"]["metrics"] == metric_intervals(alone, resamples=50, seed=3)


def test_a_column_that_makes_no_subgroups_is_told_in_words():
    with pytest.raises(UserError, match=r"no column sex.*they have filename, label, patient, side"):
        subgroups(graded_films(), ["side", "sex"], resamples=5)
    with pytest.raises(UserError, match="column filename has 60 values"):
        subgroups(graded_films(), ["filename"], resamples=5)


def test_worst_mistakes_are_most_grades_off_then_surest():
    graded = graded_films(6)
    surest = np.array([0.5, 0.9, 0.6, 0.6, 0.9, 0.7])
    graded = replace(
        graded,
        table=graded.table.assign(label=[0, 0, 4, 4, 2, 0]),
        grades=np.array([1, 1, 0, 0, 2, 3]),
        probabilities=np.repeat(surest[:, None], 5, axis=1),
    )
    assert worst_mistakes(graded) == [2, 3, 5, 1, 0]
    assert worst_mistakes(graded, 2) == [2, 3]
