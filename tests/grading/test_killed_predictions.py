import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from legradnet.data.synthetic import write_knees
from slow_films import many_scans


@pytest.mark.slow
def test_predictions_killed_and_resumed_equal_predictions_never_killed(trained, tmp_path):
    write_knees(tmp_path / "films", 600, size=48, seed=5)
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
    for kill in range(2):
        process = start("killed", *(["resume=true"] if kill else []))
        count = len(lines.read_bytes().splitlines()) if kill else 0
        wanted = count + random.randrange(16, 200)
        while not lines.is_file() or len(lines.read_bytes().splitlines()) < wanted:
            assert process.poll() is None
            time.sleep(0.002)
        process.kill()
        process.wait()
    assert 0 < len(lines.read_bytes().splitlines()) < 600
    assert start("killed", "resume=true").wait(300) == 0
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
def test_an_interrupt_waits_for_no_decoder_and_leaves_no_reader(trained, tmp_path):
    (tmp_path / "films").mkdir()
    slow = many_scans(2000, (4000, 4000))
    for film in range(40):  # more than are through before a busy machine has started two readers
        (tmp_path / f"films/{film}.jpg").write_bytes(slow)
    script = Path(sys.executable).with_name("legradnet-predict")
    words = [f"checkpoint={trained}/checkpoints/best.ckpt", f"input={tmp_path}/films", "num_workers=4"]
    environment = {**os.environ, "PYTHONFAULTHANDLER": "1"}
    process = subprocess.Popen(
        [script, *words, f"hydra.run.dir={tmp_path}/run"], stderr=subprocess.PIPE, env=environment
    )
    while len(readers := children(process.pid)) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # they decode
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    try:
        assert b"stopped" in process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGABRT)
        pytest.fail(f"it did not end, and stood at\n{process.communicate(timeout=10)[1].decode()}")
    assert process.returncode == 130
    assert time.monotonic() - start < 4  # two on a machine that does nothing else
    assert not any(Path(f"/proc/{reader}/cmdline").exists() for reader in readers)


def children(process):
    """Processes that any thread of a process has started."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*"):
        with suppress(OSError):
            found += (thread / "children").read_text().split()
    return found
