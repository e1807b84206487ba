"""Exports that no test may change."""

import pytest

from exports import exported
from small_runs import made_once


@pytest.fixture(scope="session")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="session")
def folder(best, tmp_path_factory):
    """An export of the small trained network, which no test may change."""
    return made_once(tmp_path_factory, "openvino", lambda folder: exported(best, folder))


@pytest.fixture(scope="session")
def onnx_folder(best, tmp_path_factory):
    return made_once(tmp_path_factory, "onnx", lambda folder: exported(best, folder, format="onnx"))


@pytest.fixture(scope="session")
def int8(best, tmp_path_factory):
    return made_once(
        tmp_path_factory, "int8", lambda folder: exported(best, folder, precision="int8", max_qwk_drop=None)
    )


@pytest.fixture(scope="session")
def onnx_int8(best, tmp_path_factory):
    quantised = {"precision": "int8", "format": "onnx", "max_qwk_drop": None}
    return made_once(tmp_path_factory, "onnx_int8", lambda folder: exported(best, folder, **quantised))
