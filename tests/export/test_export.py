import json
import shutil
import subprocess
import sys
from collections import OrderedDict
from importlib.util import find_spec

import hydra
import numpy as np
import pandas as pd
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from conftest import command
from hostile import dicom, dicom_bytes
from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.config import config_folder
from legradnet.data.images import read_image
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.evaluation.run import evaluate
from legradnet.explain.run import explain
from legradnet.export import run as export_run
from legradnet.export.check import TOLERANCE, Quality
from legradnet.export.graph import ResizeMatrix, tempered
from legradnet.export.quantize import kept_in_float, write_quantised_onnx
from legradnet.export.run import export
from legradnet.grading.calibration import Calibration
from legradnet.grading.calibration import tempered as tempered_by_numpy
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork, import_openvino
from legradnet.grading.run import predict
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import build_loss

if not all(map(find_spec, ("openvino", "onnxruntime", "nncf"))):  # found, not imported: OpenVINO would report that
    pytest.skip("pip install 'legradnet[export]'", allow_module_level=True)

TINY = {key: {"timm_name": f"tiny_{key}"} for key in ("densenet", "swin", "convnext", "vit", "xception")}
SMALL = {key: {"timm_name": "test_vit", "image_size": side} for key, side in (("one", 32), ("other", 48))}
NEVER = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "pandas", "scipy", "matplotlib", "rich")


def untrained(path, *, backbone=SMALL, gate="mha", loss="cross_entropy", calibration=None, size=64, **films):
    """A checkpoint of random weights whose answers differ from film to film."""
    torch.manual_seed(0)
    criterion = build_loss(loss, num_classes=5)
    heads = {"num_heads": 2} if gate == "mha" else {}
    ensemble = KneeEnsemble(backbone, {"name": gate, **heads}, criterion.num_outputs, feature_dim=16).eval()
    ensemble.head[-1].weight.data *= 6
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "backbone": backbone,
        "gating": {"name": gate, **heads},
        "model": {"feature_dim": 16, "num_classes": 5, "dropout": 0.1},
        "loss": {"name": loss},
        "class_counts": [1] * 5,
        "films": {"image_size": size, "fit": "pad", "mirror_left": False, **films},
        "run": {"batch_size": 8},
        "seed": 0,
    }
    learned = {"calibration": calibration.to_plain()} if calibration else {}
    weights = {f"ensemble.{name}": tensor for name, tensor in ensemble.state_dict().items()}
    torch.save({"hyper_parameters": settings, "state_dict": weights, "legradnet": learned}, path)
    return path


def settings(command_name, **changed):
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{command_name}.yaml"), resolve=False)
    common = OmegaConf.to_container(OmegaConf.load(config_folder() / "data/common.yaml"), resolve=False)
    own = {"source": "own", **common} if command_name == "export" else {}
    return config | {"data": {**own, **config["data"]}} | changed


def exported(checkpoint, folder, **changed):
    return export(settings("export", checkpoint=str(checkpoint), output=str(folder), **changed))


def compose_evaluate(*overrides):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        words = ["data=csv", "resamples=2", "joint_masked=false", *overrides]
        return OmegaConf.to_container(hydra.compose("evaluate", words), resolve=True)


def knees_as_films(count, size):
    return np.ascontiguousarray(synthesize(count, size=size, seed=5)[0][:, None])


def assert_grades_like(network, checkpoint, films):
    for batch in (1, 2, 7):
        expected, found = checkpoint(films[:batch]), network.outputs(films[:batch])
        calibrated = checkpoint.calibration.probabilities(expected.probabilities)
        assert found["logits"].shape == expected.logits.shape
        assert found["raw"] == pytest.approx(expected.probabilities, abs=TOLERANCE)
        assert found["probabilities"] == pytest.approx(calibrated, abs=TOLERANCE)
        if expected.gate_weights is None:
            assert "gate_weights" not in found
        else:
            assert found["gate_weights"] == pytest.approx(expected.gate_weights, abs=TOLERANCE)


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def folder(best, tmp_path_factory):
    """An export of the small trained network, which no test may change."""
    return exported(best, tmp_path_factory.mktemp("export") / "openvino")


