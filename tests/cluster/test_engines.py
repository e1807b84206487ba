"""What the page says for those who have Spark or Ray grades every film as one command does."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from exports import exported, needs_runtimes
from legradnet import Grader

pytestmark = [pytest.mark.by_hand, needs_runtimes, pytest.mark.timeout(1800)]
PAGE = Path(__file__).parents[2] / "notebooks/README.md"
PROGRAMS = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def films(knees, best, tmp_path_factory):
    """A folder with an export, a list of 40 films and of one that is none, and what one process says of them."""
    folder = tmp_path_factory.mktemp("films")
    exported(Path(best), folder / "export")
    names = [*map(str, sorted(knees.glob("*.png"))), str(folder / "none.png")]
    pd.DataFrame({"filename": names, "more": "x"}).to_csv(folder / "list.csv", index=False)
    grader = Grader.load(folder / "export", threads=1)
    return folder, names, [grader.grade(name) for name in names[:-1]]


@pytest.mark.parametrize(("engine", "program"), [*zip(("pyspark", "ray"), PROGRAMS, strict=True)])
def test_an_engine_grades_each_film_of_a_list_as_one_process_does(engine, program, films, tmp_path):
    if not find_spec(engine):
        pytest.skip(f"{engine} is not installed")
    folder, names, alone = films
    (tmp_path / "by_engine.py").write_text(program)
    command = [sys.executable, "by_engine.py", str(folder / "list.csv"), str(folder / "export"), str(tmp_path / "out")]
    own = {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, **own}, capture_output=True, text=True, timeout=1500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = pd.read_parquet(tmp_path / "out").set_index("filename").loc[names].fillna({"error": ""})
    assert len(rows) == len(names) and rows.index.is_unique
    for (_, row), grading in zip(rows.iterrows(), alone, strict=False):
        assert (row["grade"], row["referred"], row["reason"]) == (grading.grade, grading.referred, grading.reason)
        np.testing.assert_allclose(row["probabilities"], grading.probabilities, atol=1e-5)
    assert not any(rows["error"][:-1]) and "none.png" in rows["error"].iloc[-1]
