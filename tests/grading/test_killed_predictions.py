import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from legradnet.data.synthetic import write_knees


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
