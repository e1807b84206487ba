"""`legradnet-evaluate`: measure a checkpoint on labelled films."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _evaluate(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.evaluation.run import evaluate  # late: --help and --cfg must not wait for torch

    evaluate(config, run_folder)


def _keys() -> Iterable["Key"]:
    from legradnet.evaluation.settings import EvaluateSettings  # late too
    from legradnet.settings import keys

    return keys(EvaluateSettings)


def main() -> None:
    """Entry point of the console script."""
    run("evaluate", _evaluate, _keys)
