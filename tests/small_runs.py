"""Small runs: composing a config, calling the console script, and sharing among workers what one of them made."""

import os
import re
import shutil
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import hydra
from filelock import FileLock
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from legradnet.cli import config_folder

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
    """The training config that these overrides give, as plain values: two small backbones on few small knees.

    Composing takes Hydra a tenth of a second: what chooses files, adds or takes away is composed once, and values are
    then set in a copy, as Hydra would.
    """
    choices = tuple(word for word in overrides if not _SETS_A_VALUE(word) or word.partition("=")[0] in _groups())
    config = deepcopy(_composed(choices))
    for value in OverridesParser.create().parse_overrides([word for word in overrides if word not in choices]):
        OmegaConf.update(config, value.key_or_group, value.value())
    return OmegaConf.to_container(config, resolve=True)


_SETS_A_VALUE = re.compile(r"[a-z_][\w.]*=").match


@cache
def _groups():
    return {str(path.relative_to(config_folder())) for path in config_folder().rglob("*") if path.is_dir()}


@cache
def _composed(choices):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("train", [*SMALL, *choices])


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


def made_once(tmp_path_factory, name, make):
    """The folder `name`, filled by `make(folder)` for all workers of pytest together, by the first that asks for it."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "PYTEST_XDIST_WORKER" in os.environ else top
    folder, whole = top / name, top / f"{name}.whole"
    with FileLock(top / f"{name}.lock"):
        if not whole.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed
            folder.mkdir()
            make(folder)
            whole.touch()
    return folder
