"""The house stays as it is drawn: rooms above each other, no circle, no file that wants scrolling."""

import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "legradnet"
ROOMS = sorted(path.parent.name for path in SOURCE.glob("*/run.py"))


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("legradnet", exclude_type_checking_imports=True, cache_dir=None)


def test_rooms_stand_above_all_that_they_import_and_know_nothing_of_what_is_not_theirs():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_no_module_imports_itself_by_way_of_others(graph):
    late = {"importer": "legradnet.grading.grader", "imported": "legradnet.explain.film"}  # by `Grader.explain`
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            if {"importer": importer, "imported": imported} != late:
                back = graph.find_shortest_chain(imported, importer)
                assert back is None or late["importer"] in back, [importer, *back]


def test_every_command_enters_by_the_run_of_its_room(graph):
    commands = {path.stem for path in (SOURCE / "cli").glob("[a-z]*.py")}
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert {name.removeprefix("legradnet-") for name in scripts} == commands
    for command in commands:
        entries = graph.find_modules_directly_imported_by(f"legradnet.cli.{command}")
        runs = {name for name in entries if name.endswith(".run")}
        assert len(runs) == 1, (command, entries)
    assert {name.split(".")[1] for name in graph.modules if name.endswith(".run")} == set(ROOMS)


def test_no_file_is_longer_than_320_lines():
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    lengths = {path: len(path.read_text().splitlines()) for path in files}
    assert not {str(path): length for path, length in lengths.items() if length > 320}


def test_at_most_twelve_modules_lie_loose_beside_the_rooms():
    assert len([path for path in SOURCE.glob("*.py") if path.stem != "__init__"]) <= 12


def test_no_two_files_of_tests_share_a_name():
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))  # pytest collects both only where each is in a package