@pytest.fixture(scope="module")
def onnx_folder(best, tmp_path_factory):
    return exported(best, tmp_path_factory.mktemp("export") / "onnx", format="onnx")


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_all_five_families_are_exported_and_grade_like_their_checkpoint_at_any_batch(kind, tmp_path):
    path = untrained(tmp_path / "five.ckpt", backbone=TINY, loss="corn", calibration=Calibration("median", 40, 1.4))
    network = ExportedNetwork(exported(path, tmp_path / "out", format=kind), threads=1)
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    films = knees_as_films(7, 64)
    assert checkpoint(films).probabilities.std(axis=0).max() > 1e-3  # or equality would mean nothing
    assert_grades_like(network, checkpoint, films)
    assert network.backbones == tuple(TINY)


@pytest.mark.parametrize(
    ("gate", "kind"),
    [("mha", "onnx"), ("mlp", "openvino"), ("concat", "openvino"), ("concat", "onnx"), ("mean", "onnx")],
)
def test_every_gate_is_exported(gate, kind, tmp_path):
    path = untrained(tmp_path / "one.ckpt", gate=gate, loss="soft_labels", calibration=Calibration("mode", 40, 0.7))
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    network = ExportedNetwork(exported(path, tmp_path / kind, format=kind), threads=1)
    assert_grades_like(network, checkpoint, knees_as_films(7, 64))
    assert network.weighs == (gate != "concat")


@pytest.mark.parametrize("rule", ["mode", "median"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_graph_calibrates_as_the_grader_does(rule, temperature):
    raw = np.random.default_rng(0).dirichlet([0.3] * 5, 200).astype(np.float32)
    raw = np.concatenate([raw, np.eye(5, dtype=np.float32)])
    found = tempered(torch.from_numpy(raw), Calibration(rule, 40, temperature)).numpy()
    assert found == pytest.approx(tempered_by_numpy(raw, temperature, rule), abs=1e-5)


@pytest.mark.parametrize(("from_side", "to_side"), [(224, 96), (96, 224), (224, 299), (100, 33)])
def test_the_resize_of_the_graph_is_that_of_training(from_side, to_side):
    films = torch.rand(2, 1, from_side, from_side)
    expected = torch.nn.functional.interpolate(films, (to_side, to_side), mode="bilinear", antialias=True)
    assert torch.allclose(ResizeMatrix(from_side, to_side)(films), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["folder", "onnx_folder"])
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


def without(program, **environment):
    """Run Python in which the slow packages can't be imported and nothing can be reached."""
    start = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the network was touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        f"for name in {NEVER!r}: sys.modules[name] = None\n"
    )
    return subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("kind", ["folder", "onnx_folder"])
def test_grading_from_an_export_needs_only_the_runtime_numpy_pillow_and_pydicom(kind, knees, tmp_path, request):
    png = next(knees.glob("*.png"))
    (tmp_path / "film").write_bytes(dicom_bytes(dicom(read_image(png))))
    folder = request.getfixturevalue(kind)
    program = (
        "for name in ('hydra', 'omegaconf', 'tqdm'): sys.modules[name] = None\n"
        "from legradnet import Grader\n"
        f"grader = Grader.from_export({str(folder)!r})\n"
        f"first, second = grader.grade([{str(png)!r}, {str(tmp_path / 'film')!r}], side='R')\n"
        "print(first.grade, first.prediction_set, sorted(first.gate_weights), second.grade)\n"
    )
    done = without(program)
    assert done.returncode == 0, done.stderr
    expected = Grader.from_export(folder).grade(png, side="R")
    assert done.stdout.strip() == f"{expected.grade} {expected.prediction_set} ['swin', 'vit'] {expected.grade}"


def test_predicting_from_an_export_imports_no_torch(folder, knees, tmp_path):
    program = (
        f"sys.argv = ['legradnet-predict', 'checkpoint={folder}', 'input={knees}', 'hydra.run.dir={tmp_path}/run']\n"
        "from legradnet.cli.predict import main\n"
        "main()\n"
    )
    done = without(program)
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "run/predictions.csv")) == 40


def test_the_runtimes_report_nothing_to_their_makers(tmp_path):
    program = (
        "import socket, sys\n"
        "from legradnet.grading.exported_network import import_onnx_runtime, import_openvino\n"
        "from legradnet.export.quantize import _import_nncf\n"
        "sent = []\n"
        "socket.socket.connect = socket.getaddrinfo = lambda *_: sent.append(1)\n"
        "import_openvino(); import_onnx_runtime(); _import_nncf()\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert type(telemetry).__name__ == 'MagicMock', telemetry\n"
        "assert sys.modules['openvino_telemetry'] is None and not sent\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={"HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "intel").exists()  # where they keep the number of this machine


