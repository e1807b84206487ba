"""A resumed run goes on as it began: whatever would change its numbers is refused."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.settings import checked, flat
from legradnet.training.module import GradingModule, ModuleSettings, Run
from legradnet.training.settings import TrainerSettings

Flat = Mapping[str, Any]

_FREE = {"model.pretrained", "class_counts"}
_NORMS = "sync_batchnorm"
_PROCESSES = ("devices", "num_nodes", "strategy")
# of Lightning's other keys those that change which films make a step, or when an epoch is measured
_ADDED = (
    *("gradient_clip_algorithm", "limit_train_batches", "limit_val_batches", "overfit_batches"),
    *("val_check_interval", "check_val_every_n_epoch"),
)


def steps_of(settings: TrainerSettings, trainer: Trainer) -> Run:
    """Over how many processes a `trainer` of these `settings` spreads a step, and how: as resolved, not as asked for.

    However ddp starts its processes they compute the same, and one process computes what it does without ddp.
    """
    strategy = "ddp" if isinstance(trainer.strategy, DDPStrategy) else settings.strategy
    if strategy in ("auto", "ddp") and trainer.num_devices * trainer.num_nodes == 1:
        strategy = "single_device"
    added = settings.model_extra or {}
    several = trainer.num_devices * trainer.num_nodes > 1
    return {
        **dict(zip(_PROCESSES, (trainer.num_devices, trainer.num_nodes, strategy), strict=True)),
        **{key: str(added[key]) for key in _ADDED if key in added},
        **({_NORMS: "True"} if several and settings.sync_batchnorm else {}),  # a word, as older runs have it
    }


def check_same_settings(path: Path, module: GradingModule) -> None:
    """Compare the settings of the run whose checkpoint is at `path` with those of the `module` that goes on with it.

    Raises:
        UserError: They differ in what changes the numbers; a run begun before it told its processes may go on with any.
    """
    # checked, so that a key that older runs do not have counts as its default
    plain, title = read_checkpoint(path)["hyper_parameters"], f"The settings in {path} have mistakes:"
    theirs, ours = flat(checked(ModuleSettings, plain, title=title).model_dump()), flat(dict(module.hparams))
    free = _FREE
    if "run.devices" not in theirs:
        free = free | {f"run.{key}" for key in (*_PROCESSES, *_ADDED, _NORMS)}
    check_equal(theirs, ours, free=free, way_out=" (init_from= starts a new run)")


def check_equal(theirs: Flat, ours: Flat, *, free: Container[str], way_out: str = "") -> None:
    """Compare settings by their dotted keys; those that are `free` may differ.

    Raises:
        UserError: Others differ; `way_out` says what to do where that is wanted.
    """
    keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key) and key not in free)
    if keys:
        changes = "\n".join(f"  {key}: was {theirs.get(key)}, now {ours.get(key)}" for key in keys)
        raise UserError(f"A resumed run goes on with its own settings; these differ{way_out}:\n{changes}")
