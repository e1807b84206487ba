"""Hostile inputs break nothing, and the tool that makes them would see it if they did."""

import os
import time

import pytest

import hostile
from hostile_inputs import Outcome

FAULTS = {"crashes", "hangs", "tracebacks", "rows lost", "changed"}


class Healthy:
    def __init__(self, folder, healthy):
        self.folder = folder

    def attack(self, rng):
        return Outcome(told=True)


class Dies(Healthy):
    def attack(self, rng):
        os._exit(1)


class Hangs(Healthy):
    def attack(self, rng):
        time.sleep(60)


class HangsOnce(Healthy):
    def attack(self, rng):
        if not (self.folder.parent.parent / "hung").exists():
            (self.folder.parent.parent / "hung").touch()
            time.sleep(60)
        return Outcome()


class Raises(Healthy):
    def attack(self, rng):
        raise ZeroDivisionError


class Loses(Healthy):
    def attack(self, rng):
        return Outcome(told=True, lost=2, changed="a film")


@pytest.mark.slow
def test_the_tool_counts_whatever_breaks_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(hostile, "HANG", 1.0)
    kinds = {kind.__name__: kind for kind in (Healthy, Dies, Hangs, HangsOnce, Raises, Loses)}
    tallies, faults = hostile.attack(None, tmp_path, len(kinds), attackers=kinds)
    assert {kind: dict(tally) for kind, tally in tallies.items()} == {
        "Healthy": {"inputs": 1, "told": 1},
        "Dies": {"inputs": 1, "crashes": 1},
        "Hangs": {"inputs": 1, "hangs": 1},
        "HangsOnce": {"inputs": 1},
        "Raises": {"inputs": 1, "tracebacks": 1},
        "Loses": {"inputs": 1, "told": 1, "rows lost": 2, "changed": 1},
    }
    page = hostile.page(tallies, faults)
    assert all(f"{fault} by input" in page for fault in FAULTS)
    assert "ZeroDivisionError" in page


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(120, marks=pytest.mark.slow),
        pytest.param(10_000, marks=[pytest.mark.by_hand, pytest.mark.timeout(7200)]),
    ],
)
def test_nothing_crashes_hangs_raises_loses_a_row_or_changes_a_grade(tmp_path, count):
    pytest.importorskip("openvino", reason="pip install -e '.[export]'")
    pytest.importorskip("gdcm", reason="compressed DICOM is made with python-gdcm")
    tallies, faults = hostile.attack(hostile.make_materials(tmp_path), tmp_path, count)
    assert not faults, hostile.page(tallies, faults)
    assert all(tally["inputs"] for tally in tallies.values())
