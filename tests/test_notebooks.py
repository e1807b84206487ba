"""The notebooks run on what the commands leave, and are committed as text."""

import os
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import command, compose
from legradnet.training import train

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


def executed(path, run, evaluation, cwd, monkeypatch):
    """The notebook's outputs as one text."""
    monkeypatch.setenv("LEGRADNET_RUN", str(run))
    monkeypatch.setenv("LEGRADNET_EVALUATION", str(evaluation))
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(cwd)}}).execute()
    return "\n".join(str(output) for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs)


@pytest.fixture(scope="module")
def evaluation(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    done = command("legradnet-evaluate", best, "resamples=20", f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr
    return folder


def test_there_is_a_notebook_for_curves_evaluation_and_gating():
    assert [path.stem for path in NOTEBOOKS][:3] == ["01_training_curves", "02_evaluation", "03_gating"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs_and_paths_of_a_machine(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not re.search(r"['\"]/(?!/)\w", cell.source)
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run_on_a_training_run_and_its_evaluation(path, trained, evaluation, tmp_path, monkeypatch):
    text = executed(path, trained, evaluation, tmp_path, monkeypatch)
    assert "image/png" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_curves_of_many_runs_are_drawn_together(trained, evaluation, tmp_path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    runs = os.pathsep.join([str(tmp_path / "runs/*"), str(trained)])
    text = executed(NOTEBOOKS[0], runs, evaluation, tmp_path, monkeypatch)
    assert all(name in text for name in ("one", "two", trained.name))


@pytest.mark.slow
def test_a_gate_without_weights_is_told(tmp_path, monkeypatch):
    train(compose("gating=concat", "trainer.max_epochs=1"), tmp_path / "run")
    best = f"checkpoint={tmp_path}/run/checkpoints/best.ckpt"
    assert command("legradnet-evaluate", best, "resamples=20", f"hydra.run.dir={tmp_path}/out").returncode == 0
    text = executed(NOTEBOOKS[2], tmp_path / "run", tmp_path / "out", tmp_path, monkeypatch)
    assert "gating=concat" in text
