import logging
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.data.settings import DataSettings
from legradnet.data.splits import assign_splits, check_splits
from legradnet.errors import UserError
from legradnet.settings import checked

quickly = settings(max_examples=60, deadline=None)
fractions = st.sampled_from([0.1, 0.15, 0.2, 0.3, 0.35])


def table_of(patients: list[tuple[str, list[int]]], split: str = "") -> pd.DataFrame:
    """A manifest's table: for each patient a name ("" unknown) and the grades of the films."""
    films = [(name, grade) for name, grades in patients for grade in grades]
    return pd.DataFrame(
        {
            "filename": [f"{i}.png" for i in range(len(films))],
            "label": np.array([grade for _, grade in films], np.int64),
            "patient": [name for name, _ in films],
            "side": "",
            "split": split,
        }
    )


@st.composite
def cohorts(draw, least=2, most=60) -> pd.DataFrame:
    """Patients with one to three films, some of them unknown, in any order of rows."""
    grades = draw(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=3), min_size=least, max_size=most))
    unknown = draw(st.booleans())
    table = table_of([("" if unknown and i % 5 == 0 else f"p{i}", films) for i, films in enumerate(grades)])
    return table.sample(frac=1, random_state=draw(st.integers(0, 9)))


def divided_by(table: pd.DataFrame, **options) -> pd.DataFrame:
    return assign_splits(table, checked(DataSettings, options, group="data"))


def patients_of(table: pd.DataFrame) -> pd.Series:
    return table["patient"].where(table["patient"].ne(""), table["filename"])


def two_knees(count: int) -> pd.DataFrame:
    return table_of([(f"p{i}", [i % 5, (i + 1) % 5]) for i in range(count)])


@quickly
@given(cohorts(), fractions, fractions, st.integers(0, 99))
def test_both_knees_of_a_patient_stay_in_one_split(table, val, test, seed):
    divided = divided_by(table, val_fraction=val, test_fraction=test, seed=seed)
    assert divided.groupby(patients_of(divided))["split"].nunique().max() == 1


@quickly
@given(cohorts(), fractions, fractions)
def test_every_film_is_in_exactly_one_split_and_nothing_else_changes(table, val, test):
    before = table.copy()
    divided = divided_by(table, val_fraction=val, test_fraction=test)
    assert divided["split"].isin(["train", "val", "test"]).all()
    pd.testing.assert_frame_equal(divided.assign(split=""), before)
    pd.testing.assert_frame_equal(table, before)


@quickly
@given(cohorts(least=5), fractions, fractions, st.integers(0, 99))
def test_fractions_of_the_patients_are_met(table, val, test, seed):
    divided = divided_by(table, val_fraction=val, test_fraction=test, seed=seed)
    splits = divided.groupby(patients_of(divided))["split"].first()
    for split, fraction in (("test", test), ("val", val)):
        assert abs(splits.eq(split).sum() - fraction * len(splits)) < 2  # 1 for each of the two draws


@quickly
@given(st.lists(st.integers(0, 60), min_size=5, max_size=5), fractions, fractions, st.integers(0, 99))
def test_every_grade_with_enough_patients_is_in_every_split(counts, val, test, seed):
    grades = [grade for grade, count in enumerate(counts) for _ in range(count)] + [0, 1, 2]
    table = table_of([(f"p{i}", [grade]) for i, grade in enumerate(grades)])
    divided = divided_by(table, val_fraction=val, test_fraction=test, seed=seed)
    for grade, films in divided.groupby("label"):
        for split, fraction in (("test", test), ("val", val)):
            expected = fraction * len(films)
            assert abs(films["split"].eq(split).sum() - expected) < 3, (grade, split)
            if len(films) >= 2 * math.ceil(1 / fraction):
                assert films["split"].eq(split).any(), (grade, split)


def test_grades_are_spread_evenly():
    divided = divided_by(two_knees(1000), val_fraction=0.2, test_fraction=0.1)
    shares = pd.crosstab(divided["label"], divided["split"], normalize="index")
    assert np.allclose(shares["val"], 0.2, atol=0.01)
    assert np.allclose(shares["test"], 0.1, atol=0.01)


@quickly
@given(cohorts(), st.integers(0, 99))
def test_the_same_seed_gives_the_same_splits_in_any_order_of_rows(table, seed):
    first = divided_by(table, val_fraction=0.3, test_fraction=0.2, seed=seed)
    second = divided_by(table.iloc[::-1], val_fraction=0.3, test_fraction=0.2, seed=seed)
    pd.testing.assert_frame_equal(first, second.loc[first.index])


def test_another_seed_gives_other_splits():
    table = two_knees(50)
    first, second = (divided_by(table, val_fraction=0.3, test_fraction=0.2, seed=seed) for seed in (0, 1))
    assert not first.equals(second)


