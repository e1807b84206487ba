"""How fast a network learns: settings of AdamW, and the curve of the learning rate."""

import math
from typing import Annotated, Literal

from pydantic import Field

from legradnet.settings import Settings

_NAME = "set by `scheduler=warmup_cosine`, `constant`"
_Decay = Annotated[float, Field(ge=0, lt=1)]
_Epochs = Annotated[float, Field(ge=0, le=1e6)]


class OptimizerSettings(Settings):
    """Config group `optimizer`: AdamW (Loshchilov and Hutter 2019)."""

    learning_rate: float = Field(
        default=1e-3, ge=1e-9, le=100, description="AdamW's learning rate for projections, gate and head"
    )
    weight_decay: float = Field(default=0.05, ge=0, le=100, description="not on norms, biases, embeddings")
    backbone_scale: float = Field(default=0.1, ge=0, le=100, description="factor of the learning rate for the trunks")
    betas: list[_Decay] = Field(
        default=[0.9, 0.999], min_length=2, max_length=2, description="AdamW's two decay rates, each below 1"
    )


class WarmupCosineSettings(Settings):
    """Config group `scheduler=warmup_cosine`."""

    name: Literal["warmup_cosine"] = Field(default="warmup_cosine", description=_NAME)
    warmup_epochs: _Epochs = Field(default=1.0, description="linear warm-up")
    final_scale: float = Field(default=0.01, ge=0, le=1, description="factor at the end of the cosine")


class ConstantSettings(Settings):
    """Config group `scheduler=constant`."""

    name: Literal["constant"] = Field(default="constant", description=_NAME)
    warmup_epochs: _Epochs = Field(default=1.0, description="linear warm-up")


SchedulerSettings = Annotated[WarmupCosineSettings | ConstantSettings, Field(discriminator="name")]


class LearningRateCurve:
    """Factor of the learning rate at each step: linear warm-up, then constant or half a cosine (arXiv:1608.03983).

    Args:
        settings: Which of the two; a warm-up is at most as long as the whole run.
        total_steps: Optimiser steps of the whole run.
        epochs: Epochs of the whole run.
    """

    def __init__(self, settings: SchedulerSettings, *, total_steps: int, epochs: int) -> None:
        # plain values under these names: LambdaLR puts them into last.ckpt, and takes them from it
        self.cosine = isinstance(settings, WarmupCosineSettings)
        self.total = total_steps
        self.warmup = min(total_steps, round(settings.warmup_epochs * total_steps / epochs))
        self.final = settings.final_scale if isinstance(settings, WarmupCosineSettings) else 0.0

    def __call__(self, step: int) -> float:
        """Factor at `step`, counted from 0."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if not self.cosine:
            return 1.0
        progress = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))
