"""`legradnet-benchmark`: measure this machine and advise settings for training on it."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _benchmark(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.benchmark.run import benchmark  # late: --help and --cfg must not wait for torch

    benchmark(config, run_folder)


def _keys() -> Iterable["Key"]:
    from legradnet.benchmark.settings import BenchmarkSettings  # late too
    from legradnet.settings import keys

    return keys(BenchmarkSettings)


def main() -> None:
    """Entry point of the console script."""
    run("benchmark", _benchmark, _keys)
