"""What this machine, and a container around us, let this process use: cores and memory. Whoever counts, counts here."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_PROC = Path("/proc")
_LIMITS = ("memory.max", "memory.limit_in_bytes")  # of control groups, version 2 and 1
_ELSEWHERE = 4 * 1024**3  # where the system doesn't tell


def cores() -> int:
    """Cores that this process may use: those that it is bound to, and no more than its container's quota allows.

    A quota of one and a half is two: the second is there half of the time.
    """
    return max(1, min([_bound(), *map(math.ceil, _quotas())]))


def quota() -> int | None:
    """Threads to tell a library that knows of no quota; None where there is none below the cores that it counts."""
    return count if (count := cores()) < _bound() else None


def memory() -> int:
    """Bytes that this process can hope for: what the machine has free, and no more than its container allows."""
    limits = [limit for group in _groups("memory") for name in _LIMITS for limit in _numbers(group, name)]
    with suppress(OSError, IndexError, ValueError):
        free = _PROC.joinpath("meminfo").read_text().partition("MemAvailable:")[2].split()[0]
        limits.append(1024 * int(free))
    return min(limits, default=_ELSEWHERE)


def _bound() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quotas() -> Iterator[float]:
    """Cores that each control group around us may use at once, where it says so."""
    for group in _groups("cpu"):
        quota = _numbers(group, "cpu.max") or _numbers(group, "cpu.cfs_quota_us") + _numbers(group, "cpu.cfs_period_us")
        if len(quota) == 2 and quota[1] > 0:  # no number, or -1: none is set
            yield quota[0] / quota[1]


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control groups that we are in, of both versions; inside a container some aren't to be seen."""
    with suppress(OSError):
        for line in _PROC.joinpath("self", "cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and controller not in controllers.split(","):
                continue
            for mount in [controllers, controller] if controllers else ["", "unified"]:
                inner = _CGROUPS / mount / path.lstrip("/")
                yield from (group for group in (inner, *inner.parents) if group.is_relative_to(_CGROUPS / mount))


def _numbers(group: Path, name: str) -> list[int]:
    """The positive numbers in a group's file; none where there is no file, or no limit."""
    with suppress(OSError, ValueError):
        return [number for number in map(int, group.joinpath(name).read_text().split()) if number > 0]
    return []