@quickly
@given(cohorts(least=10), st.integers(2, 5), st.sampled_from([0, 0.2]), st.booleans(), st.integers(0, 99))
def test_folds_validate_every_film_outside_test_exactly_once(table, num_folds, test, is_given, seed):
    if is_given:  # `train`, `val` and `test` from the user: only `test` stays
        given = divided_by(table, val_fraction=0.2, test_fraction=0.2)
        table = given if given["split"].ne("test").any() else table
    runs = [
        divided_by(table, val_fraction=0.2, test_fraction=test, fold=fold, num_folds=num_folds, seed=seed)
        for fold in range(num_folds)
    ]
    is_test = [run["split"].eq("test") for run in runs]
    assert all(other.equals(is_test[0]) for other in is_test)
    if is_given:
        assert is_test[0].equals(table["split"].eq("test"))
    in_val = sum(run["split"].eq("val").astype(int) for run in runs)
    assert in_val.equals(1 - is_test[0].astype(int))
    sizes = [patients_of(run)[run["split"].eq("val")].nunique() for run in runs]
    assert max(sizes) - min(sizes) <= 1
    assert all(run.groupby(patients_of(run))["split"].nunique().max() == 1 for run in runs)


def test_a_fold_needs_no_val_fraction():
    divided = divided_by(two_knees(20), val_fraction=0, test_fraction=0, fold=0, num_folds=5)
    assert divided["split"].eq("val").sum() == 2 * 4


def test_neighbours_in_the_table_are_drawn_independently():
    table = table_of([(f"p{i:03}", [0]) for i in range(100)])
    drawn = np.flatnonzero(divided_by(table, val_fraction=0.2, test_fraction=0)["split"].eq("val"))
    assert len(set(np.diff(drawn))) > 2  # not every fifth patient by name


def test_a_given_split_is_used_as_it_is():
    table = two_knees(6)
    table["split"] = ["train"] * 8 + ["val"] * 4
    assert divided_by(table, val_fraction=0.5, test_fraction=0.4).equals(table)


def test_num_folds_without_a_fold_is_no_folding():
    options = {"val_fraction": 0.2, "test_fraction": 0.2}
    assert divided_by(two_knees(20), **options, num_folds=5).equals(divided_by(two_knees(20), **options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": -0.1}, r"data\.val_fraction=-0\.1"),
        ({"val_fraction": 1}, r"data\.val_fraction=1 must be a number from 0 to 0\.99"),
        ({"val_fraction": 0}, r"data\.val_fraction=0 leaves nothing to validate on"),
        ({"val_fraction": math.nan}, r"data\.val_fraction=nan"),
        ({"test_fraction": 1.5}, r"data\.test_fraction=1\.5"),
        ({"val_fraction": 0.5, "test_fraction": 0.5}, "nothing to train on"),
        ({"fold": 0}, r"data\.fold=0 needs data\.num_folds"),
        ({"fold": 5, "num_folds": 5}, r"data\.fold=5 must be from 0 to 4"),
        ({"fold": -1, "num_folds": 5}, r"data\.fold=-1"),
        ({"num_folds": 1}, r"data\.num_folds=1 must be a whole number of at least 2"),
        ({"fold": 0, "num_folds": 21}, r"data\.num_folds=21 is more than the (16|17|18) patients"),
    ],
)
def test_an_option_without_meaning_is_named(options, message):
    with pytest.raises(UserError, match=message):
        divided_by(two_knees(20), **{"val_fraction": 0.2, "test_fraction": 0.15} | options)


def test_a_half_filled_split_column_is_refused():
    table = two_knees(2).assign(split=["train", "", "", "val"])
    with pytest.raises(UserError, match="2 of 4 films have no split"):
        divided_by(table, val_fraction=0.2, test_fraction=0)


@pytest.mark.parametrize("split", ["", "train"])
def test_unknown_patients_are_warned_about_once(caplog, split):
    table = table_of([("", [0, 1, 2, 3]), ("p", [1])], split)
    divided_by(table, val_fraction=0.2, test_fraction=0.2)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "no patient ids for 4 of 5 films" in caplog.text


def test_known_patients_are_no_reason_to_warn(caplog):
    divided_by(two_knees(9), val_fraction=0.2, test_fraction=0.2)
    assert not caplog.records


# ------------------------------------------------------------------------------------------------------------ checking
def test_patients_in_two_splits_are_named():
    table = two_knees(30).assign(split=["train", "val"] * 15 + ["train"] * 30)
    with pytest.raises(UserError) as told:
        check_splits(table, 5)
    assert "15 patients are in more than one split: 'p0' (train, val)" in str(told.value)
    assert str(told.value).endswith("and 5 more")
    assert str(told.value).count("(train, val)") == 10


def test_films_of_unknown_patients_are_not_one_patient():
    check_splits(table_of([("", [0, 0])]).assign(split=["train", "val"]), 1)


@pytest.mark.parametrize("empty", ["train", "val"])
def test_an_empty_split_is_an_error(empty):
    other = {"train": "val", "val": "train"}[empty]
    with pytest.raises(UserError, match=f"the {empty} split is empty"):
        check_splits(two_knees(3).assign(split=other), 5)


def test_an_unknown_split_is_an_error():
    with pytest.raises(UserError, match="'' is not one of train, val, test"):
        check_splits(two_knees(3), 5)


def test_a_grade_that_training_never_sees_is_warned_about(caplog):
    check_splits(table_of([("a", [0]), ("b", [0, 3])]).assign(split=["train", "val", "val"]), 5)
    assert "training has no film of grade 1, 2, 3, 4" in caplog.text
