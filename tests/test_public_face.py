"""What `import legradnet` gives, and what a package index would show."""

import subprocess
import sys
import tomllib
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

import legradnet

ROOT = Path(__file__).parents[1]
NAMES = {"Grader", "Grading", "GradingModule", "ImageError", "KneeDataModule", "KneeEnsemble", "UserError"}


def test_every_public_name_is_listed_and_documented():
    assert set(legradnet.__all__) == NAMES
    assert {*NAMES, "__version__"} <= set(dir(legradnet))
    for name in NAMES:
        value = getattr(legradnet, name)
        assert value.__name__ == name
        assert value.__doc__
    assert issubclass(legradnet.UserError, ValueError)
    with pytest.raises(AttributeError, match="no attribute 'Graders'"):
        _ = legradnet.Graders


def test_the_version_is_that_of_the_package():
    assert legradnet.__version__ == version("legradnet")


def test_importing_loads_nothing_slow_before_a_name_is_used():
    program = (
        "import sys, legradnet\n"
        "dir(legradnet), legradnet.__version__, legradnet.UserError, legradnet.Grader, legradnet.Grading\n"
        "slow = {'torch', 'timm', 'lightning', 'hydra', 'pandas', 'matplotlib'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_grader_loads_a_checkpoint_an_export_or_several(trained, knees, typed, tmp_path):
    film = next(knees.glob("*.png"))
    checkpoint = trained / "checkpoints/best.ckpt"
    alone = legradnet.Grader.load(checkpoint, precision="f32").grade(film)
    assert isinstance(alone, legradnet.Grading)
    several = legradnet.Grader.load([checkpoint, checkpoint], precision="f32").grade(film)
    assert several.probabilities == pytest.approx(alone.probabilities, abs=1e-6)
    if find_spec("onnxruntime") is None:
        pytest.skip("the runtimes are missing: pip install -e '.[export]'")
    done = typed("legradnet-export", f"checkpoint={checkpoint}", f"output={tmp_path}/export", "format=onnx")
    assert done.returncode == 0, done.stderr
    exported = legradnet.Grader.load(tmp_path / "export", threads=1).grade(film)
    assert exported.probabilities == pytest.approx(alone.probabilities, abs=1e-4)


def test_the_package_says_what_it_is_without_an_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"description", "readme", "license", "authors", "keywords", "classifiers", "requires-python"} <= set(project)
    assert "Typing :: Typed" in project["classifiers"]
    assert (ROOT / "src/legradnet/py.typed").is_file()
    assert "urls" not in project
    assert "://" not in str(project)
