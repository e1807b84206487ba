"""`legradnet-pretrain`: from films without grades to a trunk that training takes."""

import os
import shutil
import signal

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file

from legradnet.cli import config_folder
from legradnet.errors import UserError
from legradnet.network.backbones import Backbone
from legradnet.network.weights import load_trunk
from legradnet.pretraining.module import PretrainingModule
from legradnet.pretraining.pairs import PairedFilms
from legradnet.pretraining.run import pretrain
from legradnet.pretraining.settings import PretrainSettings
from legradnet.pretraining.watch import linear_probe
from legradnet.settings import checked
from legradnet.training.run import train

VIT = ["backbone=tiny", *(f"~backbone.{key}" for key in ("densenet", "xception", "convnext", "swin"))]
SMALL = [*VIT, "data.image_size=48", "data.count=24", "data.batch_size=4", "trainer.accelerator=cpu"]
SMALL += ["projector.width=8", "projector.output=8", "trainer.max_epochs=3", "data.num_workers=0"]

OTHERS = ("densenet", "xception", "vit", "swin")
CONVNEXT = ["backbone=tiny", *(f"~backbone.{key}" for key in OTHERS), "backbone.convnext.image_size=48"]
CONVNEXT += ["data.image_size=48", "data.count=560", "data.val_fraction=0.25", "data.batch_size=32"]
CONVNEXT += ["trainer.max_epochs=6", "trainer.accelerator=cpu", "trainer.precision=32-true"]
CONVNEXT += ["optimizer.learning_rate=2e-3", "pairs=film", "projector.width=256", "projector.output=256"]


def composed(*overrides, name="pretrain"):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(name, list(overrides)), resolve=True)


def paired(**settings):
    data = PairedFilms({"image_size": 48, "batch_size": 4, **settings}, num_classes=5, pairs="patient")
    data.setup()
    return data


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """The folder of a finished run, by the method that has most to remember."""
    folder = tmp_path_factory.mktemp("pretrained")
    assert pretrain(composed(*SMALL, "method=byol"), folder) == folder / "checkpoints/trunk.safetensors"
    return folder


def test_it_leaves_a_trunk_that_training_starts_from(pretrained, tmp_path):
    trunk = pretrained / "checkpoints/trunk.safetensors"
    small = [*VIT, "data.image_size=48", "data.count=60", "data.batch_size=8", "model.feature_dim=8", "test=false"]
    start = [f"backbone.vit.weights={trunk}", "backbone.vit.frozen=true", "calibration=none", "trainer.max_epochs=1"]
    train(composed(*small, *start, name="train"), tmp_path / "run")
    state = torch.load(tmp_path / "run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    for name, tensor in load_file(trunk).items():
        assert torch.equal(state[f"ensemble.backbones.vit.trunk.{name}"], tensor)


def test_it_tells_each_epoch_how_many_directions_features_use_and_what_a_line_reads_in_them(pretrained):
    rows = pd.read_csv(pretrained / "metrics.csv")
    assert rows["epoch"].tolist() == [0, 1, 2]
    assert (rows["val/rank"] >= 1).all() and rows["val/qwk"].between(-1, 1).all() and rows["train/loss"].notna().all()


def test_killed_in_the_middle_of_an_epoch_and_resumed_it_ends_with_the_same_weights(pretrained, tmp_path, monkeypatch):
    step = PretrainingModule.training_step

    def interrupted(module, batch, batch_idx):
        if (module.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, batch_idx)

    own = [*SMALL, "method=byol"]
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(PretrainingModule, "training_step", interrupted)
        pretrain(composed(*own), tmp_path)
    with pytest.raises(UserError, match="already holds a run"):
        pretrain(composed(*own), tmp_path)
    with pytest.raises(UserError, match=r"optimizer.learning_rate: was 0.001, now 0.01"):
        pretrain(composed(*own, "optimizer.learning_rate=0.01", "ckpt_path=last"), tmp_path)
    pretrain(composed(*own, "ckpt_path=last"), tmp_path)
    ours, theirs = (load_file(folder / "checkpoints/trunk.safetensors") for folder in (tmp_path, pretrained))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "metrics.csv").read_bytes() == (pretrained / "metrics.csv").read_bytes()


