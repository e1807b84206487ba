"""Searches with other launchers, two processes, real signals: minutes each."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from typed_sweeps import ONE

from small_runs import command

PRETENDED = Path(__file__).with_name("pretended.py")
QUICK = ["hydra.sweeper.heartbeat_interval=0.5", "hydra.sweeper.grace_period=4"]
CUSTOM = ["-m", "tuning=custom", "hydra.sweeper.seed=1", *QUICK]
RATES = "optimizer.learning_rate=tag(log,interval(1e-5,1e-2))"
PRUNE = ["hydra.sweeper.pruner.name=median", "+hydra.sweeper.pruner.n_startup_trials=1"]
KNOWN = "hydra.sweeper.enqueue=[{optimizer.learning_rate: 1e-3},{optimizer.learning_rate: 1e-5}]"


def begin(folder, *arguments, **environment):
    return subprocess.Popen(
        [sys.executable, PRETENDED, *CUSTOM, *arguments, f"hydra.sweep.dir={folder}"],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder, *arguments, status=0, **environment):
    process = begin(folder, *arguments, **environment)
    output, _ = process.communicate(timeout=400)
    assert process.returncode == status, output
    return output


def table(folder):
    return pd.read_csv(folder / "trials.csv")


def wait_for(path, process):
    end = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.by_hand
@pytest.mark.parametrize(
    "launcher",
    [
        [],
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweeper.n_jobs=1"],
        ["hydra/launcher=submitit_local"],
    ],
    ids=["basic", "joblib", "submitit"],
)
def test_pruned_is_pruned_with_every_launcher(launcher, tmp_path):
    secret = {"LEGRADNET_STORAGE": f"journal:{tmp_path}/s3cret.log"}
    storage = "hydra.sweeper.storage='${oc.env:LEGRADNET_STORAGE}'"
    settings = [*PRUNE, RATES, KNOWN, "trainer.max_epochs=4", "hydra.sweeper.n_trials=2", storage]
    finish(tmp_path / "sweep", *launcher, *settings, **secret)
    found = table(tmp_path / "sweep")
    assert found["state"].tolist() == ["complete", "pruned"]
    assert pd.read_csv(tmp_path / "sweep/trial_0/metrics.csv")["epoch"].tolist() == [0, 1, 2, 3]
    assert pd.read_csv(tmp_path / "sweep/trial_1/metrics.csv")["epoch"].tolist() == [0]
    files = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize(
    "launcher",
    [pytest.param("joblib", marks=pytest.mark.slow), pytest.param("submitit_local", marks=pytest.mark.by_hand)],
)
def test_a_killed_job_is_tried_again_and_the_search_goes_on(launcher, tmp_path):
    rates = "optimizer.learning_rate=choice(1e-4,1e-3,1e-2)"
    settings = [f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2", "hydra.sweeper.sampler.name=grid"]
    finish(tmp_path, *settings, rates, "+trainer.pretend.kill=5e-3", "trainer.max_epochs=2")
    found = table(tmp_path)
    done = found[found["state"] == "complete"]
    assert sorted(done["optimizer.learning_rate"].astype(float)) == [1e-4, 1e-3, 1e-2]
    assert (tmp_path / "killed").exists()
    lost = found[found["state"] == "fail"]
    assert lost["reason"].tolist() == ["no sign of life"] * len(lost) and len(lost)


@pytest.mark.parametrize(
    ("stop", "status"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, -signal.SIGTERM, marks=pytest.mark.by_hand),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, marks=pytest.mark.slow),
    ],
    ids=["ctrl-c", "sigterm", "kill-9"],
)
def test_a_stopped_search_goes_on_with_the_same_command(stop, status, tmp_path):
    settings = [RATES, "hydra.sweeper.n_trials=3", "trainer.max_epochs=4", "+trainer.pretend.seconds=0.5"]
    process = begin(tmp_path, *settings)
    wait_for(tmp_path / "trial_1/metrics.csv", process)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=100)
    assert process.returncode in (status, 128 + stop), output
    if stop == signal.SIGINT:
        assert "Traceback" not in output
        assert "the same command" in output
    first = tmp_path / "trial_0/metrics.csv"
    written = first.stat().st_mtime_ns
    finish(tmp_path, *settings)
    assert first.stat().st_mtime_ns == written
    found = table(tmp_path)
    assert (found["state"] == "complete").sum() == 3
    assert found.loc[found["number"] == 1, "state"].item() == "fail"
    lost = found.loc[found["number"] == 1, "optimizer.learning_rate"].item()
    again = found[found["origin"] == "again:1"]
    assert again["optimizer.learning_rate"].tolist() == [lost] and again["state"].tolist() == ["complete"]


@pytest.mark.by_hand
def test_a_pruned_trial_of_two_processes_stops_both(tmp_path):
    ddp = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.max_epochs=6"]
    threshold = ["hydra.sweeper.pruner.name=successive_halving", "+hydra.sweeper.pruner.min_resource=1"]
    known = "hydra.sweeper.enqueue=[{optimizer.learning_rate: 1e-3},{optimizer.learning_rate: 1e-9}]"
    arguments = [*ONE, *ddp, *threshold, "+hydra.sweeper.pruner.reduction_factor=2", known]
    done = command(
        "legradnet-train",
        *CUSTOM[:2],
        *arguments,
        "optimizer.learning_rate=tag(log,interval(1e-9,1e-2))",
        "hydra.sweeper.n_trials=2",
        f"hydra.sweep.dir={tmp_path}",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found = table(tmp_path)
    assert set(found["state"]) <= {"complete", "pruned"} and len(found) == 2, found
    for row in found.itertuples():
        epochs = pd.read_csv(tmp_path / f"trial_{row.number}/metrics.csv")["epoch"]
        assert len(epochs) == (6 if row.state == "complete" else row.pruned_at + 1)
    pruned = (found["state"] == "pruned").sum()
    assert pruned and (done.stdout + done.stderr).count(": pruned.") == pruned
    assert "no longer improved" not in done.stdout + done.stderr
