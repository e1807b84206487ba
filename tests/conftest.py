"""Small knees, a small trained network, and commands typed in this process, for every test that asks for them."""

import importlib
import logging
import os
import signal
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra

from evaluations import FACTS, config_of
from legradnet.data.synthetic import write_knees
from small_runs import compose, made_once

if os.environ.get("LEGRADNET_TEST_DEVICE") != "cuda":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # numbers are compared to the last digit, which only a CPU keeps
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background: what tests start would, too
    signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)  # networks this small gain nothing from two, and lose a lot when the machine is busy
if world := os.environ.get("LEGRADNET_TEST_PRECISION"):
    assert world in ("f32", "bf16"), f"LEGRADNET_TEST_PRECISION={world} must be f32 or bf16"
    sys.path.insert(0, str(Path(__file__).with_name("worlds")))
    os.environ["PYTHONPATH"] = os.pathsep.join([sys.path[0], os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    importlib.import_module("sitecustomize")


@pytest.fixture(autouse=True, scope="session")
def _nothing_is_left_in_the_working_folder():
    """Outputs belong below `tmp_path`; caches, whose names begin with _ or a dot, are none."""

    def names():
        return {path.name for path in Path.cwd().iterdir() if path.name[0] not in "._"}

    folder, before = Path.cwd(), names()
    yield
    assert Path.cwd() == folder, "a test has changed the working folder"
    assert not (left := names() - before), f"tests have left {sorted(left)} in {folder}"


@pytest.fixture(scope="session")
def knees(tmp_path_factory):
    """A folder with 40 generated films of 48 px and their `knees.csv`."""
    return made_once(tmp_path_factory, "knees", lambda folder: write_knees(folder, 40, size=48, seed=3))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The run folder of a small network, calibrated on 40 validation knees, left knees mirrored; only to be read."""
    from legradnet.training.run import train

    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    settings += ["augment.mirror=0", "loss=corn", "optimizer.backbone_scale=1"]
    return made_once(tmp_path_factory, "trained", lambda folder: train(compose(*settings), folder))


@pytest.fixture(scope="session")
def best(trained):
    """The checkpoint of that run, as it is named to a command."""
    return str(trained / "checkpoints/best.ckpt")


@pytest.fixture(scope="session")
def own(best, tmp_path_factory):
    """What an evaluation on the test films of that run has left, with facts of its author; only to be read."""
    from legradnet.evaluation.run import evaluate

    facts = tmp_path_factory.mktemp("facts") / "facts.yaml"
    facts.write_text(FACTS)
    return made_once(tmp_path_factory, "own", lambda folder: evaluate(config_of(best, facts=str(facts)), folder))


@pytest.fixture
def blank_figures(monkeypatch):
    """Evaluations whose figures are blank: drawing them takes longer than all the rest."""
    from matplotlib.figure import Figure

    for name in ("_confusion", "_roc", "_reliability", "_referral", "_coverage", "gate"):
        monkeypatch.setattr(f"legradnet.evaluation.figures.{name}_figure", lambda numbers: Figure((1, 1)))


@pytest.fixture
def typed(tmp_path, monkeypatch, capfd):
    """Type a command as `small_runs.command` does, but in this process, which saves the start of another: for refusals.

    What it prints is in `stdout` and `stderr`. Run folders without a name are below `tmp_path`.
    """
    root = logging.getLogger()
    before = root.handlers[:], root.level
    monkeypatch.chdir(tmp_path)
    # Hydra closes every log handler there is, and absl's, which an export brings along, closes pytest's stderr with it
    monkeypatch.setattr(logging, "_handlerList", [])

    def run(name, *arguments):
        main = importlib.import_module(f"legradnet.cli.{name.removeprefix('legradnet-')}").main
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        capfd.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code or 0
        finally:
            GlobalHydra.instance().clear()
            root.handlers[:], root.level = before
        return CompletedProcess(sys.argv, status, *capfd.readouterr())

    return run


@pytest.fixture(params=["bf16", "f32"])
def precision(request, monkeypatch):
    """What `precision=auto` chooses: once on a CPU that has bfloat16 units, once on one that has none."""
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: request.param == "bf16")
    return request.param


@pytest.fixture(autouse=True)
def _every_record_is_caught(caplog):
    """Quantising a graph leaves the handlers that it finds at ERROR, and pytest uses the same one for all tests."""
    caplog.handler.setLevel(0)
