"""`legradnet-train`: train the ensemble."""

from typing import Any

from legradnet.cli import run


def _train(config: dict[str, Any], run_folder: str) -> float:
    from legradnet.training import train  # late: --help and --cfg must not wait for torch

    return train(config, run_folder)


def main() -> None:
    """Entry point of the console script."""
    run("train", _train)
