"""Fewer bits: what is quantised, what it costs, and when it is refused."""

import json
from collections import OrderedDict

import pytest
import torch

from exports import SMALL, exported, knees_as_films, needs_runtimes, untrained
from legradnet.errors import UserError
from legradnet.export import run as export_run
from legradnet.export.check import Quality
from legradnet.export.quantize import kept_in_float, quantise
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.runtimes.openvino import import_openvino

pytestmark = needs_runtimes


@pytest.mark.slow
def test_int8_keeps_gate_and_head_in_float_in_onnx_too(onnx_int8):
    graph = pytest.importorskip("onnx").load(onnx_int8 / "network.onnx").graph
    scaled = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    quantised = {node.name for node in graph.node if node.op_type in ("MatMul", "Gemm", "Conv", "Einsum")
                 if scaled & set(node.input)}  # fmt: skip
    assert {name.split("/trunk/")[0] for name in quantised} == {"/branches.0", "/branches.1"}
    assert not any("patch_embed" in name for name in quantised)


@pytest.mark.slow
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
    RUNTIMES["onnx"].write(tmp_path / "f32.onnx", tmp_path, [film.numpy()], quantise)
    graph = onnx.load(tmp_path / "network.onnx").graph
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    scales = {node.name: sizes[node.input[1]] for node in graph.node if node.op_type == "QuantizeLinear"}
    assert len(scales) == 2
    assert all(size in ([], [1]) for size in scales.values()), scales


def test_only_the_first_convolution_of_each_trunk_is_kept_in_float():
    nodes = [("/x", "Div"), ("/a/trunk/1", "Conv"), ("/b/trunk/1", "Conv"), ("/a/trunk/2", "Conv"), ("/gate", "MatMul")]
    assert kept_in_float([*nodes, ("/b/trunk/2", "MatMul")]) == ["/x", "/a/trunk/1", "/b/trunk/1", "/gate"]


@pytest.mark.slow
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
    monkeypatch.setattr(export_run, "measure_quality", lambda *_, **__: worse)
    path = untrained(tmp_path / "one.ckpt", backbone={"one": SMALL["one"]})
    with pytest.raises(UserError, match=r"QWK falls by 0.0500, from 0.8000 to 0.7500, more than max_qwk_drop=0.01"):
        exported(path, tmp_path / "out", precision="bf16")
    assert [each.name for each in tmp_path.iterdir()] == ["one.ckpt"]
    exported(path, tmp_path / "out", precision="bf16", max_qwk_drop=0.06)
    assert json.loads((tmp_path / "out/export.json").read_text())["quality"]["qwk_export"] == 0.75


def test_an_export_that_cant_be_judged_is_refused_unless_allowed(tmp_path, monkeypatch):
    nan = float("nan")
    monkeypatch.setattr(export_run, "_films", lambda *_: "films")
    monkeypatch.setattr(
        export_run, "measure_quality", lambda *_, **__: Quality(9, "val", True, (nan, nan), (1.0, 1.0), 0, 0.0, "f32")
    )
    path = untrained(tmp_path / "one.ckpt", backbone={"one": SMALL["one"]})
    with pytest.raises(UserError, match="all 9 films have one grade"):
        exported(path, tmp_path / "out", precision="bf16")
    exported(path, tmp_path / "out", precision="bf16", max_qwk_drop=None)


@pytest.mark.slow
def test_bf16_says_what_the_cpu_made_of_it(best, tmp_path, caplog):
    with caplog.at_level("INFO"):
        exported(best, tmp_path / "out", precision="bf16")
    network = ExportedNetwork(tmp_path / "out")
    assert network.precision == "bf16"
    assert network.runs_in in ("bf16", "f32")
    assert ("This CPU has no bf16" in caplog.text) == (network.runs_in == "f32")
