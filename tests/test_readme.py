"""The pages are true where a test can tell: links, commands, keys, lines of Python."""

import re
import shlex
import shutil
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep
from omegaconf import OmegaConf

from legradnet.cli import config_folder

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for pattern in (
        "*.md",
        "[!.]*/README.md",
        "tests/benchmarks/README.md",
        ".github/*.md",
        "src/legradnet/models/*/README.md",
        "src/legradnet/hospital/README.md",
    )
    for path in sorted(ROOT.glob(pattern))
}
COMMANDS = (
    *("train", "predict", "evaluate", "explain", "export", "benchmark", "synthesize", "view", "crop", "calibrate"),
    *("pretrain", "node"),
)
ROW = re.compile(r"^\| `([\w.<>]+)` \| ([^|]*) \|", re.MULTILINE)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!http)([^)]+)\)")
each_page = pytest.mark.parametrize("page", PAGES)


def without_blocks(text):
    """A page without its blocks of code."""
    return re.sub(r"^    .*$", "", re.sub(r"(?ms)^```.*?^```$", "", text), flags=re.MULTILINE)


def anchors(text):
    """What `#` may lead to: a heading in small letters, its spaces as hyphens, without other signs."""
    headings = re.findall(r"^#+ (.*)$", without_blocks(text), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def lines_of(command):
    """(page, words) of each line that calls a command, in blocks of code."""
    for page, text in PAGES.items():
        for line in re.findall(rf"^ +(?:\S*/)?legradnet-{command}( .*)?$", text, re.MULTILINE):
            yield page, shlex.split(line)


def composed(command, overrides):
    """The config of a command, Hydra's own part too."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose(command, overrides, return_hydra_config=True)


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def first_value(override):
    """An override of a sweep as one of its first job."""
    if not override.is_sweep_override():
        return override.input_line
    if isinstance(override.value(), IntervalSweep):
        return f"{override.get_key_element()}={override.value().start}"
    return f"{override.get_key_element()}={next(override.sweep_string_iterator())}"


def test_readme_is_one_page():
    assert len((ROOT / "README.md").read_bytes()) <= 9 * 1024


def test_both_set_up_commands_are_in_readme_and_ci_runs_the_one_with_the_tests():
    start = "python3 -m venv .venv && .venv/bin/pip install -e "
    assert f"    {start}. && .venv/bin/legradnet-train experiment=quickstart\n" in PAGES["README.md"]
    assert f"    {start}'.[dev]' && .venv/bin/pytest\n" in PAGES["README.md"]
    assert "pip install -e '.[dev]'" in (ROOT / ".ci/run").read_text()


@each_page
def test_links_lead_to_files_and_headings_that_are_there(page):
    for target in LINK.findall(PAGES[page]):
        path, _, anchor = target.partition("#")
        there = (ROOT / page).parent / path if path else ROOT / page
        assert there.is_file(), target
        assert not anchor or anchor in anchors(there.read_text()), target


def test_every_page_is_reached_from_readme():
    reached, waiting = set(), ["README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        found = [((ROOT / page).parent / link.partition("#")[0]).resolve() for link in LINK.findall(PAGES[page])]
        names = {str(path.relative_to(ROOT)) for path in found if path.suffix == ".md"}
        waiting += names - reached
    assert reached == set(PAGES)


def test_the_page_of_the_house_names_every_room():
    beside = [path for path in (ROOT / "src/legradnet").iterdir() if not path.name.startswith(("_", "py."))]
    rooms = [f"{path.name}/" if path.is_dir() else path.name for path in beside]
    assert not [room for room in rooms if f"`{room}`" not in PAGES["src/README.md"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_on_the_pages_compose(command, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text("# @package _global_\nseed: 3\n")
    lines = list(lines_of(command))
    assert lines
    for page, words in lines:
        overrides = [word for word in words if not word.startswith("-")]
        if "--config-dir" in words:
            overrides.remove(words[words.index("--config-dir") + 1])
            overrides.append(f"hydra.searchpath=[file://{tmp_path}]")
        parsed = OverridesParser.create().parse_overrides(overrides)
        assert "-m" in words or not any(override.is_sweep_override() for override in parsed), (page, words)
        composed(command, [first_value(override) for override in parsed])


@pytest.fixture(scope="module")
def known_keys():
    """Every key of every command, of every choice of its groups, and the groups themselves."""
    known = set()
    for command in COMMANDS:
        config = OmegaConf.to_container(composed(command, []), resolve=False)
        known |= {key for key, _ in leaves(config)}
    sweeper = yaml.safe_load((config_folder() / "hydra/sweeper/legradnet_optuna.yaml").read_text())
    known |= {f"hydra.sweeper.{key}" for key, _ in leaves(sweeper)}
    for path in config_folder().glob("*/*.yaml"):
        known |= {f"{path.parent.name}.{key}" for key, _ in leaves(yaml.safe_load(path.read_text()) or {})}
    known |= {re.sub(r"^backbone\.\w+\.", "backbone.<key>.", key) for key in known}
    known |= {".".join(key.split(".")[:n]) for key in known for n in range(1, key.count(".") + 1)}
    return known | {"data.source", "model.safetensors"}  # the latter a file


@each_page
def test_keys_that_a_page_names_exist(page, known_keys):
    groups = {key.partition(".")[0] for key in known_keys if "." in key} - {"hydra"}
    text, seed, table = without_blocks(PAGES[page]).partition("## Coming from the seed")
    table = re.sub(r"^\|[^|]*\|", "|", table, flags=re.MULTILINE)  # its first column names the seed's keys
    named = []
    for code in CODE.findall(text + seed + table):
        for word in code.split():
            key, equals, value = re.match(r"'?([\w.<>/]*)(=?)(.*)", word).groups()
            if value == "True":
                continue  # Python's
            if (key.partition(".")[0] in groups and "." in key) or key.startswith("hydra.sweeper.") or equals:
                named.append(re.sub(r"^backbone\.(?!<)\w+\.", "backbone.<key>.", key).replace("/", "."))
    assert not [key for key in named if key and key.rstrip(".") not in known_keys]


@pytest.mark.parametrize("command", ["evaluate", "export", "benchmark"])
def test_tables_list_every_key_with_its_default(command):
    config = yaml.safe_load((config_folder() / f"{command}.yaml").read_text())
    own = dict(leaves({"data": config["data"]})) | ({} if command == "benchmark" else {"data.source": "own"})
    defaults = {key: value for key, value in config.items() if key not in ("defaults", "data", "model", "hydra")} | own
    listed = {key: yaml.safe_load(value) for key, value in ROW.findall(section(f"legradnet-{command}"))}
    assert listed == {key: "needed" if value == "???" else value for key, value in defaults.items()}


def section(heading):
    """A section of the page of keys."""
    return PAGES["conf/README.md"].split(f"\n## {heading}\n")[1].split("\n## ")[0]


@each_page
def test_lines_of_python_run(page, trained, knees, tmp_path, monkeypatch):
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGES[page], re.MULTILINE | re.DOTALL)
    if not blocks:
        return
    shutil.copytree(trained, tmp_path / "RUN")
    shutil.copytree(knees, tmp_path / "FILMS")
    shutil.copy(next(knees.glob("*.png")), tmp_path / "knee.dcm")  # a film is known by its content
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, page, "exec"), {})
