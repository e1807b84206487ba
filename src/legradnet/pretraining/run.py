"""One pretraining run: check, pretrain, leave the trunk."""

import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, seed_everything
from safetensors.torch import save

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.network.weights import check_weights, load_trunks
from legradnet.pretraining.module import PretrainingModule, check_same_settings, is_of_pretraining, run_of
from legradnet.pretraining.pairs import PairedFilms
from legradnet.pretraining.settings import PretrainSettings
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.training.callbacks import MetricsTable, PortableCheckpoint, StopAfterBatch
from legradnet.training.fitting import as_started, checkpoint_to_resume, claimed_run, fit, new_trainer
from legradnet.training.process import process_left_as_found

log = logging.getLogger(__name__)

COMMAND = "legradnet-pretrain"
TRUNK = "trunk.safetensors"  # in checkpoints/


def pretrain(
    config: Mapping[str, Any] | PretrainSettings, run_folder: str | Path, *, callbacks: Sequence[Callback] = ()
) -> Path:
    """Pretrain a trunk as `conf/pretrain.yaml` composes it.

    Args:
        config: `PretrainSettings`, or their plain values.
        run_folder: Folder for the trunk, `last.ckpt`, `metrics.csv`, `split.csv`; made if need be.
        callbacks: More of Lightning's callbacks.

    Returns:
        The trunk's file, for `backbone.<key>.weights=` of training.

    Raises:
        UserError: A mistake in the config, the films, the weights or the checkpoint; a folder that is another run's or
            can't be written.
    """
    settings = checked(PretrainSettings, config)
    settings = settings.model_copy(update={"trainer": as_started(settings.trainer)})
    with process_left_as_found(), claimed_run(settings.trainer, run_folder, COMMAND) as folder:
        return _pretrain(settings, folder, callbacks)


def _pretrain(settings: PretrainSettings, folder: RunFolder, callbacks: Sequence[Callback]) -> Path:
    resumed = _checkpoint_to_resume(settings.ckpt_path, folder)
    if resumed is None:
        check_weights(settings.backbone, settings.pretrained)
    seed_everything(settings.seed, workers=True, verbose=False)
    trainer = new_trainer(settings.trainer, folder, [*_callbacks(folder), *callbacks], num_sanity_val_steps=0)
    module = PretrainingModule(settings, run_of(settings.trainer, trainer))
    ((key, _),) = settings.backbone.items()
    if resumed:
        check_same_settings(resumed, module)
    else:
        load_trunks({key: module.backbone}, settings.backbone, settings.pretrained)
    progress = sys.stderr.isatty()
    data = PairedFilms(settings.data, num_classes=settings.num_classes, pairs=settings.paired, progress=progress)
    data.setup()
    if (count := len(data.films("train"))) < (needed := 2 * trainer.world_size):
        raise UserError(f"Pretraining tells films apart: it needs at least {needed} training films, not {count}.")
    _describe(data)
    if not settings.trainer.fast_dev_run and trainer.is_global_zero:
        if resumed and resumed.resolve() != folder.last.resolve():
            folder.carry_over(RunFolder(resumed.parent.parent))
        folder.write_data(data.table, data.skipped, resumed=resumed is not None)
        folder.write_versions()
        folder.write_config(settings.model_dump(), shared=True)
    fit(trainer, module, data, resumed, folder, COMMAND)
    trunk = folder.last.parent / TRUNK
    if not settings.trainer.fast_dev_run and trainer.is_global_zero:
        state = {name: tensor.contiguous() for name, tensor in module.backbone.trunk.cpu().state_dict().items()}
        with written_whole(trunk, shared=True) as file:
            file.write(save(state))
        log.info("To train from it: legradnet-train backbone=%s backbone.%s.weights=%s", key, key, trunk)
        print(trunk)
    return trunk


def _callbacks(folder: RunFolder) -> list[Callback]:
    place: dict[str, Any] = {"dirpath": folder.last.parent, "enable_version_counter": False}
    last = PortableCheckpoint(filename=folder.last.stem, save_on_train_epoch_end=True, **place)
    return [StopAfterBatch(), MetricsTable(folder, report=_log_epoch), last]


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
    words = [f"{words} {row[name]:.4g}" for name, words in shown.items() if not math.isnan(row.get(name, math.nan))]
    log.info("epoch %d  %s", row["epoch"], "  ".join(words))


def _checkpoint_to_resume(ckpt_path: str | None, folder: RunFolder) -> Path | None:
    if (path := checkpoint_to_resume(ckpt_path, folder)) is None:
        folder.check_other_runs(folder.best, folder.predictions, folder.report, folder.benchmark)
        return None
    if not is_of_pretraining(read_checkpoint(path)):
        raise UserError(f"{path} is no checkpoint of {COMMAND}.")
    return path
