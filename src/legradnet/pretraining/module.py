"""The LightningModule of pretraining: a trunk, a projector, and a loss of two views."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from legradnet.checkpoint import read_checkpoint
from legradnet.data.augment import Augmentation
from legradnet.data.dataset import Batch
from legradnet.errors import UserError
from legradnet.network.backbones import Backbone
from legradnet.pretraining.methods import BYOL, Method, SimMIM, TwoViews
from legradnet.pretraining.pairs import Pair
from legradnet.pretraining.settings import PretrainSettings
from legradnet.pretraining.watch import effective_rank, linear_probe
from legradnet.settings import flat
from legradnet.training.gradients import depthwise_in_float32
from legradnet.training.metrics import CollectedLogits
from legradnet.training.module import Run
from legradnet.training.resuming import check_equal, steps_of
from legradnet.training.settings import TrainerSettings
from legradnet.training.steps import log_loss, seed_step, stepped_each_batch

log = logging.getLogger(__name__)

COLLAPSED = 2.0  # directions: fewer tell films apart no better than one number does
_FEW = 4  # films: so few may use no more directions
_VAL, _PROBE = 0, 1  # of PairedFilms.val_dataloader


class PretrainingModule(LightningModule):
    """Bring features of two views of a knee together, without making those of all knees the same.

    Args:
        settings: Of the command; those that change the numbers are kept in the checkpoint.
        run: Of the trainer, from `run_of`.
    """

    def __init__(self, settings: PretrainSettings, run: Run) -> None:
        super().__init__()
        self.settings, self.run = settings, run
        self.save_hyperparameters(_kept(settings) | {"run": run})
        ((self.key, backbone),) = settings.backbone.items()
        self.backbone = Backbone(backbone, feature_dim=1)
        self.backbone.projection.requires_grad_(False)  # no part of what is learned here
        self.method = _method(settings, self.backbone)
        self.augment = Augmentation(settings.augment)
        self.probed, self.validated = CollectedLogits(), CollectedLogits()

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        """Loss of one batch of pairs, each film augmented on its own."""
        seed_step(self, self.settings.seed, batch_idx)
        pairs, views, height, width = batch.films.shape
        films = self.augment(batch.films.transpose(0, 1).reshape(-1, 1, height, width))
        loss = self.method(self.backbone, films.view(views, pairs, height, width).transpose(0, 1))
        log_loss(self, loss, batch_idx, pairs)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As Lightning's own, of which torch computes a part in float32 where a processor is slow in bfloat16."""
        with depthwise_in_float32(self.backbone, self.device, self.run["precision"]):
            super().backward(loss, *args, **kwargs)

    def on_fit_start(self) -> None:
        """Let the method take up the weights that a fresh run starts from."""
        if not self.trainer.ckpt_path:
            self.method.start(self.backbone)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the projector also from where the first release had it."""
        state = checkpoint["state_dict"]
        for name in [name for name in state if name.startswith("projector.")]:
            state[f"method.{name}"] = state.pop(name)

    def on_train_batch_end(self, *_: Any) -> None:
        """Let the method follow."""
        self.method.follow(self.backbone, self.trainer.global_step / max(1, self.trainer.estimated_stepping_batches))

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = _VAL) -> None:
        """Collect features: of training films for the probe to learn from, and of validation films."""
        features = self.backbone.pool(batch.films.float().div_(255)).float()
        collected = self.probed if dataloader_idx == _PROBE else self.validated
        collected.update(features, batch.labels, batch.rows)

    def on_validation_epoch_end(self) -> None:
        """Log rank and probe; tell where features have collapsed."""
        val, val_labels = self.validated.compute()
        train, train_labels = self.probed.compute() if self.probed.rows else (val[:0], val_labels[:0])
        self.probed.reset()
        self.validated.reset()
        if not np.isfinite(val).all():
            raise UserError(f"Features are not finite in epoch {self.current_epoch}: lower optimizer.learning_rate.")
        rank = effective_rank(val)
        probe = linear_probe(train, train_labels, val, val_labels, self.settings.num_classes)
        values = {"val/rank": rank, **{f"val/{name}": value for name, value in probe.items()}}
        self.log_dict({name: torch.tensor(value) for name, value in values.items()}, sync_dist=True)
        if rank < COLLAPSED and len(val) > _FEW and not self.trainer.sanity_checking:
            log.warning(
                "Epoch %d: features have COLLAPSED: they use %.1f directions, and tell films apart no better than one "
                "number does. A lower optimizer.learning_rate= or a larger data.batch_size= helps.",
                *(self.current_epoch, rank),
            )

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, stepped each batch by a warm-up and then a cosine or constant rate; norms and biases don't decay."""
        own = self.settings.optimizer
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": own.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=own.learning_rate)
        return stepped_each_batch(optimizer, self.settings.scheduler, self.trainer)


def run_of(settings: TrainerSettings, trainer: Trainer) -> Run:
    """What a resumed run has to repeat of the trainer."""
    steps = settings.model_dump(include={"gradient_clip_val", "accumulate_grad_batches"})
    return {**steps, "precision": str(trainer.precision), **steps_of(settings, trainer)}


def is_of_pretraining(checkpoint: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of a `PretrainingModule`, as this or the first release with one wrote it."""
    state, kept = checkpoint.get("state_dict"), checkpoint.get("hyper_parameters")
    trunk = isinstance(state, Mapping) and any(str(name).startswith("backbone.trunk.") for name in state)
    return trunk and isinstance(kept, Mapping) and "projector" in kept


def check_same_settings(path: Path, module: PretrainingModule) -> None:
    """Compare the settings of the run whose checkpoint is at `path` with those of the `module` that goes on with it.

    Raises:
        UserError: They differ in what changes the numbers.
    """
    theirs, ours = (flat(dict(kept)) for kept in (read_checkpoint(path)["hyper_parameters"], module.hparams))
    # keys that older runs do not have count as their default
    theirs = flat(_kept(PretrainSettings(backbone=module.settings.backbone))) | theirs
    if "precision" in theirs:  # the first release kept no more of the trainer
        theirs["run.precision"] = theirs.pop("precision")
    free = {"pretrained", *(f"run.{key}" for key in module.run if f"run.{key}" not in theirs)}
    check_equal(theirs, ours, free=free)


def _kept(settings: PretrainSettings) -> dict[str, Any]:
    films = {"image_size", "fit", "mirror_left", "batch_size", "seed"}
    kept = settings.model_dump(exclude={"trainer", "ckpt_path", "data"})
    return kept | {"data": settings.data.model_dump(include=films)}


def _method(settings: PretrainSettings, backbone: Backbone) -> Method:
    match settings.method:
        case "vicreg":
            return TwoViews(backbone, settings.projector, settings.vicreg.build())
        case "simclr":
            return TwoViews(backbone, settings.projector, settings.simclr.build())
        case "byol":
            return BYOL(backbone, settings.projector, settings.byol.momentum)
        case "simmim":
            return SimMIM(backbone, settings.simmim)
