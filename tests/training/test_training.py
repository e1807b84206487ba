import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import compose
from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.training.module import GradingModule, LearningRateCurve
from legradnet.training.run import build_module, choose_precision, train

METRICS = ["loss", "qwk", "accuracy", "balanced_accuracy", "mae", "macro_f1", "rps", "ece", "auroc_kl2"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of four epochs that nothing disturbed."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(compose("trainer.max_epochs=4"), folder)


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

    data = KneeDataModule(**compose("trainer.max_epochs=4")["data"])
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
    train(compose("trainer.max_epochs=4", "seed=1"), tmp_path / "other")
    assert (tmp_path / "other/metrics.csv").read_bytes() != (finished[0] / "metrics.csv").read_bytes()


class Killed(BaseException):
    """Stands for kill -9: nothing in the run may catch it. Real kills are among the slow tests."""


def kill_at(monkeypatch, epoch, batch):
    step = GradingModule.training_step

    def dying(self, films, batch_idx):
        if (self.current_epoch, batch_idx) == (epoch, batch):
            raise Killed
        return step(self, films, batch_idx)

    monkeypatch.setattr(GradingModule, "training_step", dying)


@pytest.mark.parametrize("extra", [[], ["callbacks.ema_decay=0.9", "loss=corn", "data.balance=true"]])
@pytest.mark.parametrize(("epoch", "batch"), [(0, 2), (1, 0), (2, 3)])
def test_a_killed_and_resumed_run_ends_with_the_numbers_of_one_never_killed(
    finished, tmp_path, monkeypatch, epoch, batch, extra
):
    whole = finished[0]
    if extra:
        whole = tmp_path / "whole"
        train(compose("trainer.max_epochs=4", *extra), whole)
    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        kill_at(patch, epoch, batch)
        with pytest.raises(Killed):
            train(compose("trainer.max_epochs=4", *extra), run)
    if epoch:
        assert pd.read_csv(run / "metrics.csv")["epoch"].tolist() == list(range(epoch))
    train(compose("trainer.max_epochs=4", "ckpt_path=last", *extra), run)
    for name in ("metrics.csv", "test_metrics.json", "split.csv"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    best, other = (read_checkpoint(folder / "checkpoints/best.ckpt")["state_dict"] for folder in (run, whole))
    assert all(torch.equal(best[name], other[name]) for name in other)


def test_early_stopping_counts_on_after_a_resume(tmp_path, monkeypatch):
    settings = ["trainer.max_epochs=30", "callbacks.early_stopping_patience=2", "optimizer.learning_rate=1e-9"]
    settings += ["scheduler=constant", "scheduler.warmup_epochs=0"]
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
        kill_at(patch, 2, 0)
        with pytest.raises(Killed):
            train(compose("trainer.max_epochs=3"), tmp_path)
    table = pd.read_csv(tmp_path / "metrics.csv")
    pd.concat([table, table.iloc[[-1]].assign(epoch=2)]).to_csv(tmp_path / "metrics.csv", index=False)
    train(compose("trainer.max_epochs=3", "ckpt_path=last"), tmp_path)
    assert pd.read_csv(tmp_path / "metrics.csv")["epoch"].tolist() == [0, 1, 2]


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


def test_resuming_with_other_films_is_an_error(finished, tmp_path):
    run = tmp_path / "copy"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints/last.ckpt").write_bytes((finished[0] / "checkpoints/last.ckpt").read_bytes())
    (run / "split.csv").write_text((finished[0] / "split.csv").read_text().replace("S00001", "X00001"))
    with pytest.raises(UserError, match="films, labels or split have changed"):
        train(compose("ckpt_path=last", "trainer.max_epochs=4"), run)


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
    qwk = train(compose("trainer.max_epochs=1", *overrides), tmp_path)
    assert -1 <= qwk <= 1
    columns = pd.read_csv(tmp_path / "metrics.csv").columns
    assert ("val/auroc_kl2" in columns) == (compose(*overrides)["model"]["num_classes"] == 5)
    assert (tmp_path / "test_metrics.json").is_file() == ("data.test_fraction=0" not in overrides)


def test_test_false_and_fast_dev_run_skip_the_test(tmp_path):
    train(compose("trainer.max_epochs=1", "test=false"), tmp_path / "untested")
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
    config = compose(f"backbone.vit.weights={best}", "trainer.max_epochs=1")
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
        (["augment.rotation=-4"], "augment.rotation is -4"),
        (["trainer.accelerator=abacus"], "trainer: .*abacus"),
        (["trainer.precision=7-bit"], "trainer.precision=7-bit must be one of auto"),
        (["data.count=10", "data.val_fraction=0.01"], "the val split is empty"),
        (["data.fold=1"], "data.fold=1 needs data.num_folds"),
    ],
)
def test_a_mistake_is_told_before_training_begins(overrides, words, tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.Trainer.fit", lambda *_, **__: pytest.fail("training began"))
    with pytest.raises(UserError, match=words):
        train(compose(*overrides), tmp_path / "run")


def test_a_loss_that_is_not_a_number_stops_the_run_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "legradnet.network.losses.CrossEntropy.forward", lambda self, logits, labels: logits.sum() * torch.nan
    )
    with pytest.raises(UserError, match=r"loss became nan in epoch 0, batch 0: lower optimizer\.learning_rate"):
        train(compose(), tmp_path)


