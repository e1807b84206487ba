"""`legradnet-predict`: grade new films."""

from typing import Any

from legradnet.cli import run


def _predict(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.predicting import predict  # late: --help and --cfg must not wait for torch

    if not predict(config, run_folder):
        raise SystemExit(1)


def main() -> None:
    """Entry point of the console script."""
    run("predict", _predict)
