"""`legradnet-export`: make a folder of a checkpoint that grades without torch."""

from typing import Any

from legradnet.cli import run


def _export(config: dict[str, Any], _: str) -> None:
    from legradnet.export.run import export  # late: --help and --cfg must not wait for torch

    export(config)


def main() -> None:
    """Entry point of the console script."""
    run("export", _export)
