"""The LightningModule of pretraining: a trunk, a projector, and a loss of two views."""

import logging
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from legradnet.data.augment import Augmentation
from legradnet.data.dataset import Batch
from legradnet.errors import UserError
from legradnet.network.backbones import Backbone
from legradnet.pretraining.pairs import Pair
from legradnet.pretraining.settings import PretrainSettings
from legradnet.pretraining.watch import effective_rank, linear_probe
from legradnet.training.gradients import DepthwiseInFloat32
from legradnet.training.metrics import CollectedLogits
from legradnet.training.optimizer import LearningRateCurve

log = logging.getLogger(__name__)

COLLAPSED = 2.0  # directions: fewer tell films apart no better than one number does
_PROBE, _VAL = 0, 1  # of PairedFilms.val_dataloader


class PretrainingModule(LightningModule):
    """Bring features of two views of a knee together, without making those of all knees the same.

    Args:
        settings: Of the command; those that change the numbers are kept in the checkpoint.
        precision: Of the trainer.
    """

    def __init__(self, settings: PretrainSettings, precision: str) -> None:
        super().__init__()
        self.settings, self.precision = settings, precision
        kept = settings.model_dump(exclude={"trainer", "ckpt_path", "data"})
        films = {"image_size", "fit", "mirror_left", "batch_size", "seed"}
        self.save_hyperparameters({**kept, "data": settings.data.model_dump(include=films), "precision": precision})
        ((self.key, backbone),) = settings.backbone.items()
        self.backbone = Backbone(backbone, feature_dim=1)
        self.backbone.projection.requires_grad_(False)  # no part of what is learned here
        width, output = settings.projector.width, settings.projector.output
        self.projector = nn.Sequential(
            *(nn.Linear(self.backbone.width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            *(nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()),
            nn.Linear(width, output, bias=False),
        )
        self.loss = (settings.vicreg if settings.method == "vicreg" else settings.simclr).build()
        self.augment = Augmentation(settings.augment)
        self.probed, self.validated = CollectedLogits(), CollectedLogits()

    def training_step(self, batch: Pair, batch_idx: int) -> Tensor:
        """Loss of one batch of pairs, each film augmented on its own."""
        place = np.random.SeedSequence([self.settings.seed, self.current_epoch, batch_idx, self.global_rank])
        torch.manual_seed(int(place.generate_state(1)[0]))  # a killed and resumed run draws what it would have drawn
        films = batch.films.transpose(0, 1).flatten(0, 1)[:, None]
        embeddings = self.projector(self.backbone.pool(self.augment(films)))
        with torch.autocast(self.device.type, enabled=False):
            loss: Tensor = self.loss(*embeddings.float().chunk(2))
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, batch {batch_idx}: "
                "lower optimizer.learning_rate, or try trainer.precision=32-true."
            )
        size = len(batch.films)
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=size, sync_dist=True)
        return loss

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As Lightning's own, of which torch computes a part in float32 where a processor is slow in bfloat16."""
        is_slow = self.device.type == "cpu" and self.precision == "bf16-mixed"
        with DepthwiseInFloat32() if is_slow else nullcontext():
            super().backward(loss, *args, **kwargs)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = _PROBE) -> None:
        """Collect features: of training films for the probe to learn from, and of validation films."""
        features = self.backbone.pool(batch.films.float().div_(255)).float()
        collected = self.probed if dataloader_idx == _PROBE else self.validated
        collected.update(features, batch.labels, batch.rows)

    def on_validation_epoch_end(self) -> None:
        """Log rank and probe; tell where features have collapsed."""
        (train, train_labels), (val, val_labels) = self.probed.compute(), self.validated.compute()
        self.probed.reset()
        self.validated.reset()
        if not np.isfinite(val).all():
            raise UserError(f"Features are not finite in epoch {self.current_epoch}: lower optimizer.learning_rate.")
        rank = effective_rank(val)
        probe = linear_probe(train, train_labels, val, val_labels, self.settings.num_classes)
        values = {"val/rank": rank, **{f"val/{name}": value for name, value in probe.items()}}
        self.log_dict({name: torch.tensor(value) for name, value in values.items()}, sync_dist=True)
        if rank < COLLAPSED and len(val) > COLLAPSED and not self.trainer.sanity_checking:
            log.warning("Epoch %d: features have COLLAPSED: they use %.1f directions, and tell films apart no better "
                        "than one number does. A lower learning rate, larger batches or more vicreg.variance= "
                        "help.", self.current_epoch, rank)  # fmt: skip

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW, stepped each batch by a warm-up and then a cosine or constant rate; norms and biases don't decay."""
        own = self.settings.optimizer
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        groups = [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": own.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=own.learning_rate)
        epochs = max(1, self.trainer.max_epochs or 1)
        total = int(self.trainer.estimated_stepping_batches)
        curve = LearningRateCurve(self.settings.scheduler, total_steps=total, epochs=epochs)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
        return OptimizerLRSchedulerConfig(
            optimizer=optimizer, lr_scheduler={"scheduler": scheduler, "interval": "step"}
        )
