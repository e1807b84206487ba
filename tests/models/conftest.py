"""A model folder that no test may change."""

import shutil

import pytest

from legradnet.export.run import export
from small_runs import made_once


@pytest.fixture(scope="session")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="session")
def model(best, tmp_path_factory):
    """The small trained network as a model folder."""
    return made_once(
        tmp_path_factory,
        "model",
        lambda folder: export({"checkpoint": str(best), "output": str(folder), "format": "model"}),
    )


@pytest.fixture
def copy(model, tmp_path):
    shutil.copytree(model, tmp_path / "copy")
    return tmp_path / "copy"
