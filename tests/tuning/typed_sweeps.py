"""Words of searches as they are typed, and what a search leaves."""

import hydra
import pandas as pd
import yaml
from hydra.core.global_hydra import GlobalHydra

from legradnet.cli import config_folder

CUSTOM = ["tuning=custom", "trainer.max_epochs=2", "hydra.sweeper.seed=1"]


RATES = "optimizer.learning_rate=tag(log,interval(1e-5,1e-2))"


GRID = "hydra.sweeper.sampler.name=grid"


ONE = [
    "backbone=vit",
    "backbone.vit.timm_name=tiny_vit",
    "backbone.vit.image_size=48",
    "model.feature_dim=16",
    "model.pretrained=false",
    "data.image_size=48",
    "data.count=60",
    "data.batch_size=8",
    "trainer=cpu",
    "trainer.max_epochs=2",
]


def table(tmp_path):
    return pd.read_csv(tmp_path / "sweep/trials.csv")


def config_of(tmp_path, number):
    return yaml.safe_load((tmp_path / f"sweep/trial_{number}/.hydra/config.yaml").read_text())


def composed(*overrides):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose("train", list(overrides), return_hydra_config=True)