def test_weight_decay_leaves_norms_biases_and_embeddings_alone_and_trunks_have_their_own_rate():
    module = build_module(compose("optimizer.learning_rate=1e-2", "optimizer.backbone_scale=0.5"))
    named = {id(parameter): name for name, parameter in module.ensemble.named_parameters()}
    seen = set()
    for group in module.parameter_groups():
        for parameter in group["params"]:
            name = named[id(parameter)]
            seen.add(name)
            exempt = parameter.ndim <= 1 or any(word in name for word in ("pos_embed", "cls_token", "bias_table"))
            assert (group["weight_decay"] == 0) == exempt, name
            assert group["lr"] == (0.005 if ".trunk." in name else 0.01), name
    assert seen == set(named.values())


def test_frozen_trunks_stay_as_they_were_through_a_whole_run(tmp_path, monkeypatch):
    settings = ["+backbone.densenet.timm_name=tiny_densenet", "+backbone.densenet.frozen=true", "trainer.max_epochs=1"]
    config = compose(*settings, "test=false")
    before = []

    class Looking(GradingModule):
        def training_step(self, batch, batch_idx):
            trunk = self.ensemble.backbones["densenet"].trunk
            assert not any(module.training for module in trunk.modules())
            before.append({name: tensor.clone() for name, tensor in trunk.state_dict().items()})
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("legradnet.training.run.GradingModule", Looking)
    train(config, tmp_path)
    after = read_checkpoint(tmp_path / "checkpoints/last.ckpt")["state_dict"]
    for name, tensor in before[0].items():  # batch norm's running means among them
        assert torch.equal(after[f"ensemble.backbones.densenet.trunk.{name}"], tensor), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_optimiser_is_fused_and_its_gradients_are_clipped_in_every_precision(precision, tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def looking(self, closure=None):
        loss = step(self, closure)
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append((self.param_groups[0]["fused"], torch.cat(gradients).norm().item()))
        return loss

    monkeypatch.setattr(torch.optim.AdamW, "step", looking)
    clipped = "trainer.gradient_clip_val=0.01"
    train(compose("trainer.max_epochs=1", f"trainer.precision={precision}", clipped, "test=false"), tmp_path)
    assert seen
    for fused, norm in seen:
        assert fused
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_gradients_can_be_clipped_by_value_too(tmp_path):
    settings = ["trainer.precision=bf16-mixed", "+trainer.gradient_clip_algorithm=value", "trainer.max_epochs=1"]
    train(compose(*settings, "test=false"), tmp_path)


def test_a_scaler_of_fp16_gets_an_optimiser_that_isnt_fused():
    assert build_module(compose()).build_optimizer().defaults["fused"]
    assert not build_module(compose("trainer.precision=16-mixed")).build_optimizer().defaults["fused"]


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


def test_compile_without_a_compiler_is_told_before_anything_else(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda _: broken)
    with pytest.raises(UserError, match=r"compile=true can't be done here: No working C\+\+ compiler found.*g\+\+"):
        train(compose("compile=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compiled_trunks_have_the_names_of_others_in_the_checkpoint_and_are_compiled_once(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    module, plain = build_module(compose("compile=true")), build_module(compose())
    for stage in ("fit", "test"):
        module.setup(stage)
        plain.setup(stage)
    assert compiled == ["SwinTransformer", "VisionTransformer"]
    assert list(module.state_dict()) == list(plain.state_dict())


def test_frozen_trunks_are_not_optimised():
    module = build_module(compose("backbone.vit.frozen=true"))
    optimised = sum(p.numel() for group in module.parameter_groups() for p in group["params"])
    frozen = sum(p.numel() for p in module.ensemble.backbones["vit"].trunk.parameters())
    assert optimised == sum(p.numel() for p in module.ensemble.parameters()) - frozen


def test_the_learning_rate_warms_up_and_then_follows_a_cosine():
    curve = LearningRateCurve(name="warmup_cosine", total_steps=100, epochs=10, warmup_epochs=1, final_scale=0.1)
    rates = np.array([curve(step) for step in range(101)])
    assert rates.argmax() == 10
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[10] == 1
    assert rates[100] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.55)


def test_precision_follows_from_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert choose_precision("cpu") == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choose_precision("auto") == "bf16-mixed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_trains(tmp_path):
    train(compose("trainer=gpu"), tmp_path)


def test_the_best_checkpoint_is_calibrated_on_validation_films_only(trained, monkeypatch):
    from legradnet.grading.calibration import Calibration, fit_calibration
    from legradnet.grading.grader import Grader
    from legradnet.grading.grading import Request

    learned = read_checkpoint(trained / "checkpoints/best.ckpt")["legradnet"]
    calibration = Calibration.from_plain(learned["calibration"])
    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    data = KneeDataModule(**compose(*settings)["data"])
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
