import json
import os

import pandas as pd
import pytest
import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.errors import UserError
from legradnet.training.module import GradingModule
from legradnet.training.run import train
from small_runs import compose

METRICS = ["loss", "qwk", "accuracy", "balanced_accuracy", "mae", "macro_f1", "rps", "ece", "auroc_kl2"]


def test_a_run_leaves_one_row_an_epoch_with_all_metrics_side_by_side(finished):
    table = pd.read_csv(finished[0] / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2, 3]
    assert set(table) == {"epoch", "step", "learning_rate", "train/loss", *(f"val/{name}" for name in METRICS)}
    assert table.notna().all(axis=None)


def test_a_run_returns_the_qwk_of_its_best_epoch_and_keeps_that_epoch(finished):
    folder, qwk = finished
    table = pd.read_csv(folder / "metrics.csv")
    assert qwk == table["val/qwk"].max()
    assert read_checkpoint(folder / "checkpoints/best.ckpt")["epoch"] == table["val/qwk"].idxmax()
    assert read_checkpoint(folder / "checkpoints/last.ckpt")["epoch"] == 3


def test_test_metrics_are_those_of_the_best_checkpoint(finished):
    folder, _ = finished
    metrics = json.loads((folder / "test_metrics.json").read_text())
    assert set(metrics) == {f"test/{name}" for name in METRICS}
    checkpoint = read_checkpoint(folder / "checkpoints/best.ckpt")
    module = GradingModule(**checkpoint["hyper_parameters"]).eval()
    module.load_state_dict(checkpoint["state_dict"])

    data = KneeDataModule(compose("trainer.max_epochs=4")["data"])
    data.setup()
    with torch.no_grad():
        right = [
            module.loss.grades(module.loss.probabilities(module(batch.films).logits)) == batch.labels
            for batch in data.loader("test")
        ]
    assert metrics["test/accuracy"] == pytest.approx(torch.cat(right).float().mean().item(), abs=1e-6)


def test_the_split_that_was_used_is_written(finished):
    split = pd.read_csv(finished[0] / "split.csv", dtype={"patient": str})
    assert list(split) == ["filename", "label", "patient", "side", "split"]
    assert len(split) == 60
    assert split.groupby("patient")["split"].nunique().max() == 1


def test_versions_of_the_packages_are_written(finished):
    assert json.loads((finished[0] / "versions.json").read_text())["torch"] == torch.__version__.split("+")[0]


def test_checkpoints_are_plain_data_and_only_last_has_optimiser_state(finished):
    folder = finished[0] / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["best.ckpt", "last.ckpt"]
    best = torch.load(folder / "best.ckpt", weights_only=True)
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert "optimizer_states" in last
    assert set(best) <= {
        "state_dict",
        "hyper_parameters",
        "epoch",
        "global_step",
        "pytorch-lightning_version",
        "legradnet",
    }
    assert all(torch.is_tensor(value) for value in best["state_dict"].values())


def test_a_checkpoint_loads_through_lightning_too(finished):
    path = finished[0] / "checkpoints/best.ckpt"
    module = GradingModule.load_from_checkpoint(path, weights_only=True)
    assert module.ensemble.keys == ("swin", "vit")


def test_same_seed_gives_the_same_numbers_and_another_seed_gives_others(finished, tmp_path):
    train(compose("trainer.max_epochs=4"), tmp_path / "again")
    assert (tmp_path / "again/metrics.csv").read_bytes() == (finished[0] / "metrics.csv").read_bytes()
    train(compose("trainer.max_epochs=4", "seed=1", "test=false", "calibration=none"), tmp_path / "other")
    assert (tmp_path / "other/metrics.csv").read_bytes() != (finished[0] / "metrics.csv").read_bytes()


