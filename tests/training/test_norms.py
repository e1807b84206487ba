"""Batch norms over all processes: what several with a part of a batch learn is what one with the whole of it learns."""

from copy import deepcopy

import pandas as pd
import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from legradnet.training.norms import SynchronisedNorms
from small_runs import command


def test_norms_stay_the_modules_that_they_are_and_are_put_back():
    network = nn.Sequential(nn.Conv2d(1, 3, 1), BatchNormAct2d(3), nn.Sequential(nn.BatchNorm2d(3)))
    names, norms = list(network.state_dict()), [network[1], network[2][0]]
    films = torch.randn(4, 1, 5, 5)
    expected = network.train()(films)
    sync = SynchronisedNorms()
    assert torch.equal(sync.apply(network)(films), expected), "alone it is as it was"
    assert list(network.state_dict()) == names and [network[1], network[2][0]] == norms
    sync.revert(network)
    assert [type(norm) for norm in norms] == [BatchNormAct2d, nn.BatchNorm2d]


@pytest.mark.parametrize("norm", [BatchNormAct2d(3), nn.BatchNorm2d(3, momentum=None), nn.BatchNorm1d(3, affine=False)])
def test_half_of_a_batch_is_normalised_as_in_the_whole(norm, monkeypatch):
    """The other process's half is there, in place of the process."""
    films = torch.randn(8, 3, 5, 5)[(..., 0, 0) if isinstance(norm, nn.BatchNorm1d) else ...] * 3 + 40
    whole = deepcopy(norm).train()
    expected = whole(films)[:4]
    sums = []

    def all_reduce(values):
        sums.append(values.clone())
        if len(sums) > 1:
            values += sums[0]

    monkeypatch.setattr("legradnet.training.norms.dist.is_initialized", lambda: True)
    monkeypatch.setattr("legradnet.training.norms.dist.get_world_size", lambda: 2)
    monkeypatch.setattr("legradnet.training.norms.dist.all_reduce", all_reduce)
    other, own = deepcopy(norm).train(), deepcopy(norm).train()
    SynchronisedNorms().apply(nn.ModuleList([other, own]))
    other(films[4:])
    torch.testing.assert_close(own(films[:4]), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.state_dict(), whole.state_dict(), atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_two_processes_with_half_a_batch_each_learn_what_one_with_the_whole_does(tmp_path):
    words = ["backbone=tiny", *(f"~backbone.{key}" for key in ("swin", "convnext", "vit", "xception"))]
    words += ["backbone.densenet.image_size=32", "data.image_size=32", "data.count=32", "model.feature_dim=16"]
    words += ["augment=none", "model.dropout=0", "gating=mean", "trainer.precision=32-true", "trainer.max_epochs=2"]
    words += ["calibration=none", "test=false"]
    for name, batch, *how in (
        ("one", 8, "trainer=cpu"),
        ("two", 4, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"),
        ("apart", 4, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=false"),
    ):
        own = [*words, *how, f"data.batch_size={batch}", f"hydra.run.dir={tmp_path / name}"]
        done = command("legradnet-train", *own, timeout=500)
        assert done.returncode == 0, done.stderr
    one, two, apart = (pd.read_csv(tmp_path / name / "metrics.csv") for name in ("one", "two", "apart"))
    for column in ("train/loss", "val/loss", "val/rps"):
        assert one[column].to_numpy() == pytest.approx(two[column].to_numpy(), rel=1e-4), column
    assert abs(one["train/loss"] - apart["train/loss"]).max() > 100 * abs(one["train/loss"] - two["train/loss"]).max()
