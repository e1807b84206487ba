"""Killed and resumed: the same numbers as never killed."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from killed import Killed, kill_at

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.training.resuming import check_same_settings, steps_of
from legradnet.training.run import build_module, build_trainer, train
from legradnet.training.settings import TrainSettings
from small_runs import compose, made_once

UNMEASURED = ["test=false", "calibration=none"]
BALANCED = ["callbacks.ema_decay=0.9", "loss=corn", "data.balance=true"]


@pytest.fixture(scope="session")
def balanced(tmp_path_factory):
    return made_once(
        tmp_path_factory, "balanced", lambda folder: train(compose("trainer.max_epochs=4", *BALANCED), folder)
    )


@pytest.mark.parametrize(
    ("epoch", "batch", "extra"),
    [(0, 2, []), pytest.param(2, 3, [], marks=pytest.mark.slow), (1, 0, BALANCED), (2, 3, BALANCED)],
    ids=["plain-0-2", "plain-2-3", "balanced-1-0", "balanced-2-3"],
)
def test_a_killed_and_resumed_run_ends_with_the_numbers_of_one_never_killed(
    finished, balanced, tmp_path, monkeypatch, epoch, batch, extra, recwarn
):
    whole = balanced if extra else finished[0]
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, epoch, batch)
        with pytest.raises(Killed):
            train(compose("trainer.max_epochs=4", *extra), run)
    if epoch:
        assert pd.read_csv(run / "metrics.csv")["epoch"].tolist() == list(range(epoch))
    recwarn.clear()
    train(compose("trainer.max_epochs=4", "ckpt_path=last", *extra), run)
    assert not [str(warning.message) for warning in recwarn if "heckpoint" in str(warning.message)]
    for name in ("metrics.csv", "test_metrics.json", "split.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    best, other = (read_checkpoint(folder / "checkpoints/best.ckpt")["state_dict"] for folder in (run, whole))
    assert all(torch.equal(best[name], other[name]) for name in other)


def test_early_stopping_counts_on_after_a_resume(tmp_path, monkeypatch):
    settings = ["trainer.max_epochs=30", "callbacks.early_stopping_patience=2", "optimizer.learning_rate=1e-9"]
    settings += ["scheduler=constant", "scheduler.warmup_epochs=0", *UNMEASURED]
    train(compose(*settings), tmp_path / "whole")
    with monkeypatch.context() as patch:
        kill_at(patch, 2, 0)
        with pytest.raises(Killed):
            train(compose(*settings), tmp_path / "run")
    train(compose(*settings, "ckpt_path=last"), tmp_path / "run")
    rows = pd.read_csv(tmp_path / "run/metrics.csv")
    pd.testing.assert_frame_equal(rows, pd.read_csv(tmp_path / "whole/metrics.csv"))
    assert 3 <= len(rows) < 30
    train(compose(*settings, "ckpt_path=last"), tmp_path / "run")  # it had stopped, and stays so
    assert len(pd.read_csv(tmp_path / "run/metrics.csv")) == len(rows)


def test_rows_of_epochs_after_the_checkpoint_are_dropped_on_resume(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        kill_at(patch, 1, 0)
        with pytest.raises(Killed):
            train(compose("trainer.max_epochs=2", *UNMEASURED), tmp_path)
    table = pd.read_csv(tmp_path / "metrics.csv")
    pd.concat([table, table.iloc[[-1]].assign(epoch=1)]).to_csv(tmp_path / "metrics.csv", index=False)
    train(compose("trainer.max_epochs=2", "ckpt_path=last", *UNMEASURED), tmp_path)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [0, 1]


def test_a_finished_run_is_not_overwritten(finished):
    before = (finished[0] / "metrics.csv").read_bytes()
    with pytest.raises(UserError, match="already holds a run.*ckpt_path=last to go on"):
        train(compose("trainer.max_epochs=1"), finished[0])
    assert (finished[0] / "metrics.csv").read_bytes() == before


def test_a_finished_run_can_be_tested_again_and_trained_for_longer(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    (run / "test_metrics.json").unlink()
    train(compose("trainer.max_epochs=4", "ckpt_path=last"), run)
    for name in ("metrics.csv", "test_metrics.json"):
        assert (run / name).read_bytes() == (finished[0] / name).read_bytes()
    train(compose("trainer.max_epochs=5", "ckpt_path=last"), run)
    assert_longer_run(run)


def assert_longer_run(run):
    table = pd.read_csv(run / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1, 2, 3, 4]
    assert read_checkpoint(run / "checkpoints/best.ckpt")["epoch"] == table["val/qwk"].idxmax()


def test_a_run_can_go_on_in_another_folder_which_then_holds_all_of_it(finished, tmp_path):
    last = finished[0] / "checkpoints/last.ckpt"
    train(compose("trainer.max_epochs=5", f"ckpt_path={last}"), tmp_path / "longer")
    assert_longer_run(tmp_path / "longer")
    with pytest.raises(UserError, match="already holds a run"):
        train(compose("trainer.max_epochs=5", f"ckpt_path={last}"), tmp_path / "longer")
    with pytest.raises(UserError, match="films, labels or split have changed"):
        train(compose("trainer.max_epochs=5", f"ckpt_path={last}", "data.seed=5"), tmp_path / "third")


def test_resuming_where_there_is_nothing_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint at .*last\.ckpt.*Repeat the run's own hydra\.run\.dir="):
        train(compose("ckpt_path=last"), tmp_path)


def test_resuming_from_a_checkpoint_without_optimiser_state_is_an_error(finished, tmp_path):
    with pytest.raises(UserError, match="no optimiser state"):
        train(compose(f"ckpt_path={finished[0]}/checkpoints/best.ckpt"), tmp_path)


def test_resuming_with_other_settings_names_them(finished):
    with pytest.raises(
        UserError, match=r"(?s)optimizer\.learning_rate: was 0\.001, now 0\.002.*run\.batch_size: was 8, now 4"
    ):
        train(compose("ckpt_path=last", "optimizer.learning_rate=2e-3", "data.batch_size=4"), finished[0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["trainer.devices=2"], r"run\.devices: was 1, now 2.*run\.strategy: was single_device, now ddp"),
        (["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"], r"run\.devices: was 1, now 2"),
        (["trainer.accumulate_grad_batches=2"], r"run\.accumulate_grad_batches: was 1, now 2"),
        (["trainer.precision=16-mixed"], r"run\.precision: was .*, now 16-mixed"),
        (["+trainer.limit_train_batches=2"], r"run\.limit_train_batches: was None, now 2"),
        (["+trainer.gradient_clip_algorithm=value"], r"run\.gradient_clip_algorithm: was None, now value"),
    ],
)
def test_resuming_with_other_steps_is_refused_like_any_other_setting_that_changes_numbers(finished, changed, words):
    with pytest.raises(UserError, match=f"(?s){words}"):
        train(compose("ckpt_path=last", *changed), finished[0])


def test_a_single_process_is_the_same_however_it_is_asked_for(tmp_path):
    def steps(*asked):
        settings = checked(TrainSettings, compose(*asked))
        return steps_of(settings.trainer, build_trainer(settings, RunFolder(tmp_path)))

    alone = steps()
    assert alone == {"devices": 1, "num_nodes": 1, "strategy": "single_device"}
    for asked in (["trainer.devices=auto"], ["trainer.strategy=ddp"], ["trainer=ddp", "trainer.accelerator=cpu"]):
        assert steps(*asked) == alone


def test_a_run_begun_before_runs_told_their_processes_can_be_resumed_with_any(finished, tmp_path):
    checkpoint = read_checkpoint(finished[0] / "checkpoints/last.ckpt")
    module = build_module(compose())
    module.hparams["run"] |= {"devices": 4, "num_nodes": 2, "strategy": "ddp", "sync_batchnorm": "True"}
    for key in ("devices", "num_nodes", "strategy"):
        del checkpoint["hyper_parameters"]["run"][key]
    torch.save(checkpoint, tmp_path / "last.ckpt")
    check_same_settings(tmp_path / "last.ckpt", module)


def test_resuming_with_other_films_is_an_error(finished, tmp_path):
    run = tmp_path / "copy"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").write_bytes((finished[0] / "checkpoints/last.ckpt").read_bytes())
    (run / "split.csv").write_text((finished[0] / "split.csv").read_text().replace("S00001", "X00001"))
    with pytest.raises(UserError, match="films, labels or split have changed"):
        train(compose("ckpt_path=last", "trainer.max_epochs=4"), run)


def test_a_run_begun_before_there_was_a_fused_optimiser_or_a_precision_of_each_backbone_can_be_resumed(
    finished, tmp_path
):
    run = tmp_path / "run"
    shutil.copytree(finished[0], run)
    last = run / "checkpoints/last.ckpt"
    checkpoint = read_checkpoint(last)
    for settings in checkpoint["hyper_parameters"]["backbone"].values():
        del settings["precision"]
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        group["fused"] = None
    with written_whole(last) as file:
        torch.save(checkpoint, file)
    train(compose("trainer.max_epochs=5", "ckpt_path=last"), run)
    assert_longer_run(run)
    assert read_checkpoint(last)["optimizer_states"][0]["param_groups"][0]["fused"] is None  # same numbers as before


def test_resuming_with_another_precision_of_a_backbone_or_compiled_names_it(finished):
    changed = ["ckpt_path=last", "backbone.vit.precision=bf16", "compile=true"]
    with pytest.raises(UserError, match=r"(?s)backbone\.vit\.precision: was None, now bf16.*run\.compile: was None"):
        train(compose(*changed), finished[0])


def test_a_changed_bit_in_what_a_run_goes_on_from_is_told(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    last = tmp_path / "run/checkpoints/last.ckpt"
    changed = bytearray(last.read_bytes())
    changed[len(changed) // 3] ^= 4
    last.write_bytes(changed)
    with pytest.raises(UserError, match=r"last\.ckpt .*checksum is wrong"):
        train(compose("trainer.max_epochs=4", "ckpt_path=last"), tmp_path / "run")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["optimizer_states"].__setitem__(0, 7),
        lambda content: content["optimizer_states"][0]["state"][2].__setitem__("exp_avg_sq", -1),
        lambda content: content["callbacks"].__setitem__(next(iter(content["callbacks"])), True),
        lambda content: content["loops"]["fit_loop"].__setitem__("epoch_progress", []),
    ],
    ids=["optimiser", "averages", "callback", "loop"],
)
def test_a_state_that_no_run_can_go_on_from_is_told_in_words(finished, tmp_path, change):
    shutil.copytree(finished[0], tmp_path / "run")
    last = Path("checkpoints/last.ckpt")
    content = read_checkpoint(finished[0] / last)
    change(content)
    torch.save(content, tmp_path / "run" / last)
    with pytest.raises(UserError, match=r"The run can't go on from .*last\.ckpt"):
        train(compose("trainer.max_epochs=5", "ckpt_path=last"), tmp_path / "run")
