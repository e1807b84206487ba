"""A grader of the small trained network, and films for it."""

import pytest

from legradnet import Grader


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def grader(best):
    return Grader.from_checkpoint(best, precision="f32")


@pytest.fixture(scope="module")
def films(knees):
    return sorted(knees.glob("*.png"))
