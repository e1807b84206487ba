"""The study as the sweep's `logger=` records it: a point a trial, offline, in the sweep's folder."""

import logging
import os
import shutil
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from legradnet.errors import UserError, how_to_install, without_passwords
from legradnet.files import PARTIAL
from legradnet.tuning.sharing import locked

log = logging.getLogger(__name__)

_PARTIAL = f"{PARTIAL}record-"  # a point is written in such a folder and moved to its place whole


class StudyRecord:
    """A record that any number of workers add to, and that a search that goes on goes on with.

    Args:
        logger: tensorboard, mlflow or wandb, as the trials' own logger.
        study: The study.
        metrics: Names of its objectives.
        folder: Of the sweep.

    Raises:
        UserError: The logger is not installed.
    """

    def __init__(self, logger: str, study: optuna.Study, metrics: Sequence[str], folder: Path) -> None:
        if find_spec(logger) is None:
            raise UserError(f"logger={logger} needs a package that isn't installed: {how_to_install('loggers')}")
        self._logger, self._study, self._metrics, self._folder = logger, study, list(metrics), folder
        self._recorded: set[int] = set()

    def add(self, trials: Iterable[FrozenTrial]) -> None:
        """Record those of `trials` that are finished and not in the record; a logger's fault does not stop a search."""
        finished = [trial for trial in trials if trial.state.is_finished() and trial.number not in self._recorded]
        if not finished:
            return
        try:
            with locked(self._folder / ".record.lock"), warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # Optuna 6 will no longer have these callbacks
                for left in self._folder.glob(f"{_PARTIAL}*"):  # by a killed worker
                    shutil.rmtree(left, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=self._folder) as partial:
                    _WRITERS[self._logger](self._study, finished, self._metrics, self._folder, Path(partial))
        except Exception as error:  # whatever a logger raises
            log.warning("logger=%s has not recorded the study: %s", self._logger, without_passwords(str(error)))
        else:
            self._recorded |= {trial.number for trial in finished}


def _write_tensorboard(
    study: optuna.Study, trials: list[FrozenTrial], metrics: list[str], folder: Path, partial: Path
) -> None:
    # Optuna's TensorBoardCallback needs the whole of TensorFlow for what torch's writer does too
    from torch.utils.tensorboard import SummaryWriter

    for trial in trials:
        place = folder / "tensorboard" / f"trial_{trial.number}"
        if place.exists():
            continue
        values = dict(zip(metrics, trial.values or [], strict=False))
        with SummaryWriter(partial) as writer:
            writer.add_hparams(trial.params, values, run_name=place.name, global_step=trial.number)
        _move(partial / place.name, place.parent)


def _write_mlflow(
    study: optuna.Study, trials: list[FrozenTrial], metrics: list[str], folder: Path, partial: Path
) -> None:
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need the whole of mlflow
    from mlflow import MlflowClient
    from optuna_integration import MLflowCallback

    store = f"file:{folder.resolve() / 'mlruns'}"
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(study.study_name)
    identity = experiment.experiment_id if experiment else client.create_experiment(study.study_name)
    runs = client.search_runs([identity], max_results=50_000)
    for run in runs:
        if run.info.status != "FINISHED":  # a worker was killed while writing it
            client.delete_run(run.info.run_id)
    recorded = {run.info.run_name for run in runs if run.info.status == "FINISHED"}
    record = MLflowCallback(store, metrics)
    for trial in trials:
        if str(trial.number) not in recorded:
            record(study, trial)


def _write_wandb(
    study: optuna.Study, trials: list[FrozenTrial], metrics: list[str], folder: Path, partial: Path
) -> None:
    import wandb
    from optuna_integration import WeightsAndBiasesCallback

    recorded = {path.name.rpartition("-")[2] for path in (folder / "wandb").glob("offline-run-*")}
    settings = wandb.Settings(silent=True, console="off")
    for trial in trials:
        # the same whoever records it, so that it is one run wherever it is sent
        identity = uuid.uuid5(uuid.NAMESPACE_OID, f"{study.study_name} {trial.number} {trial.datetime_start}").hex
        if identity in recorded:
            continue
        about = {"project": "legradnet", "group": study.study_name, "name": study.study_name, "id": identity}
        place = {"dir": partial, "mode": "offline", "settings": settings}
        WeightsAndBiasesCallback(metrics, {**about, **place}, as_multirun=True)(study, trial)
        (run,) = (partial / "wandb").glob(f"offline-run-*-{identity}")
        _move(run, folder / "wandb")


_Writer = Callable[[optuna.Study, list[FrozenTrial], list[str], Path, Path], None]
_WRITERS: dict[str, _Writer] = {"tensorboard": _write_tensorboard, "mlflow": _write_mlflow, "wandb": _write_wandb}


def _move(point: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    point.rename(folder / point.name)
