"""Whole runs, real kills, two processes, the wheel: minutes each. `pytest -m slow`."""

import json
import os
import random
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pandas as pd
import pytest
import torch

from conftest import SMALL, command
from legradnet.checkpoint import read_checkpoint
from legradnet.data.synthetic import write_knees

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
OAI = ROOT.parent / "shared" / "oai"


def test_quickstart_reaches_a_qwk_of_090_and_says_where_everything_is(tmp_path):
    done = command(
        "legradnet-train",
        "experiment=quickstart",
        f"hydra.run.dir={tmp_path}/run",
        timeout=900,
        OMP_NUM_THREADS=str(os.cpu_count()),
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/test_metrics.json").read_text())
    assert metrics["test/qwk"] >= 0.90
    assert "GENERATED" in done.stdout + done.stderr
    for words in ("test/qwk", "best.ckpt", "metrics.csv", "split.csv", "test_metrics.json"):
        assert words in done.stdout


QUICK = ["experiment=quickstart", "data.count=40", "trainer.max_epochs=1"]
RUN = [*SMALL, "data.count=200", "trainer.max_epochs=6", "callbacks.ema_decay=0.9"]


def begin(folder, *extra):
    script = Path(sys.executable).with_name("legradnet-train")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [script, *RUN, f"hydra.run.dir={folder}", *extra],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for(path, process, seconds=120):
    end = time.monotonic() + seconds
    while not path.is_file():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = begin(folder)
    assert process.wait(300) == 0, process.stdout.read()
    return folder


def assert_same_run(run, whole):
    for name in ("metrics.csv", "split.csv", "test_metrics.json"):
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    ours, theirs = (read_checkpoint(folder / "checkpoints/best.ckpt")["state_dict"] for folder in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]


def test_kill_9_at_random_moments_and_resume_equals_never_killed_to_the_last_digit(undisturbed, tmp_path):
    last = tmp_path / "checkpoints/last.ckpt"
    moments = random.Random(5)
    process = begin(tmp_path)
    wait_for(last, process)
    for _ in range(4):
        time.sleep(moments.uniform(0, 1.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        read_checkpoint(last)  # whole, whenever the kill came
        written = last.stat().st_mtime_ns
        process = begin(tmp_path, "ckpt_path=last")
        while last.stat().st_mtime_ns == written and process.poll() is None:
            time.sleep(0.02)
    assert process.wait(300) == 0, process.stdout.read()
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_sigterm_leave_a_checkpoint_to_go_on_from(stop, status, undisturbed, tmp_path):
    process = begin(tmp_path)
    wait_for(tmp_path / "checkpoints/last.ckpt", process)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == status, output
    assert "ckpt_path=last" in output
    assert "Traceback" not in output
    process = begin(tmp_path, "ckpt_path=last")
    assert process.wait(300) == 0, process.stdout.read()
    assert_same_run(tmp_path, undisturbed)


def test_two_gloo_processes_train_together(tmp_path):
    done = command(
        "legradnet-train",
        *SMALL,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "callbacks.ema_decay=0.9",
        f"hydra.run.dir={tmp_path}",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1]
    assert table["step"].tolist() == [2, 4]  # 42 films, 21 a process, 8 a batch
    assert (tmp_path / "test_metrics.json").is_file()


def test_the_wheel_works_outside_the_checkout(trained, knees, tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--no-deps", wheel], check=True, capture_output=True)
    site = next((tmp_path / "env/lib").glob("python*/site-packages"))
    # the heavy dependencies of this environment; a plain path, so its editable install isn't followed
    (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    for name, *arguments in (
        ["train", "--cfg", "job"],
        ["train", *QUICK[:2], "trainer.fast_dev_run=true"],
        ["train", "-m", "tuning=custom", "gating=mha,mean", *QUICK, "hydra.sweeper.n_trials=1"],
        ["predict", best, f"input={knees}"],
        ["evaluate", best, "resamples=20"],
    ):
        script = tmp_path / f"env/bin/legradnet-{name}"
        done = subprocess.run([script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "outputs/train/custom/trials.csv").is_file()
    places = "import legradnet, hydra_plugins.legradnet_optuna as plugin; print(legradnet.__file__, plugin.__file__)"
    shown = subprocess.run([python, "-c", places], capture_output=True, text=True)
    assert [Path(place).is_relative_to(site) for place in shown.stdout.split()] == [True, True]


def full_size_batch(tmp_path, *data):
    done = command(
        "legradnet-train",
        "backbone=all",
        "gating=mha",
        "model.pretrained=false",
        "data.batch_size=2",
        "trainer.fast_dev_run=true",
        "trainer=cpu",
        f"hydra.run.dir={tmp_path}/run",
        *data,
        timeout=900,
        OMP_NUM_THREADS=str(os.cpu_count()),
    )
    assert done.returncode == 0, done.stderr
    assert "went through" in done.stdout + done.stderr


def test_the_five_at_full_size_train_and_validate_on_generated_films_of_224_pixels(tmp_path):
    write_knees(tmp_path / "films", 20, size=224)
    full_size_batch(
        tmp_path, "data=csv", f"data.dataset_path={tmp_path}/films", f"data.csv_path={tmp_path}/films/knees.csv"
    )


@pytest.mark.skipif(not OAI.is_dir(), reason="the real knees are not on this machine")
def test_the_five_at_full_size_train_and_validate_on_real_knees(tmp_path):
    full_size_batch(
        tmp_path, "data=csv", f"data.dataset_path={OAI}", f"data.csv_path={OAI}/knees.csv", "data.verify=header"
    )


@pytest.mark.skipif(not OAI.is_dir(), reason="the real knees are not on this machine")
def test_csv_and_folders_of_the_real_knees_are_the_same_data(tmp_path):
    tables = []
    for name, source in {"csv": ["data=csv", f"data.csv_path={OAI}/knees.csv"], "folder": ["data=folder"]}.items():
        done = command(
            "legradnet-train",
            *SMALL[6:],
            "backbone=vit",
            "backbone.vit.timm_name=tiny_vit",
            "trainer.max_epochs=1",
            *source,
            f"data.dataset_path={OAI}",
            "+trainer.limit_train_batches=1",
            f"hydra.run.dir={tmp_path}/{name}",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        tables.append(pd.read_csv(tmp_path / name / "split.csv", dtype=str).sort_values("filename", ignore_index=True))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].groupby("patient")["split"].nunique().max() == 1


@pytest.mark.parametrize(
    ("name", "left_behind"), [("tensorboard", "tensorboard"), ("mlflow", "mlruns"), ("wandb", "wandb")]
)
def test_loggers_write_beside_metrics_csv(name, left_behind, tmp_path):
    pytest.importorskip(name)
    done = command(
        "legradnet-train", *SMALL, f"logger={name}", f"hydra.run.dir={tmp_path}/run", timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / left_behind).is_dir()
    assert len(pd.read_csv(tmp_path / "run/metrics.csv")) == 2


def test_a_compiled_run_trains_and_its_checkpoint_is_like_any_other(tmp_path):
    one = [*SMALL, "~backbone.swin", "trainer.max_epochs=1"]
    done = command("legradnet-train", *one, "compile=true", f"hydra.run.dir={tmp_path}/run", timeout=900)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert not any("_orig_mod" in name for name in read_checkpoint(best)["state_dict"])
    again = command("legradnet-train", *one, f"init_from={best}", f"hydra.run.dir={tmp_path}/plain")
    assert again.returncode == 0, again.stderr


def test_predictions_killed_and_resumed_equal_predictions_never_killed(trained, tmp_path):
    write_knees(tmp_path / "films", 1200, size=48, seed=5)
    script = Path(sys.executable).with_name("legradnet-predict")
    words = [f"checkpoint={trained}/checkpoints/best.ckpt", f"input={tmp_path}/films"]

    def start(run, *more):
        return subprocess.Popen(
            [script, *words, f"hydra.run.dir={tmp_path}/{run}", *more],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    assert start("whole").wait(300) == 0
    lines = tmp_path / "killed/predictions.jsonl"
    random.seed(0)
    for kill in range(3):
        process = start("killed", *(["resume=true"] if kill else []))
        count = len(lines.read_bytes().splitlines()) if kill else 0
        while not lines.is_file() or len(lines.read_bytes().splitlines()) < count + random.randrange(16, 200):
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert 0 < len(lines.read_bytes().splitlines()) < 1200
    assert start("killed", "resume=true").wait(300) == 0
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
