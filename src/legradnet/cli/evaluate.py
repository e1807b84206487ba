"""`legradnet-evaluate`: measure a checkpoint on labelled films."""

from typing import Any

from legradnet.cli import run


def _evaluate(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.evaluation.run import evaluate  # late: --help and --cfg must not wait for torch

    evaluate(config, run_folder)


def main() -> None:
    """Entry point of the console script."""
    run("evaluate", _evaluate)
