"""Backbones: timm networks that each resize and normalise one gray film for themselves.

Which timm network a key stands for is a file in `conf/backbone/`; what is the same for all of them is here.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from legradnet.errors import UserError
from legradnet.network import tiny

assert all(map(timm.is_model, tiny.NAMES))  # importing `tiny` puts its networks in timm's registry


@dataclass(frozen=True)
class BackboneConfig:
    """Settings of one backbone.

    Args:
        timm_name: Name in timm's registry, e.g. `vit_base_patch16_224`.
        weights: Local safetensors, state dict, or checkpoint of ours for the trunk; None = `model.pretrained`.
        frozen: Keep the trunk as it is, in eval mode; only its projection trains.
        image_size: Side in pixels that films are resized to for this backbone; None = the network's native size.
        precision: f32 or bf16 (autocast) for the trunk, whatever the rest is computed in; None = as the rest.
    """

    timm_name: str
    weights: str | None = None
    frozen: bool = False
    image_size: int | None = None
    precision: Literal["f32", "bf16"] | None = None


class Backbone(nn.Module):
    """One timm network without its classifier, and a projection of its pooled features.

    Any film size works: the film is resized (bilinear, antialiased) to `image_size`. Networks with a fixed grid (ViT's
    position embedding, Swin's windows) are built for `image_size`, and pretrained embeddings are resampled to it.

    Args:
        config: Which network, and how it is used.
        feature_dim: Width D of the projected feature.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them. Batch norms then
            see each batch twice, so that their running statistics follow faster.

    Raises:
        UserError: `timm_name` is unknown, or the network can't be built for `image_size`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: BackboneConfig, feature_dim: int, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.config = config
        self.trunk: Any
        self.trunk, self.image_size = build_trunk(config)
        if config.frozen:
            self.trunk.requires_grad_(False)
            self.trunk.eval()  # Lightning's fit leaves modes as it finds them, and never calls `train`
        data = self.trunk.pretrained_cfg
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(1, 3, 1, 1), persistent=False)
        self.width: int = getattr(self.trunk, "head_hidden_size", None) or self.trunk.num_features
        self.projection = nn.Sequential(nn.Linear(self.width, feature_dim), nn.LayerNorm(feature_dim))
        self.recomputed_whole = gradient_checkpointing and not config.frozen and not checkpoint_blocks(self.trunk)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode as usual, but a frozen trunk stays in eval mode (batch norm, dropout, drop-path)."""
        super().train(mode)
        if self.config.frozen:
            self.trunk.eval()
        return self

    def prepare(self, films: Tensor) -> Tensor:
        """Resize and normalise `films` [B, 1, H, W] in 0-1 to the network's input [B, 3, S, S]."""
        return self.normalise(resize(films, self.image_size))

    def normalise(self, films: Tensor) -> Tensor:
        """Give `films` [B, 1, S, S] in 0-1, of the network's own side, its channels and its scale: [B, 3, S, S]."""
        return ((films - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def autocast(self, device: torch.device) -> torch.autocast | nullcontext[None]:
        """The context that the trunk computes in: its own `precision` on `device`, or the one around it."""
        if self.config.precision is None:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16")

    def pool(self, films: Tensor) -> Tensor:
        """Pooled trunk features [B, width] of `films` [B, 1, H, W] in 0-1; a frozen trunk keeps no graph."""
        inputs = self.prepare(films)
        with self.autocast(films.device), torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.frozen):
            if self.recomputed_whole and self.training:
                pooled = checkpoint(self.trunk, inputs, use_reentrant=False)
            else:
                pooled = self.trunk(inputs)
        return pooled if self.config.precision is None else pooled.float()

    def forward(self, films: Tensor) -> Tensor:
        """Project `films` [B, 1, H, W] in 0-1 to one token each, [B, feature_dim]."""
        return self.projection(self.pool(films))


def resize(films: Tensor, side: int) -> Tensor:
    """Resize `films` [B, 1, H, W] to [B, 1, side, side] (bilinear, antialiased); as they are if they fit."""
    if films.shape[-2:] == (side, side):
        return films
    return F.interpolate(films, (side, side), mode="bilinear", antialias=True, align_corners=False)


def build_trunk(config: BackboneConfig) -> tuple[Any, int]:
    """Build the classifier-less network at random weights; return it and the side of its input in pixels."""
    native = network_settings(config.timm_name)
    size = config.image_size or native.input_size[-1]
    fixed_grid: dict[str, Any] = {"img_size": size} if native.fixed_input_size and size != native.input_size[-1] else {}
    try:
        trunk = timm.create_model(config.timm_name, num_classes=0, **fixed_grid)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{config.timm_name} can't be built for image_size={size}: {error}") from error
    return trunk.to(memory_format=torch.channels_last), size


def network_settings(timm_name: str) -> Any:
    """timm's settings of a network: input size, mean and std, where its weights are; UserError if unknown."""
    if settings := timm.get_pretrained_cfg(timm_name) if timm.is_model(timm_name) else None:
        return settings
    near = timm.list_models(f"*{timm_name.split('_')[0]}*")[:8]
    hint = f" Similar: {', '.join(near)}." if near else ""
    raise UserError(f"timm knows no model named {timm_name!r} (backbone.<key>.timm_name).{hint}")


def checkpoint_blocks(trunk: Any) -> bool:
    """Turn on timm's own block-wise gradient checkpointing; False where the network has none."""
    try:
        trunk.set_grad_checkpointing(True)
    except (AssertionError, AttributeError):
        return False
    return True


def parse_backbones(backbone: Mapping[str, Any]) -> dict[str, BackboneConfig]:
    """Turn the config group `backbone` ({key: settings}) into settings; raise UserError on an empty or odd one."""
    if not backbone:
        raise UserError("No backbone chosen: backbone=all, backbone=vit, or 'backbone=[densenet,vit]'.")
    known = BackboneConfig.__dataclass_fields__
    parsed = {}
    for key, settings in backbone.items():
        if not isinstance(settings, Mapping) or "timm_name" not in settings:
            raise UserError(f"backbone.{key} needs a timm_name.")
        if unknown := sorted(set(settings) - set(known)):
            raise UserError(f"backbone.{key} has unknown keys {unknown}; known: {sorted(known)}.")
        parsed[key] = BackboneConfig(**{str(name): value for name, value in settings.items()})
    return parsed
