"""Exports that no test may change."""

import pytest
from exports import exported


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def folder(best, tmp_path_factory):
    """An export of the small trained network, which no test may change."""
    return exported(best, tmp_path_factory.mktemp("export") / "openvino")


@pytest.fixture(scope="module")
def onnx_folder(best, tmp_path_factory):
    return exported(best, tmp_path_factory.mktemp("export") / "onnx", format="onnx")
