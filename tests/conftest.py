"""Small knees, small networks, and the two ways in: composing a config here, or calling the console script."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from legradnet.config import config_folder
from legradnet.data.synthetic import write_knees

torch.set_num_threads(1)  # networks this small gain nothing from two, and lose a lot when the machine is busy

SMALL = [
    "backbone=tiny",
    "~backbone.densenet",
    "~backbone.xception",
    "~backbone.convnext",
    "backbone.vit.image_size=48",
    "backbone.swin.image_size=48",
    "model.feature_dim=16",
    "data.image_size=48",
    "data.count=60",
    "data.batch_size=8",
    "trainer=cpu",
    "trainer.max_epochs=2",
]


def compose(*overrides):
    """The training config that these overrides give, as plain values: two small backbones on few small knees."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose("train", [*SMALL, *overrides]), resolve=True)


def command(name, *arguments, timeout=120, cwd=None, **environment):
    """Run a console script of this environment as a user would."""
    script = Path(sys.executable).with_name(name)
    return subprocess.run(
        [script, *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


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
