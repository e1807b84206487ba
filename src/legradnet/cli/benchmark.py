"""`legradnet-benchmark`: measure this machine and advise settings for training on it."""

from typing import Any

from legradnet.cli import run


def _benchmark(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.benchmark.run import benchmark  # late: --help and --cfg must not wait for torch

    benchmark(config, run_folder)


def main() -> None:
    """Entry point of the console script."""
    run("benchmark", _benchmark)
