"""Films to be cached or listed."""

import shutil
from pathlib import Path

import pytest

from legradnet.data import cache as caching
from legradnet.data.synthetic import write_knees
from small_runs import made_once


@pytest.fixture
def settled(monkeypatch):
    """Films that were written just now count as old; the wait has a test of its own."""
    monkeypatch.setattr(caching, "SETTLED", 0.0)


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    return made_once(tmp_path_factory, "drawn", lambda folder: write_knees(folder, 60, size=48, seed=5))


@pytest.fixture
def films(drawn, settled, tmp_path):
    """60 films of 48 px, each another one."""
    return Path(shutil.copytree(drawn, tmp_path / "films"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    return tmp_path / "films"
