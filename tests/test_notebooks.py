"""The notebooks run on what the commands leave, and are committed as text."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import write_kernel_spec
from nbclient import NotebookClient

from legradnet.errors import UserError
from legradnet.training.run import train
from small_runs import command, compose, made_once

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
CURVES, EVALUATION, GATING, EXPLANATIONS, STUDY = NOTEBOOKS[:5]
INPUTS = ("RUN", "EVALUATION", "EXPLAINED", "GATE", "FAITHFULNESS", "STUDY")
ABSOLUTE_PATH = re.compile(r"(?<![\w.*}>~:/-])/\w|\b[A-Za-z]:\\")
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="session")
def kernels(tmp_path_factory):
    """Where Jupyter finds a kernel `python3` that is this Python, whatever else is on the machine."""
    folder = tmp_path_factory.mktemp("jupyter")
    write_kernel_spec(folder / "kernels/python3")
    return folder


@pytest.fixture
def execute(kernels, monkeypatch):
    """Execute a notebook in the folder `cwd`, with environment variables; gives its outputs as one text."""

    def run(path, cwd, **environment):
        monkeypatch.setenv("JUPYTER_PATH", str(kernels))
        monkeypatch.setenv("IPYTHONDIR", str(kernels / "ipython"))
        for name in INPUTS:
            monkeypatch.delenv(f"LEGRADNET_{name}", raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, str(value))
        notebook = nbformat.read(path, as_version=4)
        notebook.cells.append(nbformat.v4.new_code_cell("import sys; sys.executable"))
        settings = {"metadata": {"path": str(cwd)}}
        NotebookClient(notebook, timeout=300, kernel_name="python3", resources=settings).execute()
        assert notebook.cells.pop().outputs[0]["data"]["text/plain"] == repr(sys.executable)
        return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", []))

    return run


@pytest.fixture(scope="session")
def checkout(trained, knees, tmp_path_factory):
    """A folder like the repository after the commands that the notebooks name."""
    return made_once(tmp_path_factory, "checkout", lambda top: follow_notebooks(top, trained, knees))


def follow_notebooks(top, trained, knees):
    (top / "notebooks").mkdir()
    shutil.copytree(trained, top / "outputs/quickstart")
    evaluate(top / "outputs/quickstart", top / "outputs/evaluation")
    shutil.copytree(knees, top / "outputs/knees")
    for line in nbformat.read(EXPLANATIONS, as_version=4).cells[0].source.splitlines():
        if line.startswith("    legradnet-explain"):
            few = ["sample=3", "steps=2", "resamples=10", "methods=[gradcam,hirescam]"]
            done = command(*line.split(), *few, cwd=top)
            assert done.returncode == 0, done.stderr
    for line in nbformat.read(STUDY, as_version=4).cells[0].source.splitlines():
        if line.startswith("    legradnet-train"):
            few = ["data.count=40", "data.image_size=32", "trainer.max_epochs=2", "hydra.sweeper.n_trials=3"]
            few += ["backbone=vit", "backbone.vit.timm_name=tiny_vit", "backbone.vit.image_size=48"]
            done = command(*line.split(), *few, cwd=top)
            assert done.returncode == 0, done.stderr


def evaluate(run, folder):
    best = f"checkpoint={run}/checkpoints/best.ckpt"
    done = command("legradnet-evaluate", best, "resamples=20", "joint_masked=false", f"hydra.run.dir={folder}")
    assert done.returncode == 0, done.stderr


def files(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def test_there_is_a_notebook_for_curves_evaluation_gating_explanations_and_a_study():
    names = ["01_training_curves", "02_evaluation", "03_gating", "04_explanations", "05_study"]
    assert [path.stem for path in NOTEBOOKS] == names


@each_notebook
def test_notebooks_are_committed_without_outputs_and_paths_of_a_machine(path):
    notebook = nbformat.from_dict(json.loads(path.read_text(encoding="utf-8")))  # nbformat.read would mend the ids
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec == {"display_name": "Python 3", "language": "python", "name": "python3"}
    for cell in notebook.cells:
        assert not ABSOLUTE_PATH.search("".join(cell.source)), cell.id
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_notebook
def test_notebooks_begin_with_the_commands_that_make_their_input(path):
    source = nbformat.read(path, as_version=4).cells[0].source
    if path == STUDY:
        assert "legradnet-train -m tuning=learning_rate experiment=quickstart" in source
        assert "hydra.sweep.dir=outputs/study" in source
        return
    assert "legradnet-train experiment=quickstart hydra.run.dir=outputs/quickstart" in source
    best = "outputs/quickstart/checkpoints/best.ckpt"
    evaluate = f"legradnet-evaluate checkpoint={best} hydra.run.dir=outputs/evaluation"
    assert path in (CURVES, EXPLANATIONS) or evaluate in source
    explain = f"legradnet-explain checkpoint={best} input=outputs/knees/knees.csv"
    assert path != EXPLANATIONS or source.count(explain) == 3


@pytest.mark.slow
@each_notebook
def test_notebooks_run_in_their_own_folder_and_leave_nothing(path, checkout, execute):
    before = files(checkout)
    assert "image/png" in execute(path, checkout / "notebooks")
    assert files(checkout) == before


@pytest.mark.by_hand
@each_notebook
def test_notebooks_run_from_the_top_on_folders_relative_to_it(path, checkout, tmp_path, execute):
    shutil.copytree(checkout / "outputs", tmp_path / "mine")
    folders = ("quickstart", "evaluation", "explained", "gate", "faithfulness", "study")
    named = {f"LEGRADNET_{name}": f"mine/{folder}" for name, folder in zip(INPUTS, folders, strict=True)}
    assert "image/png" in execute(path, tmp_path, **named)


@pytest.mark.slow
def test_curves_of_many_runs_are_drawn_together(trained, tmp_path, execute):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    text = execute(CURVES, tmp_path, LEGRADNET_RUN=os.pathsep.join(["runs/*", str(trained)]))
    assert all(f">{name}<" in text for name in ("one", "two", trained.name))


@pytest.mark.slow
def test_a_gate_without_weights_is_told(tmp_path, execute):
    train(compose("gating=concat", "trainer.max_epochs=1"), tmp_path / "run")
    evaluate(tmp_path / "run", tmp_path / "out")
    text = execute(GATING, tmp_path, LEGRADNET_EVALUATION=tmp_path / "out")
    assert "gating=concat" in text
    assert "image/png" not in text
    # nothing is calibrated on so few knees, so there are no prediction sets either
    assert "image/png" in execute(EVALUATION, tmp_path, LEGRADNET_EVALUATION=tmp_path / "out")


@each_notebook
def test_a_missing_input_is_told_with_the_command_that_makes_it(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        CURVES: "legradnet-train experiment=quickstart",
        EXPLANATIONS: "legradnet-explain checkpoint=",
        STUDY: "legradnet-train -m tuning=",
    }
    name = names.get(path, "legradnet-evaluate checkpoint=")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    with pytest.raises(UserError, match=f"There is no .*outputs.*csv: {name}"):
        exec(re.sub("(?m)^%.*", "", "\n".join(cells)), {})
