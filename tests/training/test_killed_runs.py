"""Real kills of real runs."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from legradnet.checkpoint import read_checkpoint
from small_runs import SMALL, made_once

pytestmark = pytest.mark.slow


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


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    def run(folder):
        process = begin(folder)
        assert process.wait(300) == 0, process.stdout.read()

    return made_once(tmp_path_factory, "undisturbed", run)


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
    for _ in range(3):  # two epochs each at most, of six: every kill finds the run at work
        time.sleep(moments.uniform(0, 0.2))
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        read_checkpoint(last)  # whole, whenever the kill came
        written = last.stat().st_mtime_ns
        process = begin(tmp_path, "ckpt_path=last")
        while last.stat().st_mtime_ns == written:
            assert process.poll() is None, process.stdout.read()
            time.sleep(0.02)
    assert process.wait(300) == 0, process.stdout.read()
    assert_same_run(tmp_path, undisturbed)


@pytest.mark.parametrize(("stop", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"])
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
