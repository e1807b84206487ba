"""Frozen backbones pass each film through once; nobody can tell from the numbers."""

import logging
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.data.features import FeatureDataset
from legradnet.data.sampler import EpochSampler
from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble
from legradnet.training.frozen import digest_of_network
from legradnet.training.run import train
from small_runs import compose, made_once

FROZEN = ["backbone.vit.frozen=true", "backbone.swin.frozen=true", "trainer.max_epochs=3"]
OF_FEATURES = ["augment=none", "test=false", "calibration=none", "data.cache_key=hash", "trainer.max_epochs=1"]


@pytest.fixture
def folder(knees, tmp_path):
    """A data folder of this test's own."""
    shutil.copytree(knees, tmp_path / "knees", ignore=shutil.ignore_patterns(".*"))
    return tmp_path / "knees"


@pytest.fixture
def pooled(monkeypatch):
    """How many films have gone through a trunk so far, one entry a call."""
    counts, pool = [], Backbone.pool

    def counted(self, films):
        counts.append(len(films))
        return pool(self, films)

    monkeypatch.setattr(Backbone, "pool", counted)
    return counts


def run(folder, out, *overrides):
    data = ["data=csv", f"data.dataset_path={folder}", f"data.csv_path={folder}/knees.csv"]
    train(compose(*FROZEN, *data, *overrides), out)
    return pd.read_csv(out / "metrics.csv")


@pytest.mark.parametrize("gate", ["mha", pytest.param("concat", marks=pytest.mark.slow)])
def test_features_computed_once_give_the_numbers_and_the_network_of_an_uncached_run(folder, tmp_path, gate):
    settings = ["augment=none", f"gating={gate}", "data.mirror_left=true", "optimizer.learning_rate=0.01"]
    once = run(folder, tmp_path / "once", *settings)
    anew = run(folder, tmp_path / "anew", *settings, "data.feature_views=0")
    assert list(once) == list(anew)
    assert once.to_numpy() == pytest.approx(anew.to_numpy(), abs=1e-5)
    one, other = (read_checkpoint(tmp_path / name / "checkpoints/best.ckpt") for name in ("once", "anew"))
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, tensor in one["state_dict"].items():
        assert torch.allclose(tensor, other["state_dict"][name], atol=1e-5), name
    film = next(iter(sorted(folder.glob("*.png"))))
    grades = [
        Grader.from_checkpoint(tmp_path / name / "checkpoints/best.ckpt").grade(film) for name in ("once", "anew")
    ]
    assert grades[0].probabilities == pytest.approx(grades[1].probabilities, abs=1e-4)


def test_each_film_goes_through_the_trunks_once_and_never_again(folder, tmp_path, pooled, caplog):
    caplog.set_level(logging.INFO)
    run(folder, tmp_path / "first", "augment=none", "test=false", "calibration=none")
    assert sum(pooled) == 2 * 40
    assert "Features of frozen backbones: 40 films in 1 view of training" in caplog.text
    run(folder, tmp_path / "second", "augment=none", "gating=mlp", "seed=0")
    patients = pd.read_csv(tmp_path / "second/split.csv").query("split == 'val'")["patient"].nunique()
    assert sum(pooled) == 2 * (40 + patients), "a validation film a patient is graded, for others to be held beside"
    assert "all known" in caplog.text


@pytest.fixture(scope="session")
def known(knees, tmp_path_factory):
    """A data folder whose films' features are known; only to be copied."""

    def make(folder):
        shutil.copytree(knees, folder, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
        run(folder, tmp_path_factory.mktemp("first"), *OF_FEATURES)

    return made_once(tmp_path_factory, "known_features", make)


@pytest.mark.parametrize(
    "change", ["nothing", "film", "data.image_size=40", "backbone.vit.image_size=36", "data.mirror_left=true", "damage"]
)
def test_what_features_follow_from_makes_others(known, tmp_path, pooled, change):
    folder = tmp_path / "knees"
    shutil.copytree(known, folder)
    cached = sorted((folder / ".legradnet-cache").glob("*.features"))
    assert cached and all(path.stat().st_mode & 0o077 == 0 for path in cached)
    overrides = [change] if "=" in change else []
    if change == "film":
        path = folder / pd.read_csv(folder / "knees.csv")["filename"][0]
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0, 0] ^= 1
        Image.fromarray(pixels).save(path)
    elif change == "damage":
        for path in cached:
            path.write_bytes(path.read_bytes()[:-4] + b"\1\2\3\4")
    run(folder, tmp_path / "second", *OF_FEATURES, *overrides)
    assert (sum(pooled) > 0) == (change != "nothing")


def test_augmented_films_are_pooled_once_a_view_and_an_epoch_sees_its_view(folder, tmp_path, pooled):
    settings = ["test=false", "calibration=none"]
    run(folder, tmp_path / "anew", *settings)  # films are augmented anew each epoch unless views are asked for
    passes = sum(pooled) / 2
    pooled.clear()
    run(folder, tmp_path / "views", *settings, "data.feature_views=2")
    split = pd.read_csv(tmp_path / "views/split.csv")["split"].value_counts()
    assert passes >= 3 * split["val"] + 3 * (split["train"] // 8 * 8)
    assert sum(pooled) == 2 * (2 * split["train"] + split["val"] + split.get("test", 0))


def test_features_of_another_input_size_are_other_features_though_the_weights_are_the_same():
    def network(size):
        torch.manual_seed(0)
        backbone = {"convnext": {"timm_name": "tiny_convnext", "image_size": size, "frozen": True}}
        return KneeEnsemble(backbone, {"name": "mean"}, 5, feature_dim=8)

    assert digest_of_network(network(64), "32-true") == digest_of_network(network(64), "32-true")
    assert digest_of_network(network(64), "32-true") != digest_of_network(network(96), "32-true")
    assert digest_of_network(network(64), "32-true") != digest_of_network(network(64), "bf16-mixed")


def test_an_index_is_a_film_and_a_view():
    features = torch.arange(2 * 5 * 3).view(2, 5, 3).float()
    dataset = FeatureDataset(features, np.arange(5), np.arange(10, 15))
    sampler = EpochSampler(np.arange(5), shuffle=True, views=2)
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batch = dataset.__getitems__(list(sampler))
        assert sorted(batch.labels.tolist()) == [0, 1, 2, 3, 4]
        assert torch.equal(batch.rows, batch.labels + 10)
        assert torch.equal(batch.films, features[epoch % 2][batch.labels])
    assert len(dataset) == 10
    assert torch.equal(dataset[7].films, features[1, 2])


def test_views_are_refused_a_meaning_where_a_backbone_learns(folder, tmp_path, pooled, caplog):
    run(folder, tmp_path / "out", "backbone.vit.frozen=false", "data.feature_views=2", "trainer.max_epochs=1")
    assert "data.feature_views=2 has no effect: not every backbone is frozen" in caplog.text
    assert not list((folder / ".legradnet-cache").glob("*.features"))


def test_generated_knees_have_features_in_memory(tmp_path, pooled):
    train(compose(*FROZEN, "augment=none", "test=false", "calibration=none"), tmp_path)
    assert sum(pooled) == 2 * 60
