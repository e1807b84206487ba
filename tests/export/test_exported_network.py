"""An export is graded from without torch, and refused when it is damaged."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from exports import exported, needs_runtimes, settings
from hostile_films import dicom, dicom_bytes
from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.data.images import read_image
from legradnet.errors import UserError
from legradnet.explain.run import explain
from legradnet.export import run as export_run
from legradnet.grading.exported_network import ExportedNetwork
from whole_films import CLEAR, LEFT, RIGHT, whole_film

pytestmark = needs_runtimes


NEVER = ("torch", "torchvision", "timm", "lightning", "torchmetrics", "pandas", "matplotlib", "rich")


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
def test_grading_from_an_export_needs_only_the_runtime_numpy_scipy_pillow_and_pydicom(kind, knees, tmp_path, request):
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


@pytest.mark.parametrize("kind", ["folder", "onnx_folder"])
def test_what_could_be_imported_is_not_when_an_export_is_graded(kind, knees, request):
    folder, film = request.getfixturevalue(kind), next(knees.glob("*.png"))
    program = (
        "import sys\n"
        "from legradnet import Grader\n"
        f"Grader.load({str(folder)!r}).grade({str(film)!r})\n"
        f"found = {{*{NEVER!r}, 'hydra', 'omegaconf', 'captum'}} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_predicting_from_an_export_imports_no_torch(folder, best, knees, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    for path in sorted(knees.glob("*.png"))[:3]:
        shutil.copy(path, films)
    both = whole_film(RIGHT, LEFT, seed=CLEAR)
    Image.fromarray(both).save(films / "both.png")
    program = (
        f"sys.argv = ['legradnet-predict', 'checkpoint={folder}', 'input={films}', 'hydra.run.dir={tmp_path}/run']\n"
        "from legradnet.cli.predict import main\n"
        "main()\n"
    )
    done = without(program)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    knees_of = table[table["filename"] == "both.png"]
    assert len(table) == 5 and knees_of["knee"].tolist() == ["R", "L"]
    by_checkpoint = Grader.load(best, device="cpu", precision="f32").grade_knees(both)
    assert knees_of["expected_grade"].tolist() == pytest.approx([k.expected_grade for k in by_checkpoint], abs=1e-3)


def test_the_runtimes_report_nothing_to_their_makers(tmp_path):
    program = (
        "import socket, sys\n"
        "from legradnet.grading.runtimes.onnx import import_onnx_runtime\n"
        "from legradnet.grading.runtimes.openvino import import_openvino\n"
        "from legradnet.export.quantize import import_nncf\n"
        "sent = []\n"
        "socket.socket.connect = socket.getaddrinfo = lambda *_: sent.append(1)\n"
        "import_openvino(); import_onnx_runtime(); import_nncf()\n"
        "from nncf.telemetry.wrapper import telemetry\n"
        "assert type(telemetry).__name__ == 'MagicMock', telemetry\n"
        "from openvino.tools.ovc import convert_impl, telemetry_utils\n"
        "assert convert_impl.tm is telemetry_utils.tm and convert_impl.tm.__name__.endswith('telemetry_stub')\n"
        "assert 'openvino_telemetry' not in sys.modules and not sent\n"  # and whoever else wants it can have it
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
    described = json.loads(path.read_text()) | changes
    described.pop("digest", None)  # by which every change is told
    path.write_text(json.dumps(described))


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
    assert calibration.min_confidence == float("inf") and calibration.thresholds == [float("inf")] * 5
    assert Grader.from_export(folder).grade(np.zeros((64, 64), np.uint8), side="R").prediction_set == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("kind", ["folder", "onnx_folder"])
def test_a_description_of_films_of_another_size_than_the_networks_is_told_when_it_is_loaded(kind, request, tmp_path):
    shutil.copytree(request.getfixturevalue(kind), tmp_path / "copy")
    file = tmp_path / "copy" / "export.json"
    described = json.loads(file.read_text())
    side = described["films"]["image_size"]
    described["films"]["image_size"] = side + 16
    del described["digest"]
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match=f"its films have {side + 16} px, its network's {side} px"):
        ExportedNetwork(tmp_path / "copy")
