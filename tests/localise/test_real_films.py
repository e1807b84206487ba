"""Whole films and pictures of no knee that are real, of other hospitals than the crops that were learned from.

`joints_read.csv` is what a reader, no clinician but a vision model that was shown neither squares nor marks, saw
in them, and in crops as networks learn them (without a name, in shares of their side): both ends of the tibial plateau
and the height of the joint, pixels.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from legradnet.data.images import read_image
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading
from legradnet.localise.knees import SURE, find_knees

SHARED = Path(__file__).parents[3] / "shared"
WHOLE, NONE = SHARED / "whole_films", SHARED / "not_knees"
READ = Path(__file__).with_name("joints_read.csv")
MIDDLE, SIDE = 0.08, 0.15  # of a side, that a square may be off

has_films = pytest.mark.skipif(not WHOLE.is_dir(), reason="no real films in ../shared/whole_films")


@pytest.fixture(scope="module")
def found():
    """The knees of each film, from left to right."""
    return {path.name: find_knees(read_image(path)) for path in sorted(WHOLE.glob("*.jpg"))}


def offs(found, wanted):
    """How far squares are off those that are wanted, shares of a side: to the right, down, larger [joints, 3]."""
    rows = []
    for (name, side), joints in wanted.groupby(["filename", "image_side"]):
        ((x, y, size),) = joints[["x", "y", "side"]].to_numpy()
        knee = found[name][0 if side == "left" else -1]
        rows.append(((knee.x - x) / size, (knee.y - y) / size, knee.side / size - 1))
    return np.array(rows)


def are_within(errors):
    return (abs(errors[:, :2]).max(axis=1) <= MIDDLE) & (abs(errors[:, 2]) <= SIDE)


@has_films
def test_each_joint_of_whole_films_is_found_and_nothing_else(found):
    assert len(found) == 12
    assert all(len(knees) == (1 if name.startswith("single_") else 2) for name, knees in found.items())
    unsure = [(name, knee) for name, knees in found.items() for knee in knees if knee.score < SURE]
    assert [name for name, _ in unsure] == ["c4_0.jpg"]  # dark and turned: boxed, and not graded


@has_films
def test_squares_of_whole_films_are_cut_as_the_crops_that_were_learned_from(found):
    read = pd.read_csv(READ)
    read["side"], read["x"] = (
        read["plateau_right"] - read["plateau_left"],
        read[["plateau_left", "plateau_right"]].mean(1),
    )
    crops, joints = read[read["filename"].isna()], read.dropna().copy()
    plateau, right, down = crops["side"].mean(), crops["x"].mean() - 0.5, crops["joint"].mean() - 0.5
    joints["side"] /= plateau
    joints["x"], joints["y"] = joints["x"] - right * joints["side"], joints["joint"] - down * joints["side"]
    errors = offs(found, joints)
    assert len(errors) == 16 and are_within(errors).all(), errors.round(3)
    assert abs(errors[:, 2].mean()) < 0.03 and errors[:, 2].std() < 0.05  # neither larger nor smaller


@has_films
def test_squares_of_whole_films_lie_where_they_were_marked_as_far_as_marks_follow_the_knee(found):
    """All marks are 30 % of their film's width, however large the knee; and so five of 16 squares miss them."""
    marks = pd.read_csv(WHOLE / "marks.csv").rename(columns={"centre_x": "x", "centre_y": "y", "box_side": "side"})
    assert (abs(marks["side"] - 0.3 * marks["width"]) <= 1).all()
    errors = offs(found, marks)
    assert len(errors) == 16 and are_within(errors).sum() >= 11, errors.round(3)
    assert abs(errors).max() < 0.2


@pytest.mark.slow
@pytest.mark.skipif(not NONE.is_dir(), reason="no pictures of no knee in ../shared/not_knees")
def test_no_picture_of_no_knee_is_graded_but_a_healthy_knee_beside_an_implant():
    grader = Grader.load(device="cpu")
    paths = sorted(path for path in NONE.rglob("*") if path.suffix in (".jpg", ".jpeg", ".png"))
    graded = [path for path in paths if any(isinstance(knee, Grading) for knee in grader.grade_knees(path))]
    assert len(paths) == 39
    assert [path.relative_to(NONE).as_posix() for path in graded] == ["implant/1.jpg"]
