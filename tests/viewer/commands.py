"""The command `legradnet-view` as it is installed, on a run that is made up."""

import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from readings import said, write_film


def predicted_run(folder):
    """A predict run of four films whose checkpoint is gone."""
    run = folder / "predicted"
    (run / ".hydra").mkdir(parents=True)
    (folder / "films").mkdir()
    for i in range(4):
        write_film(folder / "films", f"knee{i}.png", seed=i)
    (run / ".hydra/config.yaml").write_text(f"checkpoint: none.ckpt\ninput: {folder}/films\n")
    lines = [said(f"knee{i}.png", i) for i in range(4)]
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


@contextmanager
def started(*arguments, cwd):
    """The command, and the address of its first reader."""
    process = subprocess.Popen(
        [Path(sys.executable).with_name("legradnet-view"), *arguments, "browser=false"],
        cwd=cwd, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line):
                break
        else:
            raise AssertionError(f"no address; exit status {process.wait()}")
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
