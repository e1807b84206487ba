"""What every training here does around Lightning's loop: it claims its folder, is resumed, and is stopped in words."""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from legradnet.claims import claimed, is_later_process, is_restarted
from legradnet.device import check_trainer_devices, choose_precision
from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.run_folder import RunFolder
from legradnet.training.callbacks import AtomicCheckpointIO, FirstEpoch
from legradnet.training.cluster import cluster_plugins
from legradnet.training.launched import as_launched
from legradnet.training.reporting import tell_how_to_resume
from legradnet.training.settings import TrainerSettings

log = logging.getLogger(__name__)


def precision_of(trainer: TrainerSettings) -> str:
    """What Lightning is asked to compute in."""
    return choose_precision(trainer.accelerator) if trainer.precision == "auto" else str(trainer.precision)


def as_started(trainer: TrainerSettings) -> TrainerSettings:
    """The trainer's settings for this machine and for how this process was started.

    Raises:
        UserError: Devices, nodes and processes are not there or don't agree.
    """
    own = as_launched(trainer, os.environ)
    check_trainer_devices(own.accelerator, own.devices)
    return own


@contextmanager
def claimed_run(
    trainer: TrainerSettings, path: str | Path, command: str, *, resumable: bool = True
) -> Iterator[RunFolder]:
    """A run's folder, which is this run's alone; if it can't be written any longer, how to go on is told.

    Args:
        trainer: As `as_started` gives them.
        path: The folder.
        command: Which goes on with the run.
        resumable: Whether the run can be gone on with.
    """
    first = not is_later_process(trainer.devices, trainer.num_nodes)
    with claimed(Path(path)) if first else nullcontext():
        folder = RunFolder(Path(path))
        try:
            yield folder
        except Exception as error:
            # a process of ddp sends its own as text
            if resumable and NotWrittenError.__name__ in f"{type(error)} {error}" and folder.last.is_file():
                tell_how_to_resume(folder, command)
            raise


def checkpoint_to_resume(ckpt_path: str | None, folder: RunFolder) -> Path | None:
    """Where the checkpoint is that a run goes on from; None for a fresh one. A command that was restarted goes on.

    Raises:
        UserError: It isn't there, or the folder holds a run that a fresh one would overwrite.
    """
    if folder.last.is_file() and is_restarted():
        ckpt_path = "last"
    path = folder.last if ckpt_path == "last" else Path(ckpt_path) if ckpt_path else None
    if folder.last.is_file() and (path is None or path.resolve() != folder.last.resolve()):
        raise UserError(
            f"{folder.path} already holds a run, which would be overwritten: add ckpt_path=last to go on with it, "
            "or choose another hydra.run.dir=."
        )
    if path is not None and not path.is_file():
        hint = " Repeat the run's own hydra.run.dir=." if ckpt_path == "last" else ""
        raise UserError(f"ckpt_path={ckpt_path}: there is no checkpoint at {path}.{hint}")
    return path


def new_trainer(
    settings: TrainerSettings,
    folder: RunFolder,
    callbacks: Sequence[Callback],
    *,
    logger: list[Logger] | bool = False,
    **defaults: Any,
) -> Trainer:
    """Lightning's Trainer; under `fast_dev_run` it has none of the `callbacks`, and writes nothing.

    Args:
        settings: Config group `trainer`.
        folder: Of the run.
        callbacks: All but the progress bar.
        logger: Lightning's loggers.
        defaults: Of Lightning's other keys, where the settings don't have them.

    Raises:
        UserError: Lightning refuses the settings.
    """
    own = defaults | settings.arguments(precision_of(settings))
    if own["strategy"] == "auto" and own["devices"] != 1:
        own["strategy"] = "ddp_spawn"  # Lightning's own choice would run the whole command again in each process
    progress: list[Callback] = [RichProgressBar()] if sys.stderr.isatty() else []
    log.info("Precision %s, run folder %s", own["precision"], folder.path)
    try:
        return Trainer(
            **own,
            callbacks=[*progress, *([] if settings.fast_dev_run else callbacks)],
            logger=logger,
            plugins=[AtomicCheckpointIO(), *cluster_plugins(settings, os.environ)],
            default_root_dir=folder.path,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            log_every_n_steps=10,
            use_distributed_sampler=False,  # EpochSampler knows its process
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error


def fit(
    trainer: Trainer,
    module: LightningModule,
    data: LightningDataModule,
    ckpt_path: Path | None,
    folder: RunFolder,
    command: str,
    *,
    resumable: bool = True,
) -> None:
    """Train; whoever stops it is told how to go on.

    Args:
        trainer: From `new_trainer`.
        module: What learns.
        data: What it learns from.
        ckpt_path: The checkpoint to go on from.
        folder: Of the run.
        command: Which goes on with it.
        resumable: Whether it can be gone on with.

    Raises:
        UserError: The checkpoint doesn't fit.
        SystemExit: It was stopped by Ctrl-C (130) or SIGTERM (143).
    """
    trainer.callbacks.append(first_epoch := FirstEpoch())  # type: ignore[attr-defined]  # a list, as Lightning makes it
    try:
        # weights_only: a checkpoint is data, whatever is found in its place
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as stop:
        if resumable and trainer.is_global_zero:
            tell_how_to_resume(folder, command)
        raise SystemExit(143 if isinstance(stop, SIGTERMException) else 130) from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError) or ckpt_path is None or first_epoch.is_over:
            raise
        log.debug("Not resumed", exc_info=True)
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The run can't go on from {ckpt_path} (is it damaged, or of another version?): {why}"
        ) from error
