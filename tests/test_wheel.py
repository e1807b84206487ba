"""The package as it is installed, outside the checkout."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
QUICK = ["experiment=quickstart", "data.count=40", "trainer.max_epochs=1"]


def test_the_wheel_works_outside_the_checkout(trained, knees, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True, capture_output=True)
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    metadata = next(site.glob("legradnet-*.dist-info"))
    notices = {path.read_text() for path in (*metadata.rglob("NOTICE"), site / "legradnet/models/oai/NOTICE")}
    assert notices == {(ROOT / "src/legradnet/models/oai/NOTICE").read_text()} and next(metadata.rglob("NOTICE"))
    # the heavy dependencies of this environment; a plain path, so its editable install isn't followed
    (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    for name, *arguments in (
        ["train", "--cfg", "job"],
        ["train", *QUICK[:2], "trainer.fast_dev_run=true"],
        ["train", "-m", "tuning=custom", "gating=mha,mean", *QUICK, "hydra.sweeper.n_trials=1"],
        ["predict", best, f"input={knees}"],
        ["evaluate", best, "resamples=20"],
    ):
        script = tmp_path / f"env/bin/legradnet-{name}"
        done = subprocess.run(
            [script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=alone
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/train/custom/trials.csv").is_file()
    _grades_by_what_ships(site, tmp_path, knees, alone)
    places = "import legradnet, hydra_plugins.legradnet_optuna as plugin; print(legradnet.__file__, plugin.__file__)"
    shown = subprocess.run([python, "-c", places], capture_output=True, text=True, env=alone)
    assert [Path(place).is_relative_to(site) for place in shown.stdout.split()] == [True, True]
    page = Path("src/legradnet/viewer/page")
    assert {path.name for path in (site / page.relative_to("src")).iterdir()} == {
        path.name for path in (ROOT / page).iterdir()
    }


def _grades_by_what_ships(site, tmp_path, knees, environment):
    """`legradnet-predict input=...` needs nothing but the wheel: no checkpoint, and no network."""
    source, installed = ROOT / "src/legradnet/models/oai", site / "legradnet/models/oai"
    if not (source / "config.json").is_file():
        return  # this build has none, see models/test_named.py
    assert {path.name: path.read_bytes() for path in installed.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    blocked = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('the network was touched')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from legradnet.cli.predict import main\n"
        f"sys.argv = ['legradnet-predict', 'input={next(knees.glob('*.png'))}', 'hydra.run.dir=shipped']\n"
        "main()\n"
    )
    python = site.parents[2] / "bin/python"
    done = subprocess.run([python, "-c", blocked], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Grading by oai (digest" in done.stdout + done.stderr
