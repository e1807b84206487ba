"""`legradnet-pretrain`: let a trunk learn from films without grades."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.cli import run
from legradnet.cli._slurm import requeue_on_signal, watch_progress
from legradnet.run_folder import RunFolder

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _pretrain(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.pretraining.run import pretrain  # late: --help, --cfg and mistakes must not wait for torch
    from legradnet.training.callbacks import KeepFreedMemory

    watch_progress(RunFolder(Path(run_folder)).last)
    pretrain(config, run_folder, callbacks=[KeepFreedMemory()])


def _keys() -> Iterable["Key"]:
    from legradnet.pretraining.settings import PretrainSettings  # late too
    from legradnet.settings import keys

    return keys(PretrainSettings)


def main() -> None:
    """Entry point of the console script."""
    requeue_on_signal()
    run("pretrain", _pretrain, _keys)
