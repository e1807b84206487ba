"""What is no film, checkpoint, target, side or device is told with what would be one."""

import pytest
import torch

from legradnet import Grader
from legradnet.data.film import ImageError
from legradnet.errors import UserError


@pytest.mark.parametrize(
    ("films", "got"), [(None, "NoneType"), (3, "int"), ([None], "NoneType"), (b"film", "bytes"), ({}, "dict")]
)
def test_what_is_no_film_is_told_with_what_is_one(grader, films, got):
    with pytest.raises(UserError, match=rf"A film is a path, a PIL image or an array .*; this is {got}\."):
        grader.grade(films)
    if not isinstance(films, list):
        with pytest.raises(UserError, match=rf"A film is a path, a PIL image or an array .*; this is {got}\."):
            grader.explain(films)


@pytest.mark.parametrize("path", [None, 3, [None], {}, b"best.ckpt"])
def test_what_is_no_checkpoint_is_told_with_what_is_one(path):
    with pytest.raises(UserError, match="A checkpoint is the path of best.ckpt or of an export's folder"):
        Grader.load(path)
    with pytest.raises(UserError, match="takes the path of a folder that legradnet-export wrote; this is"):
        Grader.from_export(path if path != [None] else None)


def test_sides_and_counts_that_are_none_are_told(grader, films, trained):
    with pytest.raises(UserError, match="side= is L or R"):
        grader.grade(films[0], side="left")
    with pytest.raises(UserError, match="side='left' must be L, R or an empty string"):
        grader.explain(films[0], side="left")
    for count in (0, -1, 1.5, True):
        with pytest.raises(UserError, match=f"batch_size={count} must be a whole number of at least 1, or None"):
            Grader.load(trained / "checkpoints/best.ckpt", batch_size=count)
        with pytest.raises(UserError, match=f"threads={count} must be a whole number of at least 1, or None"):
            Grader.load(trained / "checkpoints/best.ckpt", threads=count)


@pytest.mark.parametrize("target", [True, None, 2.5, 5, "most", [1, 2], b"\1\1"])
def test_a_target_that_is_none_is_told_with_those_there_are(grader, films, target):
    with pytest.raises(UserError, match="choose predicted, expected, or a grade from 0 to 4"):
        grader.explain(films[0], target=target)


def test_what_is_no_request_is_told_with_what_is_one(grader, films):
    assert grader.grade_prepared([]) == []
    for ask in (
        lambda: grader.prepare(None),
        lambda: grader.stream(None),
        lambda: grader.stream("x.png"),
        lambda: grader.stream(["x.png"]),
        lambda: list(grader.stream(iter(["x.png"]))),
    ):
        with pytest.raises(UserError, match=r"Request objects are taken.*; this is"):
            ask()
    for count in (-1, 1.5, True):
        with pytest.raises(UserError, match=f"workers={count} must be a whole number of at least 0, or None"):
            grader.stream([], workers=count)
    assert list(grader.stream([], workers=0)) == []


@pytest.mark.parametrize("side", [5, 0, [5], [[]], ["L", "R"]])
def test_a_side_that_is_none_is_told(grader, films, side):
    with pytest.raises(UserError, match="side= is L or R"):
        grader.grade(films[0], side=side)


def test_a_device_of_torch_is_a_device(best):
    assert Grader.load(best, device=torch.device("cpu")).networks[0].device == torch.device("cpu")


def test_a_name_that_no_file_can_have_is_told(grader):
    with pytest.raises(ImageError, match="no such file can exist"):
        grader.grade("a\0b.png")
