"""Cores and memory are what affinity and the container around us leave."""

import os

import pytest

from legradnet import machine

GIB = 1024**3


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A made-up machine of 8 free cores; gives a function that writes its files."""
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)

    def write(**files):
        for name, text in {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {16 * 1024**2} kB\n", **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_without_a_container_all_cores_are_ours_that_we_are_bound_to(system):
    assert machine.cores() == 8
    system(**{"proc/self/cgroup": "0::/\n4:cpu,cpuacct:/\n", "cgroup/cpu.max": "max 100000"})
    assert machine.cores() == 8
    assert machine.memory() == 16 * GIB


@pytest.mark.parametrize(
    ("quota", "cores"), [("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("9900000 100000", 8)]
)
@pytest.mark.parametrize("folder", ["", "a/", "a/b/"])
def test_a_quota_of_any_group_around_us_counts(system, quota, cores, folder):
    system(**{"proc/self/cgroup": "0::/a/b\n", f"cgroup/{folder}cpu.max": quota})
    assert machine.cores() == cores
    assert machine.quota() == (cores if cores < 8 else None)


@pytest.mark.parametrize("path", ["/", "/docker/0123"])
@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_so_does_one_of_version_one(system, path, folder):
    files = {"proc/self/cgroup": f"4:cpu,cpuacct:{path}\n"}
    system(**files, **{f"cgroup/{folder}/cpu.cfs_quota_us": "-1", f"cgroup/{folder}/cpu.cfs_period_us": "100000"})
    assert machine.cores() == 8
    system(**{f"cgroup/{folder}/cpu.cfs_quota_us": "300000"})
    assert machine.cores() == 3


@pytest.mark.parametrize(("group", "name"), [("", "memory.max"), ("memory/", "memory.limit_in_bytes")])
def test_memory_is_what_is_free_and_allowed(system, group, name):
    system(**{"proc/self/cgroup": "0::/a\n5:memory:/a\n", f"cgroup/{group}a/{name}": str(3 * GIB)})
    assert machine.memory() == 3 * GIB
    system(**{f"cgroup/{group}a/{name}": str(300 * GIB)})
    assert machine.memory() == 16 * GIB


def test_readers_loaders_and_checks_count_alike():
    from legradnet.data import checks, datamodule
    from legradnet.grading import preparing

    assert checks.cores is datamodule.cores is preparing.cores is machine.cores
