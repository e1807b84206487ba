"""`legradnet-node`: a DICOM service beside a PACS."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _node(config: dict[str, Any], _: str) -> None:
    from legradnet.hospital.run import node  # late: --help and --cfg must not wait for it

    node(config)


def _keys() -> Iterable["Key"]:
    from legradnet.hospital.settings import NodeSettings  # late too
    from legradnet.settings import keys

    return keys(NodeSettings)


def main() -> None:
    """Entry point of the console script."""
    run("node", _node, _keys)
