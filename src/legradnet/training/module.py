"""The one LightningModule: loss, optimiser and metrics around a `KneeEnsemble`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor, nn

from legradnet.data.augment import Augmentation
from legradnet.data.dataset import Batch
from legradnet.errors import UserError
from legradnet.network.ensemble import EnsembleOutput, KneeEnsemble, NetworkSettings
from legradnet.settings import checked
from legradnet.training.metrics import CollectedLogits, measured


class GradingModule(LightningModule):
    """Train and validate a `KneeEnsemble`. Arguments are plain values: they are the checkpoint's hyperparameters.

    Building one never loads weights; `legradnet.network.weights` does that for a fresh run.

    Args:
        backbone: Config group `backbone`: {key: settings}.
        gating: Config group `gating`.
        model: `feature_dim`, `num_classes`, `dropout`, `gradient_checkpointing`.
        loss: Config group `loss`.
        optimizer: Config group `optimizer`.
        scheduler: Config group `scheduler`.
        augment: Config group `augment`; None leaves films as they are.
        films: How films were read (`image_size`, `fit`, `mirror_left`): kept for whoever grades new ones.
        run: Settings outside this module that a resumed run has to repeat; only kept.
        class_counts: Training films of each class, for balanced class weights.
        seed: Every training batch draws its augmentation and dropout from (seed, epoch, batch).
    """

    def __init__(
        self,
        *,
        backbone: Mapping[str, Any],
        gating: Mapping[str, Any],
        model: Mapping[str, Any],
        loss: Mapping[str, Any],
        optimizer: Mapping[str, Any],
        scheduler: Mapping[str, Any],
        augment: Mapping[str, Any] | None = None,
        films: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        class_counts: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        groups = {"backbone": dict(backbone), "gating": gating, "model": model, "loss": loss}
        self.network = checked(NetworkSettings, groups)
        shape = self.network.model
        self.num_classes = shape.num_classes
        self.loss = self.network.loss.build(self.num_classes, class_counts)
        self.ensemble = KneeEnsemble(
            *(self.network.backbone, self.network.gating, self.loss.num_outputs),
            *(shape.feature_dim, shape.dropout, shape.gradient_checkpointing),
        )
        self.augment = Augmentation(**augment) if augment and any(augment.values()) else None
        self.collected = CollectedLogits()
        self.compiled = False

    def use_class_counts(self, counts: Sequence[int]) -> None:
        """Weigh classes by their training films, if the loss does so."""
        self.hparams["class_counts"] = list(counts)
        self.loss = self.network.loss.build(self.num_classes, counts)

    def setup(self, stage: str | None = None) -> None:
        """Compile the trunks if the run does so: here, as what is compiled isn't sent to the processes of ddp."""
        if (self.hparams["run"] or {}).get("compile") and not self.compiled:
            self.ensemble.compile_trunks()
            self.compiled = True

    def forward(self, films: Tensor) -> EnsembleOutput:
        """Grade `films` [B, 1, H, W], uint8 or float in 0-1."""
        return self.ensemble(films)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one augmented batch."""
        # One stream a batch: a run that was killed and resumed draws what it would have drawn.
        place = np.random.SeedSequence([self.hparams["seed"], self.current_epoch, batch_idx, self.global_rank])
        # torch.manual_seed takes a millisecond to note the seed for each kind of device that isn't there
        seed = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        seed(int(place.generate_state(1)[0]))
        is_pooled = batch.films.ndim == 2  # by frozen trunks, augmented before
        films = self.augment(batch.films) if self.augment and not is_pooled else batch.films
        loss = self.loss(self.ensemble(films).logits, batch.labels)
        if not torch.isfinite(loss):
            raise UserError(
                f"The loss became {loss.item()} in epoch {self.current_epoch}, batch {batch_idx}: "
                "lower optimizer.learning_rate, or try trainer.precision=32-true."
            )
        self.log(
            "train/loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=len(batch.labels),
            sync_dist=True,
        )
        return loss

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
        values = measured(self.loss.cpu(), logits, labels)
        self.loss.to(self.device)
        digits = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has none in double precision
        told = {f"{prefix}/{k}": torch.tensor(v, dtype=digits, device=self.device) for k, v in values.items()}
        # Lightning warns without sync_dist, though every process has computed the same number from all films.
        self.log_dict(told, prog_bar=False, sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over `parameter_groups`, stepped each batch by a warm-up and then a cosine or constant rate."""
        optimizer = self.build_optimizer()
        total = int(self.trainer.estimated_stepping_batches)
        epochs = max(1, self.trainer.max_epochs or 1)
        curve = LearningRateCurve(total_steps=total, epochs=epochs, **self.hparams["scheduler"])
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, curve)
        return OptimizerLRSchedulerConfig(
            optimizer=optimizer, lr_scheduler={"scheduler": scheduler, "interval": "step"}
        )

    def build_optimizer(self) -> torch.optim.AdamW:
        """AdamW over `parameter_groups`: one fused kernel where torch has it, but not under fp16's gradient scaler.

        Lightning can't clip what a fused optimiser unscales by itself.
        """
        settings = self.hparams["optimizer"]
        groups = self.parameter_groups()
        scaled = (self.hparams["run"] or {}).get("precision") == "16-mixed"
        fused = not scaled and all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
        return torch.optim.AdamW(
            groups, lr=settings["learning_rate"], betas=tuple(settings["betas"]), fused=True if fused else None
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
        settings = self.hparams["optimizer"]
        undecayed = set(_undecayed(self.ensemble))
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, parameter in self.ensemble.named_parameters():
            if parameter.requires_grad:
                in_trunk = name.startswith("backbones.") and name.split(".")[2] == "trunk"
                groups.setdefault((in_trunk, name in undecayed), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": settings["learning_rate"] * (settings["backbone_scale"] if in_trunk else 1.0),
                "weight_decay": 0.0 if plain else settings["weight_decay"],
            }
            for (in_trunk, plain), parameters in groups.items()
        ]


class LearningRateCurve:
    """Factor of the learning rate at each step: linear warm-up, then constant or half a cosine (arXiv:1608.03983).

    Args:
        name: warmup_cosine or constant.
        total_steps: Optimiser steps of the whole run.
        epochs: Epochs of the whole run.
        warmup_epochs: Length of the warm-up in epochs; at most the whole run.
        final_scale: Factor at the end of the cosine.
    """

    def __init__(
        self, *, name: str, total_steps: int, epochs: int, warmup_epochs: float = 0.0, final_scale: float = 0.0
    ) -> None:
        if name not in ("warmup_cosine", "constant"):
            raise UserError(f"scheduler.name={name!r} is unknown; choose warmup_cosine or constant.")
        self.cosine = name == "warmup_cosine"
        self.total = total_steps
        self.warmup = min(total_steps, round(warmup_epochs * total_steps / epochs))
        self.final = final_scale

    def __call__(self, step: int) -> float:
        """Factor at `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if not self.cosine:
            return 1.0
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


def _undecayed(ensemble: KneeEnsemble) -> Iterator[str]:
    """Names of vectors and scalars (norms, biases, scales) and of what the network itself exempts (embeddings)."""
    for name, parameter in ensemble.named_parameters():
        if parameter.ndim <= 1:
            yield name
    for key, backbone in ensemble.backbones.items():
        for name in getattr(backbone.trunk, "no_weight_decay", set)():
            yield f"backbones.{key}.trunk.{name}"
