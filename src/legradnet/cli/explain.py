"""`legradnet-explain`: show where in a film the evidence for its grade lies."""

from typing import Any

from legradnet.cli import run


def _explain(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.explain.run import explain  # late: --help and --cfg must not wait for torch

    if not explain(config, run_folder):
        raise SystemExit(1)


def main() -> None:
    """Entry point of the console script."""
    run("explain", _explain)
