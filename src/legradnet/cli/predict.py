"""`legradnet-predict`: grade new films."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.cli import run
from legradnet.cli._slurm import requeue_on_signal
from legradnet.files import NotWrittenError
from legradnet.run_folder import RunFolder

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import

log = logging.getLogger(__name__)


def _predict(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.grading.run import predict  # late: --help and --cfg must not wait for torch
    from legradnet.hospital.outlets import open_outlets

    try:
        all_graded = predict(config, run_folder, open_outlets)
    except (KeyboardInterrupt, NotWrittenError, OSError):
        if RunFolder(Path(run_folder)).predictions_json.is_file():
            how = f"hydra.run.dir={run_folder} resume=true"
            log.warning("What is graded is kept. To go on: the same command with %s", how)
        raise
    if not all_graded:
        raise SystemExit(1)


def _keys() -> Iterable["Key"]:
    from legradnet.grading.settings import PredictSettings  # late too
    from legradnet.settings import keys

    return keys(PredictSettings)


def main() -> None:
    """Entry point of the console script."""
    requeue_on_signal()
    run("predict", _predict, _keys)
