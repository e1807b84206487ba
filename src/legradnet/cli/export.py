"""`legradnet-export`: make a folder of a checkpoint that grades without torch."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _export(config: dict[str, Any], _: str) -> None:
    from legradnet.export.run import export  # late: --help and --cfg must not wait for torch

    export(config)


def _keys() -> Iterable["Key"]:
    from legradnet.export.settings import ExportSettings  # late too
    from legradnet.settings import keys

    return keys(ExportSettings)


def main() -> None:
    """Entry point of the console script."""
    run("export", _export, _keys)