def test_a_pickle_bomb_in_place_of_a_checkpoint_is_refused(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "exploded"),))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.ckpt")
    for override in (f"ckpt_path={tmp_path}/bomb.ckpt", f"init_from={tmp_path}/bomb.ckpt"):
        with pytest.raises(UserError, match="refused"):
            train(compose(override), tmp_path / "run")
    with pytest.raises(UserError, match="refused"):
        train(compose(f"backbone.vit.weights={tmp_path}/bomb.ckpt"), tmp_path / "run")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "overrides",
    [
        ["gating=mlp", "loss=soft_labels", "loss.class_weights=balanced"],
        ["gating=concat", "loss=corn", "model.num_classes=3"],
        ["gating=mean", "model.num_classes=2", "augment=none", "scheduler=constant"],
        ["gating=mha", "augment=standard", "data.mirror_left=true", "model.gradient_checkpointing=true"],
        ["backbone.vit.frozen=true", "trainer.precision=bf16-mixed", "loss.label_smoothing=0.1"],
        ["backbone.vit.precision=f32", "trainer.precision=bf16-mixed", "backbone.swin.precision=bf16"],
        ["data.num_folds=3", "data.fold=1", "data.test_fraction=0", "callbacks.early_stopping_patience=null"],
    ],
)
def test_choices_go_together(overrides, tmp_path):
    qwk = train(compose("trainer.max_epochs=1", "data.count=40", *overrides), tmp_path)
    assert -1 <= qwk <= 1
    columns = pd.read_csv(tmp_path / "metrics.csv").columns
    assert ("val/auroc_kl2" in columns) == (compose(*overrides)["model"]["num_classes"] == 5)
    assert (tmp_path / "test_metrics.json").is_file() == ("data.test_fraction=0" not in overrides)


def test_test_false_and_fast_dev_run_skip_the_test(tmp_path):
    train(compose("trainer.max_epochs=1", "test=false", "+trainer.limit_train_batches=1"), tmp_path / "untested")
    assert not (tmp_path / "untested/test_metrics.json").exists()
    train(compose("trainer.fast_dev_run=true"), tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


def test_an_ensemble_starts_from_a_checkpoint_on_new_films(finished, knees, tmp_path):
    start = finished[0] / "checkpoints/best.ckpt"
    new_site = ["data=csv", f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv", "trainer.max_epochs=1"]
    still = ["optimizer.learning_rate=1e-9", "scheduler.warmup_epochs=0"]
    train(compose(f"init_from={start}", *new_site, *still), tmp_path)
    before, after = (
        read_checkpoint(path)["state_dict"]["ensemble.head.2.weight"]
        for path in (start, tmp_path / "checkpoints/best.ckpt")
    )
    torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
    with pytest.raises(UserError, match=r"holds 'backbone=\[swin,vit\]' gating=mha"):
        train(compose(f"init_from={start}", "gating=mlp", *new_site), tmp_path / "other")


def test_weights_of_a_checkpoint_name_no_file_of_this_machine(finished, tmp_path):
    best = finished[0] / "checkpoints/best.ckpt"
    config = compose(f"backbone.vit.weights={best}", "trainer.max_epochs=1", "test=false", "calibration=none")
    train(config, tmp_path)
    assert str(best) not in json.dumps(read_checkpoint(tmp_path / "checkpoints/best.ckpt")["hyper_parameters"])


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=csv", "data.dataset_path=/nowhere", "data.csv_path=/nowhere.csv"], "/nowhere is not a folder"),
        (["backbone.vit.timm_name=vit_bas"], "no model named 'vit_bas'.*Similar"),
        (["backbone.vit.timm_name=vit_bas", "model.pretrained=false"], "no model named 'vit_bas'.*Similar"),
        (["backbone.vit.weights=/nowhere.pth"], "backbone.vit.weights: no file at /nowhere.pth"),
        (["gating.num_heads=3"], "gating.num_heads=3 must divide model.feature_dim=16"),
        (["augment.rotation=-4"], "augment.rotation=-4 must be a number from 0 to 180"),
        (["trainer.accelerator=abacus"], "trainer.accelerator=abacus must be one of auto, gpu"),
        (["trainer.precision=7-bit"], "trainer.precision=7-bit must be one of auto"),
        (["data.count=10", "data.val_fraction=0.01"], "the val split is empty"),
        (["data.fold=1"], "data.fold=1 needs data.num_folds"),
    ],
)
def test_a_mistake_is_told_before_training_begins(overrides, words, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: pytest.fail("training began"))
    with pytest.raises(UserError, match=words):
        train(compose(*overrides), tmp_path / "run")