def test_the_command_exports_and_its_folder_says_what_is_in_it(best, tmp_path):
    done = command("legradnet-export", f"checkpoint={best}", f"output={tmp_path}/out", "format=onnx", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]  # no run folder, no log
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "network.onnx"]
    described = json.loads((tmp_path / "out/export.json").read_text())
    assert described["class_names"] == ["KL 0", "KL 1", "KL 2", "KL 3", "KL 4"]
    assert described["backbones"] == ["swin", "vit"]
    assert described["calibration"]["coverage"] == 0.9
    assert described["largest_difference"] <= TOLERANCE
    assert str(best.parent) not in json.dumps(described)


@pytest.fixture(scope="module")
def int8(best, tmp_path_factory):
    return exported(best, tmp_path_factory.mktemp("export") / "int8", precision="int8", max_qwk_drop=None)


@pytest.fixture(scope="module")
def onnx_int8(best, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "int8"
    return exported(best, folder, precision="int8", format="onnx", max_qwk_drop=None)


def test_int8_keeps_gate_and_head_in_float_in_onnx_too(onnx_int8):
    graph = pytest.importorskip("onnx").load(onnx_int8 / "network.onnx").graph
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantised = {node.name for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv", "Einsum")
                 if scaled & set(node.input)}  # fmt: skip
    assert {name.split("/trunk/")[0] for name in quantised} == {"/branches.0", "/branches.1"}
    assert not any("patch_embed" in name for name in quantised)


def test_int8_has_8_bit_trunks_and_keeps_first_convolution_projection_gate_and_head_in_float(int8):
    graph = import_openvino().Core().read_model(int8 / "network.xml")
    quantised = set()
    for node in graph.get_ops():
        if node.get_type_name() in ("MatMul", "Convolution", "Einsum"):
            sources = [source.get_node().get_type_name() for source in node.input_values()]
            if "FakeQuantize" in sources:
                quantised.add(node.get_friendly_name())
    assert quantised
    assert all("/trunk/" in name for name in quantised)
    assert not any("patch_embed" in name for name in quantised)
    assert {name.split("/trunk/")[0] for name in quantised} == {"/branches.0", "/branches.1"}


def test_activations_in_onnx_have_one_scale_each_which_is_all_that_onnx_runtime_convolves(tmp_path):
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    depthwise = torch.nn.Conv2d(8, 8, 3, groups=8)
    trunk = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.ReLU(), depthwise, torch.nn.Conv2d(8, 8, 3))
    branch = torch.nn.Sequential(OrderedDict(trunk=trunk))  # its nodes are named like those of a backbone
    network, film = torch.nn.Sequential(OrderedDict(branch=branch)), torch.rand(1, 8, 32, 32)
    torch.onnx.export(network, (film,), tmp_path / "f32.onnx", input_names=["films"], dynamo=False)
    write_quantised_onnx(tmp_path / "f32.onnx", tmp_path, [film.numpy()])
    graph = onnx.load(tmp_path / "network.onnx").graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    scales = {node.name: sizes[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert len(scales) == 2
    assert all(size in ([], [1]) for size in scales.values()), scales


def test_only_the_first_convolution_of_each_trunk_is_kept_in_float():
    nodes = [("/x", "Div"), ("/a/trunk/1", "Conv"), ("/b/trunk/1", "Conv"), ("/a/trunk/2", "Conv"), ("/gate", "MatMul")]
    assert kept_in_float([*nodes, ("/b/trunk/2", "MatMul")]) == ["/x", "/a/trunk/1", "/b/trunk/1", "/gate"]


@pytest.mark.parametrize("kind", ["int8", "onnx_int8"])
def test_int8_tells_what_it_costs(kind, best, request):
    int8 = request.getfixturevalue(kind)
    quality = json.loads((int8 / "export.json").read_text())["quality"]
    assert quality["films"] == 40 and quality["split"] == "val" and quality["own"]
    assert quality["largest_probability_change"] > 0
    assert quality["measured_in"] == "int8"
    network = ExportedNetwork(int8)
    films = knees_as_films(7, 48)
    expected = CheckpointNetwork(best, device="cpu", precision="f32")(films).probabilities
    assert network(films).probabilities == pytest.approx(expected, abs=0.3)


def test_an_export_that_grades_worse_is_refused_unless_allowed(tmp_path, monkeypatch):
    worse = Quality(40, "val", True, (0.8, 0.75), (0.6, 0.6), 9, 0.4, "f32")
    monkeypatch.setattr(export_run, "_films", lambda *_: "films")
    monkeypatch.setattr(export_run, "_quality", lambda *_: worse)
    path = untrained(tmp_path / "one.ckpt")
    with pytest.raises(UserError, match=r"QWK falls by 0.0500, from 0.8000 to 0.7500, more than max_qwk_drop=0.01"):
        exported(path, tmp_path / "out", precision="bf16")
    assert [each.name for each in tmp_path.iterdir()] == ["one.ckpt"]
    exported(path, tmp_path / "out", precision="bf16", max_qwk_drop=0.06)
    assert json.loads((tmp_path / "out/export.json").read_text())["quality"]["qwk_export"] == 0.75


def test_bf16_says_what_the_cpu_made_of_it(best, tmp_path, caplog):
    with caplog.at_level("INFO"):
        exported(best, tmp_path / "out", precision="bf16")
    network = ExportedNetwork(tmp_path / "out")
    assert network.precision == "bf16"
    assert network.runs_in in ("bf16", "f32")
    assert ("This CPU has no bf16" in caplog.text) == (network.runs_in == "f32")


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
        ({"format": "tflite"}, "format=tflite must be one of onnx, openvino"),
        ({"precision": "fp16"}, "precision=fp16 must be one of f32, bf16, int8"),
        ({"format": "onnx", "precision": "bf16"}, "ONNX Runtime has no bf16"),
        ({"max_qwk_drop": -1}, "max_qwk_drop"),
        ({"output": str(tmp_path / "full")}, "not empty"),
        ({"output": str(tmp_path / "file")}, "is a file"),
        ({"checkpoint": str(tmp_path / "none.ckpt")}, "No checkpoint"),
        ({"checkpoint": str(folder)}, "No checkpoint"),
    ]:
        with pytest.raises(UserError, match=words):
            export(settings("export", **{"checkpoint": str(best), "output": str(tmp_path / "out"), **wrong}))
    shutil.copy(best, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="choose data=csv"):
        exported(tmp_path / "best.ckpt", tmp_path / "out", precision="int8")
    for module, changed in [("openvino", {}), ("onnxruntime", {"format": "onnx"}), ("nncf", {"precision": "int8"})]:
        with monkeypatch.context() as patched, pytest.raises(UserError, match=r"pip install 'legradnet\[export\]'"):
            patched.setitem(sys.modules, module, None)
            exported(best, tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "full/precious").exists()


def test_what_an_export_cannot_do_is_told_in_words(folder, knees, tmp_path):
    for asked, words in [({"device": "cuda"}, "runs on the CPU"), ({"precision": "bf16"}, "is f32")]:
        with pytest.raises(UserError, match=words):
            Grader.from_checkpoint(folder, **asked)
    with pytest.raises(UserError, match="no export of LegRadNet"):
        Grader.from_export(knees)
    asked = settings("explain", checkpoint=str(folder), input=str(knees))
    with pytest.raises(UserError, match="explain its checkpoint"):
        explain(asked, tmp_path / "run")


def changed_json(folder, **changes):
    path = folder / "export.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def damage(name, target):
    def cut(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])

    def flip(folder):
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    def leave(folder):
        (folder / name).rename(folder.parent / "elsewhere")
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return {"cut": cut, "flip": flip, "gone": lambda folder: (folder / name).unlink(), "link": leave}[target]


