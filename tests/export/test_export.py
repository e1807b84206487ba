"""An export grades like its checkpoint, or is not written."""

import json
import shutil
import sys

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from exports import (
    TINY,
    assert_grades_like,
    exported,
    knees_as_films,
    needs_runtimes,
    settings,
    untrained,
    with_distance,
)
from legradnet import Grader
from legradnet.cli import config_folder
from legradnet.errors import UserError
from legradnet.evaluation.run import evaluate
from legradnet.export import run as export_run
from legradnet.export.check import TOLERANCE
from legradnet.export.graph import ResizeMatrix, tempered
from legradnet.export.run import export
from legradnet.grading.calibration import Calibration
from legradnet.grading.calibration import tempered as tempered_by_numpy
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.run import predict

pytestmark = needs_runtimes


def compose_evaluate(*overrides):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        words = ["data=csv", "resamples=2", "joint_masked=false", *overrides]
        return OmegaConf.to_container(hydra.compose("evaluate", words), resolve=True)


@pytest.mark.parametrize("kind", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_all_five_families_are_exported_and_grade_like_their_checkpoint_at_any_batch(kind, tmp_path):
    path = untrained(
        tmp_path / "five.ckpt",
        backbone=TINY,
        loss="corn",
        calibration=Calibration(rule="median", films=40, temperature=1.4),
    )
    with_distance(path, 64)
    network = ExportedNetwork(exported(path, tmp_path / "out", format=kind), threads=1)
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    films = knees_as_films(7, 64)
    assert checkpoint(films).probabilities.std(axis=0).max() > 1e-3  # or equality would mean nothing
    assert_grades_like(network, checkpoint, films)
    assert network.backbones == tuple(TINY)


@pytest.mark.parametrize(
    ("gate", "kind"),
    [
        *(("mha", "onnx"), ("mlp", "openvino"), ("concat", "onnx")),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("mean", "onnx"), ("concat", "openvino"))),
    ],
)
def test_every_gate_is_exported(gate, kind, tmp_path):
    path = untrained(
        tmp_path / "one.ckpt",
        gate=gate,
        loss="soft_labels",
        calibration=Calibration(rule="mode", films=40, temperature=0.7),
    )
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    network = ExportedNetwork(exported(path, tmp_path / kind, format=kind), threads=1)
    assert_grades_like(network, checkpoint, knees_as_films(7, 64))
    assert network.weighs == (gate != "concat")


@pytest.mark.parametrize("rule", ["mode", "median"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_graph_calibrates_as_the_grader_does(rule, temperature):
    raw = np.random.default_rng(0).dirichlet([0.3] * 5, 200).astype(np.float32)
    raw = np.concatenate([raw, np.eye(5, dtype=np.float32)])
    found = tempered(torch.from_numpy(raw), Calibration(rule=rule, films=40, temperature=temperature)).numpy()
    assert found == pytest.approx(tempered_by_numpy(raw, temperature, rule), abs=1e-5)


@pytest.mark.parametrize("rule", ["mode", "median"])
@pytest.mark.parametrize("mixing", [[], (np.eye(5) + 0.1).tolist()])
def test_biases_and_mixing_in_torch_are_those_in_numpy(rule, mixing):
    raw = np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)
    calibration = Calibration(rule=rule, temperature=1.4, biases=[-1.0, 0.5, 0.0, 0.2, 0.3], mixing=mixing)
    assert tempered(torch.from_numpy(raw), calibration).numpy() == pytest.approx(
        calibration.probabilities(raw), abs=1e-5
    )


@pytest.mark.parametrize(("from_side", "to_side"), [(224, 96), (96, 224), (224, 299), (100, 33)])
def test_the_resize_of_the_graph_is_that_of_training(from_side, to_side):
    films = torch.rand(2, 1, from_side, from_side)
    expected = torch.nn.functional.interpolate(films, (to_side, to_side), mode="bilinear", antialias=True)
    assert torch.allclose(ResizeMatrix(from_side, to_side)(films), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["folder", pytest.param("onnx_folder", marks=pytest.mark.slow)])
def test_predict_gives_the_rows_that_the_checkpoint_gives(kind, best, knees, tmp_path, request):
    films = tmp_path / "films"
    films.mkdir()
    for path in sorted(knees.glob("*.png"))[:9]:
        shutil.copy(path, films / path.name.replace("L", "").replace("R", ""))  # unknown sides: graded both ways
        shutil.copy(path, films)
    (films / "bad.png").write_bytes(b"no film")
    tables = []
    for name, checkpoint in (("checkpoint", best), ("export", request.getfixturevalue(kind))):
        asked = settings("predict", checkpoint=str(checkpoint), input=str(films), batch_size=7, precision="auto")
        predict(asked | {"precision": "f32"}, tmp_path / name)
        tables.append(pd.read_csv(tmp_path / name / "predictions.csv"))
    pd.testing.assert_frame_equal(*tables, atol=TOLERANCE, rtol=0)
    assert len(tables[0]) > 12
    assert tables[0]["prediction_set"].notna().sum() == len(tables[0]) - 1
    assert tables[0]["reason"].str.contains("side unknown").any()


def test_the_command_exports_and_its_folder_says_what_is_in_it(best, typed, tmp_path):
    done = typed("legradnet-export", f"checkpoint={best}", f"output={tmp_path}/out", "format=onnx")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # no run folder, no log
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "network.onnx"]
    described = json.loads((tmp_path / "out/export.json").read_text())
    assert described["class_names"] == ["KL 0", "KL 1", "KL 2", "KL 3", "KL 4"]
    assert described["backbones"] == ["swin", "vit"]
    assert described["calibration"]["coverage"] == 0.9
    assert described["largest_difference"] <= TOLERANCE
    assert str(best.parent) not in json.dumps(described)


