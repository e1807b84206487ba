"""Made-up knees: paired, repeatable, and graded by nothing but their anatomy."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from legradnet.data.drawn_knee import draw_knee
from legradnet.data.synthetic import synthesize, write_knees
from legradnet.errors import UserError


def knee(severity, side="L", seed=0, size=96):
    return draw_knee(severity, side, np.random.default_rng(seed), size)


def joint_space(film, middle):
    """Height of the dark band between the bones around the column `middle`, both in parts of the film."""
    size = len(film)
    columns = film[int(0.35 * size) : int(0.75 * size), int((middle - 0.04) * size) : int((middle + 0.04) * size)]
    bone, gap = np.median(columns, axis=0), np.sort(columns, axis=0)[:2].mean(axis=0)
    if (bone - gap).mean() < 0.12 * bone.mean():
        return 0.0
    return 0.4 * float(np.mean(columns < (bone + gap) / 2))


def joint_spaces(severity, middle):
    return np.mean([joint_space(knee(severity, seed=seed), middle) for seed in range(12)])


def test_a_patient_has_a_left_and_a_right_knee_of_similar_grade():
    films, table = synthesize(61, size=32)
    assert films.shape == (61, 32, 32)
    assert films.dtype == np.uint8
    assert list(table.columns) == ["filename", "label", "patient", "side"]
    assert list(table["filename"]) == [f"{row.patient}{row.side}.png" for row in table.itertuples()]
    assert table.iloc[0].to_dict() == {"filename": "S00001L.png", "label": 0, "patient": "S00001", "side": "L"}
    *patients, (_, last) = table.groupby("patient")
    assert len(last) == 1
    for _, knees in patients:
        assert list(knees["side"]) == ["L", "R"]
        assert np.ptp(knees["label"]) <= 1
    assert any(np.ptp(knees["label"]) for _, knees in patients)


def test_the_knees_of_a_patient_share_their_exposure():
    films, _ = synthesize(60, size=32)
    brightness = films.mean(axis=(1, 2)).reshape(-1, 2)
    assert np.corrcoef(brightness.T)[0, 1] > 0.8


def test_the_same_seed_gives_the_same_films_and_another_seed_others():
    films, table = synthesize(6, size=48, seed=3)
    again, same_table = synthesize(6, size=48, seed=3)
    others, _ = synthesize(6, size=48, seed=4)
    np.testing.assert_array_equal(films, again)
    pd.testing.assert_frame_equal(table, same_table)
    assert all((film != other).any() for film, other in zip(films, others, strict=True))


@settings(max_examples=8, deadline=None)
@given(count=st.integers(1, 30), more=st.integers(1, 10), num_classes=st.integers(2, 7), seed=st.integers(0, 2**40))
def test_fewer_films_are_the_first_of_more_and_hold_every_grade(count, more, num_classes, seed):
    films, table = synthesize(count, size=32, num_classes=num_classes, seed=seed)
    longer, longer_table = synthesize(count + more, size=32, num_classes=num_classes, seed=seed)
    np.testing.assert_array_equal(films, longer[:count])
    pd.testing.assert_frame_equal(table, longer_table[:count])
    assert set(table["label"]) <= set(range(num_classes))
    if count >= num_classes:
        assert set(table["label"]) == set(range(num_classes))


@pytest.mark.parametrize("num_classes", [2, 3, 4, 5])
def test_grades_are_equally_common(num_classes):
    _, table = synthesize(60, size=32, num_classes=num_classes)
    counts = table["label"].value_counts()
    assert len(counts) == num_classes
    assert np.ptp(counts) <= 3


@settings(max_examples=12, deadline=None)
@given(size=st.integers(32, 512), severity=st.floats(0, 4), side=st.sampled_from(["L", "R"]), seed=st.integers(0, 999))
def test_any_size_shows_bone_brighter_than_what_is_beside_it(size, severity, side, seed):
    film = knee(severity, side, seed, size)
    assert film.shape == (size, size)
    assert film.dtype == np.uint8
    tibia = slice(int(0.75 * size), int(0.9 * size))
    beside = np.concatenate([film[tibia, : size // 24 + 1], film[tibia, -(size // 24) - 1 :]], axis=1)
    assert film[tibia, int(0.4 * size) : int(0.6 * size)].mean() > beside.mean() + 10


def test_the_fibula_is_on_the_right_of_a_left_knee_and_on_the_left_of_a_right_knee():
    def excess_on_the_right(side):
        mean = np.mean([knee(2, side, seed).astype(float) for seed in range(12)], axis=0)
        return mean[72:94, 74:85].mean() - mean[72:94, 11:22].mean()

    assert excess_on_the_right("L") > 5
    assert excess_on_the_right("R") < -5


def test_the_joint_space_narrows_with_severity_first_of_all_medially():
    medial = [joint_spaces(severity, 0.29) for severity in (0, 1, 2, 3, 4)]
    lateral = [joint_spaces(severity, 0.71) for severity in (0, 4)]
    assert all(wide > narrow for wide, narrow in pairwise(medial))
    assert medial[4] < 0.2 * medial[0]
    assert 0.6 * lateral[0] < lateral[1] < lateral[0]


@pytest.mark.parametrize("rows", [slice(38, 47), slice(48, 56)], ids=["femur", "tibia"])
@pytest.mark.parametrize("columns", [slice(5, 11), slice(-11, -5)], ids=["medial", "lateral"])
def test_osteophytes_grow_from_the_joint_margins_with_severity(rows, columns):
    brightness = [
        np.mean([knee(severity, seed=s)[rows, columns].mean() for s in range(12)]) for severity in (0, 1, 2, 3)
    ]
    assert all(later > earlier + 0.3 for earlier, later in pairwise(brightness))


def test_subchondral_bone_is_sclerotic_medially_from_grade_2_on():
    def excess(severity):  # of the bone under the medial plateau over that under the lateral one
        mean = np.mean([knee(severity, seed=seed).astype(float) for seed in range(12)], axis=0)
        return mean[56:62, 24:32].mean() - mean[56:62, 64:72].mean()

    assert abs(excess(1) - excess(0)) < 2
    assert excess(3) > excess(2) + 3 > excess(1) + 5


def test_the_label_is_the_grade_of_its_film():
    films, table = synthesize(60, size=96, seed=1)
    space = [
        joint_space(film if side == "L" else film[:, ::-1], 0.29)
        for film, side in zip(films, table["side"], strict=True)
    ]
    by_grade = pd.Series(space).groupby(table["label"]).mean()
    assert by_grade.is_monotonic_decreasing
    assert np.corrcoef(space, table["label"])[0, 1] < -0.85


def test_neither_exposure_nor_noise_tells_the_grade():
    films, table = synthesize(160, size=48, seed=1)
    far_from_the_joint = np.concatenate([films[:, :12], films[:, -12:]], axis=1).astype(float)
    for trait in (far_from_the_joint.mean(axis=(1, 2)), np.abs(np.diff(far_from_the_joint, axis=2)).mean(axis=(1, 2))):
        assert abs(np.corrcoef(trait, table["label"])[0, 1]) < 0.3
    for seed in range(6):
        healthy, worn = knee(0, seed=seed).astype(float), knee(4, seed=seed).astype(float)
        assert abs(healthy[-16:].mean() - worn[-16:].mean()) < 2
        assert abs(healthy[:16].mean() - worn[:16].mean()) < 8


def test_written_knees_are_read_back_as_they_were(tmp_path):
    csv = write_knees(tmp_path / "new" / "knees", 5, size=40, num_classes=3, seed=2)
    films, table = synthesize(5, size=40, num_classes=3, seed=2)
    assert csv == tmp_path / "new" / "knees" / "knees.csv"
    pd.testing.assert_frame_equal(pd.read_csv(csv), table)
    for film, filename in zip(films, table["filename"], strict=True):
        with Image.open(csv.parent / filename) as image:
            assert image.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), film)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"severity": -0.1}, "severity"), ({"severity": 4.1}, "severity"), ({"severity": float("nan")}, "severity")]
    + [({"side": "left"}, "side.*L or R"), ({"size": 31}, "size")],
)
def test_a_knee_that_cannot_be_is_refused(arguments, named):
    with pytest.raises(UserError, match=named):
        knee(**{"severity": 0, **arguments})


@pytest.mark.parametrize(
    "arguments",
    [{"count": 0}, {"size": 31}, {"num_classes": 1}, {"seed": -1}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_a_data_set_that_cannot_be_is_refused_before_anything_is_written(arguments, tmp_path):
    with pytest.raises(UserError, match=next(iter(arguments))):
        write_knees(tmp_path / "knees", **{"count": 4, **arguments})
    assert not (tmp_path / "knees").exists()
