"""One training run: check everything that can be wrong, train, and measure the best epoch on the test films."""

import logging
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from legradnet.checkpoint import is_ours, read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.device import check_compiler, choose_device
from legradnet.errors import UserError, how_to_install
from legradnet.network.weights import check_weights, load_ensemble, load_starting_weights
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.training.calibrate import calibrate
from legradnet.training.callbacks import (
    MetricsTable,
    MovingAverage,
    PortableCheckpoint,
    ResumableEarlyStopping,
    StopAfterBatch,
)
from legradnet.training.fitting import as_started, checkpoint_to_resume, claimed_run, fit, new_trainer, precision_of
from legradnet.training.frozen import compute_features, feature_views
from legradnet.training.metrics import measure_test_films
from legradnet.training.module import GradingModule, Run
from legradnet.training.process import process_left_as_found
from legradnet.training.reporting import describe_films, log_epoch, print_summary
from legradnet.training.resuming import check_same_settings, steps_of
from legradnet.training.settings import CallbackSettings, TrainSettings

log = logging.getLogger(__name__)

COMMAND = "legradnet-train"


@process_left_as_found()
def train(
    config: Mapping[str, Any] | TrainSettings,
    run_folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    resumable: bool = True,
) -> float:
    """Train as `conf/train.yaml` composes it and leave everything in the run folder.

    Args:
        config: The composed config as plain dicts, lists and values, or the settings that it makes.
        run_folder: Folder for checkpoints, metrics, split; made if need be.
        callbacks: More of Lightning's callbacks.
        resumable: Whether to keep the optimiser's state, as `checkpoints/last.ckpt`.

    Returns:
        `val/qwk` of the best epoch.

    Raises:
        UserError: A mistake in the config, the data, the weights or the checkpoint; a folder that is another run's or
            can't be written.
    """
    settings = checked(TrainSettings, config)
    settings = settings.model_copy(update={"trainer": as_started(settings.trainer)})
    written = settings.model_dump() if isinstance(config, TrainSettings) else config
    with claimed_run(settings.trainer, run_folder, COMMAND, resumable=resumable) as folder:
        return _train(settings, written, folder, callbacks, resumable)


def _train(
    settings: TrainSettings,
    written: Mapping[str, Any],
    folder: RunFolder,
    callbacks: Sequence[Callback],
    resumable: bool,
) -> float:
    ckpt_path = _checkpoint_to_resume(settings.ckpt_path, folder)
    backbones, pretrained = settings.backbone, settings.model.pretrained
    if ckpt_path is None and settings.init_from is None:
        check_weights(backbones, pretrained)
    if settings.compile:
        check_compiler(settings.trainer.accelerator)
    seed_everything(settings.seed, workers=True, verbose=False)

    # cheap mistakes first: the films are read when everything else has been found right
    trainer = build_trainer(settings, folder, callbacks=callbacks, resumable=resumable)
    module = build_module(settings, trainer)
    if ckpt_path:
        check_same_settings(ckpt_path, module)
    elif settings.init_from:
        load_ensemble(module.ensemble, settings.init_from)
        log.info("The whole ensemble starts from %s", settings.init_from)
    else:
        load_starting_weights(module.ensemble, backbones, pretrained)
    data = KneeDataModule(settings.data, num_classes=settings.model.num_classes, progress=sys.stderr.isatty())
    data.setup()
    describe_films(data)
    module.use_class_counts(data.class_counts())

    dry = bool(settings.trainer.fast_dev_run)
    if not dry and (views := feature_views(module, settings.data.feature_views)):
        device = choose_device(_accelerator(settings.trainer.accelerator))
        compute_features(module, data, views=views, device=device, precision=precision_of(settings.trainer))
    if not dry and trainer.is_global_zero:
        if ckpt_path and ckpt_path.resolve() != folder.last.resolve():
            folder.carry_over(RunFolder(ckpt_path.parent.parent))
        folder.write_data(data.table, data.skipped, resumed=ckpt_path is not None)
        folder.write_versions()
        folder.write_config(written, shared=True)
    try:
        fit(trainer, module, data, ckpt_path, folder, COMMAND, resumable=resumable)
    finally:
        if settings.logger.name == "wandb":
            sys.modules["wandb"].finish()  # else the next job of a multirun writes into this one's run
    if dry:
        log.info("fast_dev_run: one batch each of training and validation went through; nothing was saved.")
        return float(trainer.callback_metrics.get("val/qwk", torch.nan))
    stopping, early = trainer.early_stopping_callback, trainer.current_epoch < settings.trainer.max_epochs
    if stopping and stopping.wait_count >= stopping.patience and early:
        log.info("Stopped after epoch %d: val/qwk no longer improved.", trainer.current_epoch - 1)
    if trainer.is_global_zero:
        _measure_best(settings, folder, data)
    return folder.best_epoch().get("val/qwk", math.nan)


