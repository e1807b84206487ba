"""Small knees, small networks, and the two ways in: composing a config here, or calling the console script."""

import os
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from legradnet.config import config_folder

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
