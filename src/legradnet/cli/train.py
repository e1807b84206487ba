"""`legradnet-train`: train the ensemble, or with `-m tuning=` search for settings."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from legradnet.cli import run
from legradnet.cli._slurm import requeue_on_signal, watch_progress
from legradnet.errors import UserError
from legradnet.run_folder import RunFolder

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _train(config: dict[str, Any], run_folder: str) -> float | None:
    hydra = HydraConfig.get()
    if not str(hydra.sweeper.get("_target_")).startswith("hydra_plugins.legradnet_optuna."):
        from legradnet.training.callbacks import KeepFreedMemory  # late: --help, --cfg and mistakes must not wait
        from legradnet.training.run import train  # for torch

        watch_progress(RunFolder(Path(run_folder)).last)
        return train(config, run_folder, callbacks=[KeepFreedMemory()])
    if hydra.sweeper.trial is None:
        raise UserError("tuning= searches with -m: legradnet-train -m tuning=...")
    from legradnet.tuning.objective import run_trial
    from legradnet.tuning.settings import SweeperSettings

    settings: Any = OmegaConf.to_container(hydra.sweeper, resolve=True)
    run_trial(config, run_folder, SweeperSettings.of(settings), hydra.sweeper.trial)
    return None


def _keys() -> Iterable["Key"]:
    from legradnet.settings import keys  # late too
    from legradnet.training.settings import TrainSettings
    from legradnet.tuning.settings import SweeperSettings

    return [*keys(TrainSettings), *keys(SweeperSettings, "hydra.sweeper")]


def main() -> None:
    """Entry point of the console script."""
    requeue_on_signal()
    run("train", _train, _keys)
