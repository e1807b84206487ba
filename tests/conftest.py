"""Small knees and a small trained network for every test that asks for one."""

import pytest
import torch

from legradnet.data.synthetic import write_knees
from small_runs import compose

torch.set_num_threads(1)  # networks this small gain nothing from two, and lose a lot when the machine is busy


@pytest.fixture(scope="session")
def knees(tmp_path_factory):
    """A folder with 40 generated films of 48 px and their `knees.csv`."""
    folder = tmp_path_factory.mktemp("knees")
    write_knees(folder, 40, size=48, seed=3)
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The run folder of a small network, calibrated on 40 validation knees; left knees are mirrored."""
    from legradnet.training.run import train

    folder = tmp_path_factory.mktemp("trained")
    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    train(compose(*settings, "augment.mirror=0", "loss=corn", "optimizer.backbone_scale=1"), folder)
    return folder


@pytest.fixture(autouse=True)
def _every_record_is_caught(caplog):
    """Quantising a graph leaves the handlers that it finds at ERROR, and pytest uses the same one for all tests."""
    caplog.handler.setLevel(0)
