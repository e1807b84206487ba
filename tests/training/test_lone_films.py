"""One film alone: in a split, in a batch."""

import json

import pandas as pd
import pytest
import torch

from legradnet.data.datamodule import KneeDataModule
from legradnet.network.losses import CornSettings
from legradnet.training.metrics import CollectedLogits, measured
from legradnet.training.run import train
from small_runs import compose


@pytest.fixture
def split_of(knees, tmp_path):
    """Data settings of films of the grades 0 and 1: so many for training, validation and test."""

    def write(*counts):
        films = pd.read_csv(knees / "knees.csv", dtype=str)
        films = films[films["label"].isin(["0", "1"])].head(sum(counts)).assign(patient="")
        films["split"] = [split for split, n in zip(("train", "val", "test"), counts, strict=True) for _ in range(n)]
        films.to_csv(tmp_path / "knees.csv", index=False)
        return [
            "data=csv",
            f"data.dataset_path={knees}",
            f"data.csv_path={tmp_path}/knees.csv",
            "data.cache=off",
            "data.num_workers=0",
        ]

    return write


@pytest.mark.parametrize("counts", [(3, 1, 1), (1, 2, 1), (9, 1, 0)])
def test_a_run_with_one_film_in_a_split_is_whole(counts, split_of, tmp_path):
    config = compose(*split_of(*counts), "trainer.max_epochs=1", "model.num_classes=2", "loss=corn")
    assert -1 <= train(config, tmp_path / "run") <= 1
    rows = pd.read_csv(tmp_path / "run/metrics.csv")
    assert rows["val/accuracy"].between(0, 1).all()
    tested = tmp_path / "run/test_metrics.json"
    assert tested.is_file() == (counts[2] > 0)
    assert not counts[2] or json.loads(tested.read_text())["test/accuracy"] in (0, 1)


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_one_training_film_of_one_value_a_channel_passes_through_batch_norms(checkpointing, split_of, tmp_path):
    backbone = ["~backbone.vit", "~backbone.swin", "+backbone.densenet.timm_name=tiny_densenet"]
    small = ["+backbone.densenet.image_size=32", "data.image_size=32", "trainer.max_epochs=1", "test=false"]
    config = compose(*split_of(1, 2, 0), *backbone, *small, f"model.gradient_checkpointing={checkpointing}")
    train(config, tmp_path / "run")
    assert (tmp_path / "run/checkpoints/best.ckpt").is_file()


def test_the_films_of_an_epoch_keep_their_dimensions_whatever_their_number():
    for count in range(1, 4):
        collected = CollectedLogits()
        collected.update(torch.full((count, 1), 3.0), torch.ones(count, dtype=torch.int64), torch.arange(count))
        logits, labels = collected.compute()
        assert (logits.shape, labels.shape) == ((count, 1), (count,))
        assert measured(CornSettings().build(2), logits, labels)["accuracy"] == 1


def test_batches_of_every_size_have_films_labels_and_rows(split_of):
    config = compose(*split_of(5, 1, 1))
    for size in (1, 2, 4, 5, 8):
        data = KneeDataModule(config["data"] | {"batch_size": size, "num_workers": 0}, num_classes=2)
        data.setup()
        for split in ("train", "val", "test"):
            for batch in data.loader(split, shuffle=split == "train"):
                assert batch.films.shape[1:] == (1, 48, 48)
                assert len(batch.films) == len(batch.labels) == len(batch.rows) > 0