def test_films_need_no_grade_neither_in_a_table_nor_in_folders(knees, tmp_path):
    table = pd.read_csv(knees / "knees.csv")
    table[["filename", "patient"]].to_csv(tmp_path / "films.csv", index=False)
    data = paired(source="csv", dataset_path=str(knees), csv_path=str(tmp_path / "films.csv"), cache="off")
    assert len(data.table) == len(table) and (data.table["label"] == -1).all()
    for number, name in enumerate(table["filename"][:12]):
        (tmp_path / f"films/site {number % 3}").mkdir(parents=True, exist_ok=True)
        shutil.copy(knees / name, tmp_path / f"films/site {number % 3}")
    rng = np.random.default_rng(0)
    deep = Image.fromarray(rng.integers(0, 65535, (60, 60), np.uint16))
    deep.save(tmp_path / "films/deep.png")
    data = paired(source="folder", dataset_path=str(tmp_path / "films"), cache="off", test_fraction=0.0)
    assert len(data.table) == 13 and "site 0" in data.table["filename"].iloc[-1] + data.table["filename"].iloc[1]
    pretrain(
        composed(*SMALL, "data=folder", f"data.dataset_path={tmp_path / 'films'}", "trainer.max_epochs=1"),
        tmp_path / "run",
    )
    assert pd.read_csv(tmp_path / "run/metrics.csv")["val/qwk"].isna().all()


def test_all_mistakes_in_films_are_told_before_the_first_batch(knees, tmp_path):
    table = pd.read_csv(knees / "knees.csv")[["filename", "label"]].astype(str)
    table.loc[3, "label"] = "9"
    table.loc[4, "label"] = ""
    table.loc[len(table)] = ["missing.png", ""]
    table.to_csv(tmp_path / "films.csv", index=False)
    films = ["data=csv", f"data.dataset_path={knees}", f"data.csv_path={tmp_path / 'films.csv'}", "data.cache=off"]
    with pytest.raises(UserError) as told:
        pretrain(composed(*SMALL, *films), tmp_path / "run")
    assert "row 5" in str(told.value) and "missing.png" in str(told.value) and "row 6" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_single_training_film_has_nothing_to_be_told_from(knees, tmp_path):
    table = pd.read_csv(knees / "knees.csv")[["filename"]].iloc[:3].assign(split=["train", "val", "val"])
    table.to_csv(tmp_path / "films.csv", index=False)
    films = ["data=csv", f"data.dataset_path={knees}", f"data.csv_path={tmp_path / 'films.csv'}", "data.cache=off"]
    with pytest.raises(UserError, match="it needs at least 2 training films, not 1"):
        pretrain(composed(*SMALL, *films), tmp_path / "run")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["backbone=tiny"], "one is pretrained at a time"),
        ([*VIT, "backbone.vit.frozen=true"], "a frozen trunk learns nothing"),
        ([*VIT, "augment.mixup=0.2"], "mixup has no meaning here"),
        ([*VIT, "method=mae"], "method=mae must be one of vicreg, simclr, byol, simmim"),
        ([*VIT, "data.batch_size=1"], "data.batch_size: films are told apart from others of their batch"),
        ([*VIT, "method=simmim", "simmim.square=96"], "simmim.square=96 would hide whole films, of 96 pixels"),
        ([*VIT, "ckpt_path=last"], "there is no checkpoint at"),
        ([*VIT, "backbone.vit.weights=nowhere.safetensors"], "no file at nowhere.safetensors"),
    ],
)
def test_a_mistake_in_the_settings_is_one_sentence(wrong, words, tmp_path):
    with pytest.raises(UserError, match=words):
        pretrain(composed(*wrong), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_features_that_are_the_same_for_all_films_are_told_to_have_collapsed(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("legradnet.pretraining.module.effective_rank", lambda features: 1.0)
    pretrain(composed(*SMALL, "trainer.max_epochs=1", "data.val_fraction=0.4"), tmp_path)
    assert "features have COLLAPSED" in caplog.text


def read_by_a_line(backbone, data):
    """QWK of validation films by the probe of the command."""
    features, labels = {}, {}
    for split in ("train", "val"):
        with torch.inference_mode():
            batches = [(backbone.eval().pool(batch.films / 255).numpy(), batch.labels) for batch in data.loader(split)]
        features[split] = np.concatenate([batch for batch, _ in batches]).astype(np.float64)
        labels[split] = np.concatenate([batch for _, batch in batches])
    return linear_probe(features["train"], labels["train"], features["val"], labels["val"], 5)["qwk"]


def test_a_trunk_trained_for_seconds_without_grades_beats_random_weights(tmp_path):
    config = composed(*CONVNEXT)
    trunk = pretrain(config, tmp_path)
    settings = checked(PretrainSettings, config)
    data = PairedFilms(settings.data, num_classes=5, pairs="film")
    data.setup()
    random = []
    for seed in range(3):
        torch.manual_seed(seed)
        backbone = Backbone(settings.backbone["convnext"], feature_dim=1)
        random.append(read_by_a_line(backbone, data))
    load_trunk(backbone.trunk, load_file(trunk), "the trunk")
    assert read_by_a_line(backbone, data) > max(random) + 0.05
