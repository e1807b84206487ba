"""The objective of a search: one training run, or one for each fold, as a trial of a study."""

import logging
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from lightning.pytorch import Callback, LightningModule, Trainer
from optuna.exceptions import StorageInternalError

from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.run_folder import RunFolder
from legradnet.training.callbacks import KeepFreedMemory
from legradnet.training.run import train
from legradnet.tuning.best import ranked_trials
from legradnet.tuning.settings import StudySettings
from legradnet.tuning.trial import GivenUpError, TrialRun, bury

log = logging.getLogger(__name__)


def run_trial(config: Mapping[str, Any], run_folder: str | Path, settings: StudySettings, number: int) -> None:
    """Train as trial `number` of a study says, and tell the study how it went; nothing but being stopped is raised.

    The test films are left alone, no optimiser state is kept, and of all trials only the best
    `tuning.keep_checkpoints` keep their checkpoint.

    Args:
        config: The composed config, as of `train`.
        run_folder: The trial's folder.
        settings: Of the study.
        number: Of the trial.
    """
    folder = Path(run_folder)
    # calibration belongs to a model that is to be used: `experiment=best` trains that
    config = {**config, "test": False, "calibration": {**config["calibration"], "name": None}}
    trial = TrialRun(settings, number)
    try:
        trial.check_wanted()
        with trial.beating():
            try:
                run = _over_folds if config["tuning"]["folds"] else _once
                values = run(config, folder, trial)
            except GivenUpError:
                raise
            except NotWrittenError:
                raise
            except UserError as mistake:
                trial.fail(str(mistake))
            except Exception as error:
                log.exception("Trial %d", number)
                trial.fail(f"{type(error).__name__}: {error}")
            else:
                trial.finish(values)
    except GivenUpError as reason:
        log.warning("Nothing is told of this run: %s.", reason)
    except NotWrittenError:  # nor would the next trial find a place
        with suppress(StorageInternalError, OSError):  # its storage may lie on the same disk
            bury(trial.study, trial.frozen)
        log.warning("Stopped. To go on with the search: the same command.")
        raise
    except (KeyboardInterrupt, SystemExit):
        trial.interrupt()
        log.warning("Stopped. To go on with the search: the same command.")
        raise
    drop_checkpoints(trial.study, folder.parent, config["tuning"]["keep_checkpoints"])


def drop_checkpoints(study: optuna.Study, folder: Path, keep: int | None) -> None:
    """Delete the checkpoints of all finished trials in the sweep's `folder` but the `keep` best; None keeps all."""
    if keep is None:
        return
    kept = {trial.number for trial in ranked_trials(study)[:keep]}
    for trial in study.get_trials(deepcopy=False):
        if trial.state.is_finished() and trial.number not in kept:
            for checkpoints in (folder / f"trial_{trial.number}").glob("**/checkpoints"):
                shutil.rmtree(checkpoints, ignore_errors=True)


class ReportEpoch(Callback):
    """Report the objective after each epoch, and stop all processes when the pruner says so.

    Optuna's own callback raises out of the epoch's end instead, before its row is in `metrics.csv`, and cannot stop
    the other processes of ddp.

    Args:
        trial: The trial to report to.
    """

    def __init__(self, trial: TrialRun) -> None:
        self.trial = trial

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, if this is the first process; it decides for all."""
        stop = False
        if trainer.is_global_zero:
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            stop = self.trial.report(_metrics(values, self.trial.settings)[0], trainer.current_epoch)
            if stop:
                log.info("Stopped after epoch %d: pruned.", trainer.current_epoch)
        if trainer.strategy.broadcast(stop):
            trainer.should_stop = True


def _once(config: Mapping[str, Any], folder: Path, trial: TrialRun) -> list[float]:
    train(config, folder, callbacks=[ReportEpoch(trial), KeepFreedMemory()], resumable=False)
    return _metrics(RunFolder(folder).best_epoch(), trial.settings)


def _over_folds(config: Mapping[str, Any], folder: Path, trial: TrialRun) -> list[float]:
    if not (folds := config["data"]["num_folds"]):
        raise UserError("tuning.folds=true needs data.num_folds=.")
    values: list[list[float]] = []  # of each fold
    for fold in range(folds):
        part = folder / f"fold_{fold}"
        fold_config = {**config, "data": {**config["data"], "fold": fold}}
        train(fold_config, part, callbacks=[KeepFreedMemory()], resumable=False)
        values.append(_metrics(RunFolder(part).best_epoch(), trial.settings))
        means = [fmean(metric) for metric in zip(*values, strict=True)]
        # the Wilcoxon test compares fold with fold, the others compare how far a trial has come
        if trial.report((values[-1] if trial.settings.pruner.name == "wilcoxon" else means)[0], fold):
            break
    return means


def _metrics(values: Mapping[str, float], settings: StudySettings) -> list[float]:
    if not values:
        return [math.nan for _ in settings.optimized_metric]
    if missing := [name for name in settings.optimized_metric if name not in values]:
        names = ", ".join(name for name in values if name.startswith("val/"))
        raise UserError(f"optimized_metric: {', '.join(missing)} is not measured; there are {names}.")
    return [values[name] for name in settings.optimized_metric]
