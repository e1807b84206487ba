"""A run ends with the calibration of its best checkpoint."""

import shutil

import numpy as np
import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.files import written_whole
from legradnet.training.run import train
from small_runs import compose


def test_the_best_checkpoint_is_calibrated_on_validation_films_only(trained, monkeypatch):
    from legradnet.grading.calibration import Calibration, fit_calibration
    from legradnet.grading.grader import Grader
    from legradnet.grading.grading import Request

    learned = read_checkpoint(trained / "checkpoints/best.ckpt")["legradnet"]
    calibration = Calibration.model_validate(learned["calibration"])
    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    data = KneeDataModule(compose(*settings)["data"])
    data.setup()
    val = data.films("val")
    grader = Grader.from_checkpoint(trained / "checkpoints/best.ckpt")
    requests = [Request(data.film(row), side) for row, side in val["side"].items()]
    raw = np.stack([grading.raw for batch in grader.stream(requests) for grading in batch])
    assert fit_calibration(raw, val["label"].to_numpy(), "median") == calibration
    assert calibration.films == len(val) == 40
    assert learned["false_referrals"]["films"] == 40
    assert learned["data"]["films"]["train"] == data.class_counts("train")


def test_a_run_killed_before_it_was_calibrated_is_calibrated_on_resume(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    best = tmp_path / "run/checkpoints/best.ckpt"
    whole = read_checkpoint(best)
    with written_whole(best) as file:  # not in its own place, from which `whole` is mapped
        torch.save({key: value for key, value in whole.items() if key != "legradnet"}, file)
    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    settings += ["augment.mirror=0", "loss=corn", "optimizer.backbone_scale=1"]
    train(compose(*settings, "ckpt_path=last"), tmp_path / "run")
    assert read_checkpoint(best)["legradnet"] == whole["legradnet"]


def test_calibration_can_be_left_out(tmp_path):
    train(compose("calibration=none", "trainer.max_epochs=1"), tmp_path)
    assert "legradnet" not in read_checkpoint(tmp_path / "checkpoints/best.ckpt")


def test_too_few_validation_films_leave_a_run_uncalibrated_with_a_reason(finished, caplog):
    learned = read_checkpoint(finished[0] / "checkpoints/best.ckpt")["legradnet"]
    assert "fewer than" in learned["calibration"]["notes"][0]
    assert learned["calibration"]["temperature"] == 1
