"""`legradnet-explain`: show where in a film the evidence for its grade lies."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _explain(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.explain.run import explain  # late: --help and --cfg must not wait for torch

    if not explain(config, run_folder):
        raise SystemExit(1)


def _keys() -> Iterable["Key"]:
    from legradnet.explain.settings import ExplainSettings  # late too
    from legradnet.settings import keys

    return keys(ExplainSettings)


def main() -> None:
    """Entry point of the console script."""
    run("explain", _explain, _keys)