@pytest.mark.parametrize(
    "spoil",
    [
        *(damage(name, kind) for name in ("network.xml", "network.bin") for kind in ("cut", "flip", "gone", "link")),
        damage("export.json", "cut"),
        lambda folder: (folder / "export.json").write_text("[" * 100_000),
        lambda folder: (folder / "export.json").write_text("[]"),
        lambda folder: (folder / "export.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: changed_json(folder, legradnet_export=2),
        lambda folder: changed_json(folder, format="../../etc"),
        lambda folder: changed_json(folder, classes="5"),
        lambda folder: changed_json(folder, classes=4),
        lambda folder: changed_json(folder, films=None),
        lambda folder: changed_json(folder, backbones=["swin"]),
        lambda folder: changed_json(folder, calibration={"temperature": 1}),
        lambda folder: changed_json(folder, digests={}),
        lambda folder: changed_json(folder, weighs=[1]),
        lambda folder: changed_json(folder, rule="mode"),
    ],
)
def test_a_damaged_export_is_refused_in_words(spoil, folder, tmp_path, knees):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    spoil(copy)
    with pytest.raises(UserError, match=r"damaged|is missing|no object"):
        Grader.from_export(copy).grade(next(knees.glob("*.png")))


def test_an_onnx_graph_takes_no_weights_from_outside_its_folder(onnx_folder, tmp_path):
    onnx = pytest.importorskip("onnx")
    copy = tmp_path / "copy"
    shutil.copytree(onnx_folder, copy)
    graph = onnx.load(copy / "network.onnx")
    (tmp_path / "secret").write_bytes(bytes(10**6))
    (copy / "link").symlink_to(tmp_path / "secret")
    tensor = max(graph.graph.initializer, key=lambda each: len(each.raw_data))
    for location in ("../secret", str(tmp_path / "secret"), "link"):
        tensor.raw_data = b"any"  # what the next call wants to see
        onnx.external_data_helper.set_external_data(tensor, location)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        (copy / "network.onnx").write_bytes(graph.SerializeToString())
        changed_json(copy, digests={"network.onnx": export_run.digest(copy / "network.onnx")})
        with pytest.raises(UserError, match="can't read the network"):
            Grader.from_export(copy)


def test_sets_and_referrals_without_limits_survive_json(best, tmp_path):
    content = read_checkpoint(best)
    content["legradnet"]["calibration"] |= {"min_confidence": float("inf"), "thresholds": [float("inf")] * 5}
    torch.save(content, tmp_path / "unsure.ckpt")
    folder = exported(tmp_path / "unsure.ckpt", tmp_path / "out", format="onnx")
    assert "Infinity" not in (folder / "export.json").read_text()
    calibration = ExportedNetwork(folder).calibration
    assert calibration.min_confidence == float("inf") and calibration.thresholds == (float("inf"),) * 5
    assert Grader.from_export(folder).grade(np.zeros((64, 64), np.uint8), side="R").prediction_set == (0, 1, 2, 3, 4)


def test_checkpoints_and_exports_are_averaged_together(best, folder, knees):
    film = next(knees.glob("*.png"))
    alone = Grader.from_checkpoint(best, precision="f32").grade(film)
    together = Grader.from_checkpoint([best, folder], precision="f32").grade(film)
    assert together.probabilities == pytest.approx(alone.probabilities, abs=TOLERANCE)


def test_an_export_is_evaluated_like_its_checkpoint(best, folder, knees, tmp_path):
    config = compose_evaluate(f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv", f"checkpoint={folder}")
    evaluate(config, tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())["metrics"]
    labels = pd.read_csv(knees / "knees.csv")
    gradings = Grader.from_checkpoint(best, precision="f32").grade([knees / name for name in labels["filename"]])
    right = np.array([grading.grade for grading in gradings]) == labels["label"]
    assert found["accuracy"]["value"] == pytest.approx(right.mean(), abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        {"densenet": "densenet201"},
        {"swin": "swin_base_patch4_window7_224"},
        {"convnext": "convnext_base"},
        {"vit": "vit_base_patch16_224"},
        {"xception": "legacy_xception"},
        {"deit": "deit_base_patch16_224"},
        {"beit": "beit_base_patch16_224"},
        {"lite0": "tf_efficientnet_lite0", "efficientnet": "efficientnet_b0"},
    ],
    ids=lambda backbone: "+".join(backbone),
)
def test_two_hundred_knees_are_graded_alike_by_every_shipped_network(backbone, tmp_path):
    networks = {key: {"timm_name": name} for key, name in backbone.items()}
    path = untrained(tmp_path / "real.ckpt", backbone=networks, loss="corn", size=224)
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    exports = [ExportedNetwork(exported(path, tmp_path / kind, format=kind)) for kind in ("openvino", "onnx")]
    films = knees_as_films(200, 224)
    begin = 0
    for batch in [1, 2, 7] * 20:
        some = films[begin : begin + batch]
        begin += batch
        expected = checkpoint(some)
        for answers in (network(some) for network in exports):
            assert answers.probabilities == pytest.approx(expected.probabilities, abs=TOLERANCE)
            assert answers.gate_weights == pytest.approx(expected.gate_weights, abs=TOLERANCE)
    assert begin == 200