def test_an_export_that_is_not_its_checkpoint_is_never_written(tmp_path, monkeypatch):
    monkeypatch.setattr(ResizeMatrix, "forward", lambda self, films: self.matrix @ films @ self.matrix.T * 0.98)
    path = untrained(tmp_path / "one.ckpt", size=64)
    with pytest.raises(UserError, match="differ from the checkpoint's by"):
        exported(path, tmp_path / "out", format="onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["one.ckpt"]


def test_a_stopped_export_leaves_nothing_behind(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export_run, "check_parity", stop)
    with pytest.raises(KeyboardInterrupt):
        exported(untrained(tmp_path / "one.ckpt"), tmp_path / "out", format="onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["one.ckpt"]


def test_mistakes_are_told_before_the_work(best, folder, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious").touch()
    (tmp_path / "file").touch()
    for wrong, words in [
        ({"format": "tflite"}, "format=tflite must be one of openvino, onnx, model, hub"),
        ({"precision": "fp16"}, "precision=fp16 must be one of f32, bf16, int8"),
        ({"format": "onnx", "precision": "bf16"}, "ONNX Runtime has no bf16"),
        ({"max_qwk_drop": -1}, "max_qwk_drop"),
        ({"output": str(tmp_path / "full")}, "not empty"),
        ({"output": str(tmp_path / "file")}, "is a file"),
        ({"checkpoint": str(tmp_path / "none.ckpt")}, "No checkpoint"),
        ({"checkpoint": str(folder)}, "is a folder"),
    ]:
        with pytest.raises(UserError, match=words):
            export(settings("export", **{"checkpoint": str(best), "output": str(tmp_path / "out"), **wrong}))
    shutil.copy(best, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="choose data=csv"):
        exported(tmp_path / "best.ckpt", tmp_path / "out", precision="int8")
    for module, changed in [("openvino", {}), ("onnxruntime", {"format": "onnx"}), ("nncf", {"precision": "int8"})]:
        with monkeypatch.context() as patched, pytest.raises(UserError, match=r"pip install -e '\.\[export\]'"):
            patched.setitem(sys.modules, module, None)
            exported(best, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full/precious").exists()


def test_checkpoints_and_exports_are_averaged_together(best, folder, knees):
    film = next(knees.glob("*.png"))
    alone = Grader.from_checkpoint(best, precision="f32").grade(film)
    together = Grader.from_checkpoint([best, folder], precision="f32").grade(film)
    assert together.probabilities == pytest.approx(alone.probabilities, abs=TOLERANCE)


def test_an_export_is_evaluated_like_its_checkpoint(best, folder, knees, blank_figures, tmp_path):
    config = compose_evaluate(f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv", f"checkpoint={folder}")
    evaluate(config, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    labels = pd.read_csv(knees / "knees.csv")
    gradings = Grader.from_checkpoint(best, precision="f32").grade([knees / name for name in labels["filename"]])
    right = np.array([grading.grade for grading in gradings]) == labels["label"]
    assert found["accuracy"]["value"] == pytest.approx(right.mean(), abs=0.03)


def test_a_network_whose_weights_are_not_finite_is_not_exported(tmp_path):
    path = untrained(tmp_path / "one.ckpt")
    content = torch.load(path, weights_only=True)
    name = "ensemble.backbones.one.trunk.norm.weight"
    content["state_dict"][name][0] = torch.nan
    torch.save(content, path)
    with pytest.raises(
        UserError, match=r"one\.ckpt can't be exported: backbones\.one\.trunk\.norm\.weight is not finite"
    ):
        exported(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
