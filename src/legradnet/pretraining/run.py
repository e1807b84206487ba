"""One pretraining run: check, pretrain, leave the trunk."""

import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.utilities.exceptions import SIGTERMException
from safetensors.torch import save

from legradnet.checkpoint import read_checkpoint
from legradnet.claims import claimed
from legradnet.device import check_trainer_devices, choose_precision
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.network.weights import check_weights, load_trunks
from legradnet.pretraining.module import PretrainingModule
from legradnet.pretraining.pairs import PairedFilms
from legradnet.pretraining.settings import PretrainSettings
from legradnet.run_folder import RunFolder
from legradnet.settings import checked, flat
from legradnet.training.callbacks import (
    AtomicCheckpointIO,
    FirstEpoch,
    KeepFreedMemory,
    MetricsTable,
    PortableCheckpoint,
    StopAfterBatch,
)
from legradnet.training.process import process_left_as_found

log = logging.getLogger(__name__)

TRUNK = "trunk.safetensors"  # in checkpoints/


def pretrain(config: Mapping[str, Any] | PretrainSettings, run_folder: str | Path) -> Path:
    """Pretrain a trunk as `conf/pretrain.yaml` composes it.

    Args:
        config: `PretrainSettings`, or their plain values.
        run_folder: Folder for the trunk, `last.ckpt`, `metrics.csv`, `split.csv`; made if need be.

    Returns:
        The trunk's file, for `backbone.<key>.weights=` of training.

    Raises:
        UserError: A mistake in the config, the films, the weights or the checkpoint; a folder that is another run's or
            can't be written.
    """
    settings = checked(PretrainSettings, config)
    check_trainer_devices(settings.trainer.accelerator, settings.trainer.devices)
    with claimed(Path(run_folder)), process_left_as_found():
        return _pretrain(settings, RunFolder(Path(run_folder)))


def _pretrain(settings: PretrainSettings, folder: RunFolder) -> Path:
    resumed = _to_resume(settings.ckpt_path, folder)
    if resumed is None:
        check_weights(settings.backbone, settings.pretrained)
    seed_everything(settings.seed, workers=True, verbose=False)
    trainer, first_epoch = _trainer(settings, folder)
    module = PretrainingModule(settings, str(trainer.precision))
    ((key, _),) = settings.backbone.items()
    if resumed:
        _check_same(resumed, module)
    else:
        load_trunks({key: module.backbone}, settings.backbone, settings.pretrained)
    progress = sys.stderr.isatty()
    data = PairedFilms(settings.data, num_classes=settings.num_classes, pairs=settings.pairs, progress=progress)
    data.setup()
    _describe(data)
    if not settings.trainer.fast_dev_run:
        folder.write_data(data.table, data.skipped, resumed=resumed is not None)
        folder.write_versions()
        folder.write_config(settings.model_dump(), shared=True)
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as stop:
        _tell_how_to_resume(folder)
        raise SystemExit(143 if isinstance(stop, SIGTERMException) else 130) from None
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, UserError) or resumed is None or first_epoch.is_over:
            raise
        why = (str(error) or type(error).__name__).splitlines()[0]
        raise UserError(f"The run can't go on from {resumed} (is it damaged, or of another version?): {why}") from error
    trunk = folder.last.parent / TRUNK
    if not settings.trainer.fast_dev_run and trainer.is_global_zero:
        state = {name: tensor.contiguous() for name, tensor in module.backbone.trunk.cpu().state_dict().items()}
        with written_whole(trunk, shared=True) as file:
            file.write(save(state))
        log.info("To train from it: legradnet-train backbone=%s backbone.%s.weights=%s", key, key, trunk)
        print(trunk)
    return trunk


def _trainer(settings: PretrainSettings, folder: RunFolder) -> tuple[Trainer, FirstEpoch]:
    asked = settings.trainer
    precision = choose_precision(asked.accelerator) if asked.precision == "auto" else str(asked.precision)
    log.info("Precision %s, run folder %s", precision, folder.path)
    first_epoch = FirstEpoch()
    callbacks: list[Callback] = [RichProgressBar()] if sys.stderr.isatty() else []
    if not asked.fast_dev_run:
        place: dict[str, Any] = {"dirpath": folder.last.parent, "enable_version_counter": False}
        last = PortableCheckpoint(filename=folder.last.stem, save_on_train_epoch_end=True, **place)
        callbacks += [StopAfterBatch(), KeepFreedMemory(), first_epoch, MetricsTable(folder, report=_log_epoch), last]
    try:
        trainer = Trainer(
            **(asked.model_dump() | {"precision": precision}),
            callbacks=callbacks,
            logger=False,
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder.path,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,  # EpochSampler knows its process
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error
    return trainer, first_epoch


def _describe(data: PairedFilms) -> None:
    if data.settings.source == "synthetic":
        log.info("Pretraining on GENERATED knees, not on radiographs of patients; real ones: data=csv or data=folder.")
    for split in ("train", "val"):
        films = data.films(split)
        patients = films.loc[films["patient"] != "", "patient"].nunique()
        graded = int((films["label"] >= 0).sum())
        log.info("%-5s %6d films, %d patients, %d with a grade", split, len(films), patients, graded)
    log.info("%d training films have another of their patient to be like", data.paired)


def _log_epoch(row: Mapping[str, float]) -> None:
    shown = {"train/loss": "loss", "val/rank": "directions used", "val/qwk": "linear probe QWK"}
    words = [f"{words} {row[name]:.4g}" for name, words in shown.items() if name in row]
    log.info("epoch %d  %s", row["epoch"], "  ".join(words))


def _to_resume(ckpt_path: str | None, folder: RunFolder) -> Path | None:
    path = folder.last if ckpt_path == "last" else Path(ckpt_path) if ckpt_path else None
    if folder.last.is_file() and (path is None or path.resolve() != folder.last.resolve()):
        raise UserError(f"{folder.path} already holds a run, which would be overwritten: add ckpt_path=last to go on "
                        "with it, or choose another hydra.run.dir=.")  # fmt: skip
    if path is None:
        folder.check_other_runs(folder.best, folder.predictions, folder.report, folder.benchmark)
        return None
    if not path.is_file():
        raise UserError(f"ckpt_path={ckpt_path}: there is no checkpoint at {path}.")
    if "projector.0.weight" not in read_checkpoint(path).get("state_dict", {}):
        raise UserError(f"{path} is no checkpoint of legradnet-pretrain.")
    return path


def _check_same(path: Path, module: LightningModule) -> None:
    """Raise UserError where the run whose checkpoint is at `path` had other settings that change the numbers."""
    theirs, ours = (flat(dict(kept)) for kept in (read_checkpoint(path)["hyper_parameters"], module.hparams))
    differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if keys := [key for key in differing if key != "pretrained"]:
        changes = "\n".join(f"  {key}: was {theirs.get(key)}, now {ours.get(key)}" for key in keys)
        raise UserError(f"A resumed run goes on with its own settings; these differ:\n{changes}")


def _tell_how_to_resume(folder: RunFolder) -> None:
    if not folder.last.is_file():
        log.warning("Stopped before there was anything to resume from.")
        return
    words = [word for word in sys.argv[1:] if not word.startswith(("ckpt_path=", "hydra.run.dir="))]
    here = [f"hydra.run.dir={folder.path}", "ckpt_path=last"]
    log.warning("Stopped. To go on: %s", shlex.join(["legradnet-pretrain", *words, *here]))