def build_module(config: Mapping[str, Any] | TrainSettings, trainer: Trainer | None = None) -> GradingModule:
    """The module of a composed config, at random weights; where weights came from is not kept in it.

    With its `trainer` it also keeps what that makes a step of.
    """
    settings = checked(TrainSettings, config)
    run: Run = {
        **settings.data.model_dump(include={"batch_size", "balance", "feature_views"}),
        **settings.trainer.model_dump(include={"gradient_clip_val", "accumulate_grad_batches"}),
        "precision": precision_of(settings.trainer),
        **({"compile": True} if settings.compile else {}),  # older runs have no such key
        **settings.callbacks.model_dump(),
        **({} if trainer is None else steps_of(settings.trainer, trainer)),
    }
    return GradingModule(
        backbone={key: own.model_copy(update={"weights": None}) for key, own in settings.backbone.items()},
        gating=settings.gating,
        model=settings.model,
        loss=settings.loss,
        optimizer=settings.optimizer,
        scheduler=settings.scheduler,
        augment=settings.augment,
        films=settings.data.films,
        run=run,
        seed=settings.seed,
    )


def build_trainer(
    config: Mapping[str, Any] | TrainSettings,
    folder: RunFolder,
    *,
    callbacks: Sequence[Callback] = (),
    resumable: bool = True,
) -> Trainer:
    """Lightning's Trainer for a composed config; under `fast_dev_run` it writes nothing."""
    settings = checked(TrainSettings, config)
    all_callbacks = [*_callbacks(settings.callbacks, folder, resumable), *callbacks]
    return new_trainer(settings.trainer, folder, all_callbacks, logger=_loggers(settings.logger.name, folder))


def _accelerator(name: str) -> str:
    """What torch calls Lightning's accelerator."""
    return "cuda" if name == "gpu" and torch.cuda.is_available() else name.replace("gpu", "mps")


def _checkpoint_to_resume(ckpt_path: str | None, folder: RunFolder) -> Path | None:
    if (path := checkpoint_to_resume(ckpt_path, folder)) is None:
        return None
    checkpoint = read_checkpoint(path)
    if not is_ours(checkpoint):
        raise UserError(f"{path} is no LegRadNet checkpoint.")
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"{path} has no optimiser state to resume from: use checkpoints/last.ckpt, or init_from={path}."
        )
    return path


def _callbacks(settings: CallbackSettings, folder: RunFolder, resumable: bool) -> list[Callback]:
    place: dict[str, Any] = {
        "dirpath": folder.last.parent,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    callbacks: list[Callback] = [StopAfterBatch()]
    last = [PortableCheckpoint(filename=folder.last.stem, **place)] if resumable else []
    if settings.ema_decay is not None:
        callbacks.append(MovingAverage(settings.ema_decay))
    if settings.early_stopping_patience is not None:
        wait: dict[str, Any] = {"patience": settings.early_stopping_patience, "check_finite": False, "verbose": False}
        callbacks.append(ResumableEarlyStopping("val/qwk", mode="max", **wait))
    return [
        *callbacks,
        MetricsTable(folder, report=None if sys.stderr.isatty() else log_epoch, resumable=resumable),
        # last.ckpt comes last: it holds the state of all the others, and the row is in metrics.csv before it
        PortableCheckpoint(filename=folder.best.stem, monitor="val/qwk", mode="max", **place),
        *last,
    ]


def _loggers(name: str | None, folder: RunFolder) -> list[Logger] | bool:
    if name is None:
        return False
    try:
        match name:
            case "tensorboard":
                return [TensorBoardLogger(folder.path, name="tensorboard", version="")]
            case "mlflow":
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need the whole of mlflow
                return [MLFlowLogger("legradnet", tracking_uri=f"file:{folder.path.resolve() / 'mlruns'}")]
            case _:
                # mode, as Lightning's `offline` only sets an environment that wandb may have read before
                wandb = WandbLogger(project="legradnet", save_dir=folder.path, mode="offline")
                wandb._wandb_init.pop("anonymous", None)  # wandb warns of it, whatever it is set to
                return [wandb]
    except ModuleNotFoundError as error:
        raise UserError(f"logger={name} needs a package that isn't installed: {how_to_install('loggers')}") from error


def _measure_best(settings: TrainSettings, folder: RunFolder, data: KneeDataModule) -> None:
    """Calibrate and test the best checkpoint in one process, as it will grade; tell what was found."""
    training = precision_of(settings.trainer)
    precision = "bf16" if training == "bf16-mixed" else "f32"
    device = _accelerator(settings.trainer.accelerator)
    # features of frozen trunks are what grading computes, but for fp16, and for a trunk in bf16 beside f32
    mixed = any(backbone.precision == "bf16" for backbone in settings.backbone.values())
    if training == "16-mixed" or (precision == "f32" and mixed):
        data.features = None
    if settings.calibration.name:
        aims = settings.calibration.model_dump(exclude={"name"})
        calibrate(folder.best, data, **aims, device=device, precision=precision)
    tested = None
    if settings.test and len(data.films("test")):
        tested = measure_test_films(folder.best, data, folder.test_metrics, device=device, precision=precision)
    print_summary(folder, tested)
