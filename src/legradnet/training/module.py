"""The one LightningModule: loss, optimiser and metrics around a `KneeEnsemble`."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from legradnet.checkpoint import read_checkpoint
from legradnet.data.augment import Augmentation, AugmentSettings, mixed
from legradnet.data.dataset import Batch
from legradnet.data.settings import FilmSettings
from legradnet.network.backbones import BackboneSettings
from legradnet.network.ensemble import EnsembleOutput, KneeEnsemble, NetworkSettings
from legradnet.settings import Seed, checked
from legradnet.training.gradients import depthwise_in_float32
from legradnet.training.lone_film import let_norms_rest
from legradnet.training.metrics import CollectedLogits, measured
from legradnet.training.optimizer import OptimizerSettings, SchedulerSettings, WarmupCosineSettings
from legradnet.training.steps import log_loss, seed_step, stepped_each_batch

log = logging.getLogger(__name__)

Run = dict[str, bool | int | float | str | None]


class ModuleSettings(NetworkSettings):
    """What a `GradingModule` is made of: the hyperparameters that its checkpoint holds."""

    optimizer: OptimizerSettings = OptimizerSettings()
    scheduler: SchedulerSettings = WarmupCosineSettings()
    augment: AugmentSettings | None = AugmentSettings()
    films: FilmSettings | None = None
    run: Run | None = None
    class_counts: list[int] | None = None
    seed: Seed = 0


class GradingModule(LightningModule):
    """Train and validate a `KneeEnsemble`. Its hyperparameters are plain values: a checkpoint holds them.

    Building one never loads weights; `legradnet.network.weights` does that for a fresh run.

    Args:
        backbone: {key: settings}. This and what follows are models, or plain values that are checked.
        settings: The others of `ModuleSettings`, by name: `gating`, `model`, `loss`, `optimizer`, `scheduler`;
            `augment`, None leaves films as they are; `films`, how films were read, kept for whoever grades new ones;
            `run`, what a resumed run has to repeat; `class_counts`, training films of each class, for balanced class
            weights; `seed`, from which with epoch and batch each training batch draws augmentation and dropout.

    Raises:
        UserError: Settings with mistakes, all of them in one message, or that don't go together.
    """

    def __init__(self, backbone: Mapping[str, BackboneSettings | Mapping[str, Any]], **settings: Any) -> None:
        super().__init__()
        self.settings = checked(ModuleSettings, {"backbone": backbone, **settings})
        self.save_hyperparameters(self.settings.model_dump())
        backbones, gating, shape = self.settings.backbone, self.settings.gating, self.settings.model
        self.num_classes = shape.num_classes
        self.loss = self.settings.loss.build(self.num_classes, self.settings.class_counts)
        rest = shape.feature_dim, shape.dropout, shape.gradient_checkpointing
        self.ensemble = KneeEnsemble(backbones, gating, self.loss.num_outputs, *rest)
        augment = self.settings.augment
        self.augment = Augmentation(augment) if augment and not augment.changes_nothing else None
        self.collected = CollectedLogits()
        self.compiled = False
        self._wake_norms: Callable[[], None] = _nothing

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> "GradingModule":
        """As Lightning's own, of a file that is what was written; a UserError says what is wrong with another."""
        if isinstance(checkpoint_path, (str, Path)):
            read_checkpoint(checkpoint_path)
        return super().load_from_checkpoint(checkpoint_path, *args, **kwargs)

    def use_class_counts(self, counts: Sequence[int]) -> None:
        """Weigh classes by their training films, if the loss does so."""
        self.hparams["class_counts"] = list(counts)
        self.loss = self.settings.loss.build(self.num_classes, counts)

    def setup(self, stage: str | None = None) -> None:
        """Compile the trunks if the run does so: here, as what is compiled isn't sent to the processes of ddp."""
        if (self.settings.run or {}).get("compile") and not self.compiled:
            self.ensemble.compile_trunks()
            self.compiled = True

    def forward(self, films: Tensor) -> EnsembleOutput:
        """Grade `films` [B, 1, H, W], uint8 or float in 0-1."""
        return self.ensemble(films)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one augmented batch."""
        seed_step(self, self.settings.seed, batch_idx)
        is_pooled = batch.films.ndim == 2  # by frozen trunks, augmented before
        films = self.augment(batch.films) if self.augment and not is_pooled else batch.films
        if len(films) == 1:
            self._wake_norms = let_norms_rest(self.ensemble)
        loss = self._loss(films, batch.labels)
        log_loss(self, loss, batch_idx, len(batch.labels))
        return loss

    def _loss(self, films: Tensor, labels: Tensor) -> Tensor:
        mixup = self.settings.augment.mixup if self.settings.augment else 0.0
        if not mixup:
            return self.loss(self.ensemble(films).logits, labels)
        films, partners, share = mixed(films, mixup)
        logits = self.ensemble(films).logits
        return share * self.loss(logits, labels) + (1 - share) * self.loss(logits, labels[partners])

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """As Lightning's own, of which torch computes a part in float32 where a processor is slow in bfloat16."""
        run = self.settings.run or {}
        precision = None if run.get("compile") else run.get("precision")
        with depthwise_in_float32(self.ensemble, self.device, precision):
            super().backward(loss, *args, **kwargs)

    def on_train_batch_end(self, *_: Any) -> None:
        """End what a batch of one film needed."""
        self._wake_norms()
        self._wake_norms = _nothing

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect one batch's logits."""
        self.collected.update(self.ensemble(batch.films).logits, batch.labels, batch.rows)

    test_step = validation_step

    def on_validation_epoch_end(self) -> None:
        """Log `val/*` over all films."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log `test/*` over all films."""
        self._log_metrics("test")

    def _log_metrics(self, prefix: str) -> None:
        logits, labels = self.collected.compute()
        self.collected.reset()
        if spoilt := int((~np.isfinite(logits).all(axis=1)).sum()):
            log.warning("Epoch %d: what the network answers to %d of %d %s films is not finite, and the epoch counts "
                        "as the worst.", self.current_epoch, spoilt, len(logits), prefix)  # fmt: skip
        values = measured(self.loss.cpu(), logits, labels)
        self.loss.to(self.device)
        digits = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has none in double precision
        metrics = {f"{prefix}/{k}": torch.tensor(v, dtype=digits, device=self.device) for k, v in values.items()}
        # Lightning warns without sync_dist, though every process has computed the same number from all films.
        self.log_dict(metrics, prog_bar=False, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over `parameter_groups`, stepped each batch by a warm-up and then a cosine or constant rate."""
        return stepped_each_batch(self.build_optimizer(), self.settings.scheduler, self.trainer)

    def build_optimizer(self) -> torch.optim.AdamW:
        """AdamW over `parameter_groups`: one fused kernel where torch has it, but not under fp16's gradient scaler.

        Lightning can't clip what a fused optimiser unscales by itself.
        """
        settings = self.settings.optimizer
        groups = self.parameter_groups()
        scaled = (self.settings.run or {}).get("precision") == "16-mixed"
        fused = not scaled and all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
        return torch.optim.AdamW(
            groups, lr=settings.learning_rate, betas=(settings.betas[0], settings.betas[1]), fused=fused or None
        )

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, which under bf16 refuses every fused optimiser though there is no gradient scaler."""
        if gradient_clip_val:
            clip = nn.utils.clip_grad_value_ if gradient_clip_algorithm == "value" else nn.utils.clip_grad_norm_
            clip([parameter for group in optimizer.param_groups for parameter in group["params"]], gradient_clip_val)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trunks at `learning_rate * backbone_scale`; weight decay on all but norms, biases and embeddings."""
        settings = self.settings.optimizer
        undecayed = set(_undecayed(self.ensemble))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.ensemble.named_parameters():
            if parameter.requires_grad:
                in_trunk = name.startswith("backbones.") and name.split(".")[2] == "trunk"
                groups.setdefault((in_trunk, name in undecayed), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": settings.learning_rate * (settings.backbone_scale if in_trunk else 1.0),
                "weight_decay": 0.0 if plain else settings.weight_decay,
            }
            for (in_trunk, plain), parameters in groups.items()
        ]


def _nothing() -> None:
    """No norm rests."""


def _undecayed(ensemble: KneeEnsemble) -> Iterator[str]:
    """Names of vectors and scalars (norms, biases, scales) and of what the network itself exempts (embeddings)."""
    for name, parameter in ensemble.named_parameters():
        if parameter.ndim <= 1:
            yield name
    for key, backbone in ensemble.backbones.items():
        for name in getattr(backbone.trunk, "no_weight_decay", set)():
            yield f"backbones.{key}.trunk.{name}"
