"""A number that a run reports is its checkpoint's, to the last digit."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.sampler import EpochSampler
from legradnet.errors import UserError
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.network.ensemble import KneeEnsemble
from legradnet.run_folder import RunFolder
from legradnet.statistics.metrics import grading_metrics
from legradnet.training.metrics import CollectedLogits
from legradnet.training.module import GradingModule
from legradnet.training.run import train
from small_runs import compose

FROZEN = ["backbone.vit.frozen=true", "backbone.swin.frozen=true"]


def numbers_of(network, batches):
    """The metrics that a checkpoint gives, film by film as it grades them."""
    logits = torch.from_numpy(np.concatenate([network(batch.films.numpy()).logits for batch in batches]))
    labels = torch.cat([batch.labels for batch in batches])
    probabilities = network.loss.probabilities(logits)
    grades = network.loss.grades(probabilities)
    metrics = grading_metrics(probabilities.numpy(), grades.numpy(), labels.numpy())
    return {"loss": float(network.loss(logits, labels)), **metrics}


@pytest.mark.parametrize(
    "settings",
    [
        ["loss=corn"],
        ["callbacks.ema_decay=0.9"],
        [*FROZEN, "augment=none", "callbacks.ema_decay=0.9"],
        ["backbone.swin.precision=bf16", *FROZEN, "augment=none"],
    ],
    ids=["plain", "averaged", "frozen and averaged", "a frozen trunk in bf16"],
)
def test_what_a_run_reports_is_what_its_checkpoint_gives(precision, settings, tmp_path):
    overrides = ["trainer.max_epochs=2", "optimizer.learning_rate=0.01", "data.count=40", *settings]
    train(compose(*overrides), tmp_path)
    best = tmp_path / "checkpoints/best.ckpt"
    network = CheckpointNetwork(best, device="cpu", precision=precision)
    epochs = pd.read_csv(tmp_path / "metrics.csv", dtype=str).astype(float).set_index("epoch")
    reported = json.loads((tmp_path / "test_metrics.json").read_text())
    if precision == "bf16" or "backbone.swin.precision=bf16" not in settings:  # f32 means f32 for a grader
        reported |= epochs.loc[read_checkpoint(best)["epoch"]]
    data = KneeDataModule(compose(*overrides)["data"])
    data.setup()
    for split in ("val", "test"):
        for name, value in numbers_of(network, list(data.loader(split))).items():
            assert reported.get(f"{split}/{name}", value) == value, (split, name)


def test_what_training_does_not_move_is_in_the_average_as_it_was(tmp_path):
    class Kept(GradingModule):
        """Remembers what validation was done with."""

        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            kept.append({name: tensor.clone() for name, tensor in [*self.named_parameters(), *self.named_buffers()]})

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("legradnet.training.run.GradingModule", Kept)
        train(compose("callbacks.ema_decay=0.9", "backbone.vit.frozen=true", "test=false"), tmp_path)
    still = [name for name in kept[0] if ".vit.trunk." in name or name.endswith(("position_index", ".mean", ".std"))]
    assert {name.rpartition(".")[2] for name in still} >= {"relative_position_index", "mean", "std", "weight"}
    assert [name for name in still if not torch.equal(kept[0][name], kept[-1][name])] == []
    weights = read_checkpoint(tmp_path / "checkpoints/last.ckpt")["state_dict"]
    assert all(torch.equal(weights[name], tensor) for name, tensor in kept[-1].items() if name in weights)


@pytest.mark.parametrize(("kappas", "best"), [([math.nan, -0.5, math.nan], 1), ([math.nan] * 3, 0)])
def test_an_epoch_whose_kappa_is_not_defined_is_the_worst_but_a_run_of_such_keeps_its_first(
    kappas, best, tmp_path, monkeypatch
):
    left = iter(kappas)
    monkeypatch.setattr("legradnet.training.module.measured", lambda *_: {"loss": 1.0, "qwk": next(left)})
    overrides = ["trainer.max_epochs=3", "test=false", "calibration=none", "+trainer.num_sanity_val_steps=0"]
    overrides += ["+trainer.limit_train_batches=1"]
    qwk = train(compose(*overrides), tmp_path)
    assert read_checkpoint(tmp_path / "checkpoints/best.ckpt")["epoch"] == best
    assert RunFolder(tmp_path).best_epoch()["epoch"] == best
    assert qwk == pytest.approx(kappas[best], nan_ok=True)
    assert pd.read_csv(tmp_path / "metrics.csv")["val/qwk"].tolist() == pytest.approx(kappas, nan_ok=True)


def test_a_run_whose_answers_are_not_finite_ends_with_words_and_no_numbers(tmp_path, monkeypatch, caplog):
    forward = KneeEnsemble.forward

    def spoilt(self, films):
        output = forward(self, films)
        return output if self.training else output._replace(logits=output.logits * math.nan)

    monkeypatch.setattr(KneeEnsemble, "forward", spoilt)
    with pytest.raises(UserError, match=r"best\.ckpt answers to 12 of 12 val films is not finite"):
        train(compose("trainer.max_epochs=1", "data.val_fraction=0.2"), tmp_path)
    assert pd.read_csv(tmp_path / "metrics.csv")[["val/loss", "val/qwk", "val/accuracy"]].isna().all(axis=None)
    assert "12 of 12 val films is not finite, and the epoch counts as the worst" in caplog.text
    assert not (tmp_path / "test_metrics.json").exists()


@settings(max_examples=40, deadline=None)
@given(films=st.integers(1, 40), world=st.integers(1, 9), batch=st.integers(1, 8))
def test_each_film_counts_once_however_many_processes_validate(films, world, batch):
    collected, labels = CollectedLogits(), torch.arange(films) % 5
    for rank in range(world):  # one after the other, as the metric gathers them
        rows = torch.tensor(list(EpochSampler(labels.numpy(), shuffle=False, rank=rank, world=world)))
        for part in rows.split(batch):
            collected.update(part[:, None].float(), labels[part], part)
    logits, graded = collected.compute()
    assert logits.flatten().tolist() == list(range(films))
    assert graded.tolist() == labels.tolist()


def test_films_that_padding_repeats_count_once_and_in_row_order():
    collected = CollectedLogits()
    collected.update(torch.tensor([[2.0], [0.0]]), torch.tensor([2, 0]), torch.tensor([7, 3]))
    collected.update(torch.tensor([[1.0], [0.0]]), torch.tensor([1, 0]), torch.tensor([5, 3]))
    logits, labels = collected.compute()
    assert labels.tolist() == [0, 1, 2]
    assert logits.flatten().tolist() == [0.0, 1.0, 2.0]
