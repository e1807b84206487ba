"""README is true where a test can tell."""

import re
import shlex
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from legradnet.config import config_folder

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROW = re.compile(r"^\| `([\w.<>]+)` \| ([^|]*) \|", re.MULTILINE)


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_readme_lists_every_key_with_its_default():
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        config = OmegaConf.to_container(hydra.compose("train", ["backbone=vit"]), resolve=False)
    defaults = {key.replace("backbone.vit.", "backbone.<key>."): value for key, value in leaves(config)}
    for group in ("gating", "loss", "scheduler"):  # keys that only another choice of the group has
        for path in config_folder().glob(f"{group}/*.yaml"):
            defaults = {f"{group}.{k}": v for k, v in yaml.safe_load(path.read_text()).items()} | defaults
    table = README[README.index("## Every key") : README.index("`legradnet-predict`:")]
    listed = dict(ROW.findall(table))
    assert listed.keys() == defaults.keys()
    del defaults["backbone.<key>.timm_name"]
    assert {key: yaml.safe_load(listed[key]) for key in defaults} == defaults


@pytest.mark.parametrize(
    ("command", "until"),
    [
        ("predict", "`legradnet-explain`:"),
        ("explain", "`legradnet-benchmark`, beside"),
        ("benchmark", "`legradnet-evaluate`, beside"),
        ("evaluate", "`legradnet-export`, with"),
        ("export", "## Coming from"),
    ],
)
def test_readme_lists_every_key_of_the_other_commands_with_its_default(command, until):
    config = yaml.safe_load((config_folder() / f"{command}.yaml").read_text())
    own = {"data.source": "own"} if command in ("evaluate", "export") else dict(leaves({"data": config["data"]}))
    defaults = {key: value for key, value in config.items() if key not in ("defaults", "data", "model", "hydra")} | own
    begin = README.index(f"`legradnet-{command}`", README.index("## Every key"))
    listed = {key: yaml.safe_load(value) for key, value in ROW.findall(README[begin : README.index(until)])}
    assert listed == {key: "needed" if value == "???" else value for key, value in defaults.items()}


def test_both_set_up_commands_are_in_readme_and_ci_runs_the_one_with_the_tests():
    start = "python3 -m venv .venv && .venv/bin/pip install -e "
    assert f"{start}. && .venv/bin/legradnet-train experiment=quickstart" in README
    assert f"{start}'.[dev]' && .venv/bin/pytest" in README
    assert "pip install -e '.[dev]'" in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("target", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_files_that_readme_links_to_exist(target):
    assert (ROOT / target).is_file()


def test_commands_in_readme_compose():
    commands = re.findall(
        r"^    legradnet-(train|predict|evaluate|explain|benchmark|export) (?!-)(.*)$", README, re.MULTILINE
    )
    assert len(commands) > 7
    for name, command in commands:
        overrides = [word for word in shlex.split(command) if not word.startswith("hydra.")]
        GlobalHydra.instance().clear()
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            hydra.compose(name, overrides)
