"""Backbones: timm networks that each resize and normalise one gray film for themselves.

Which timm network a key stands for is a file in `conf/backbone/`; what is the same for all of them is here.
"""

from contextlib import nullcontext
from typing import Annotated, Any, Literal

import timm
import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from legradnet.errors import UserError
from legradnet.network import tiny
from legradnet.settings import PathText, Settings

_MOST = 64  # backbones of a network
TrunkPrecision = Literal["f32", "bf16"]


class BackboneSettings(Settings):
    """Config group `backbone.<key>`: which timm network, and how it is used."""

    timm_name: str = Field(description="any network of timm")
    weights: PathText | None = Field(
        default=None,
        description="local safetensors, state dict, or a checkpoint of ours, for this trunk; null = model.pretrained",
    )
    frozen: bool = Field(
        default=False,
        description="keep the trunk as it is, in eval mode (batch norm, dropout, drop-path); its projection trains",
    )
    image_size: Annotated[int, Field(ge=32, le=4096)] | None = Field(
        default=None, description="side that films are resized to for this network; null = its native size"
    )
    precision: TrunkPrecision | None = Field(
        default=None,
        description="f32 or bf16 for this trunk, e.g. f32 where bf16 is slower; null = as the trainer. "
        "Evaluating, predicting and explaining in f32 is f32 throughout",
    )


def _chosen(backbones: dict[str, BackboneSettings]) -> dict[str, BackboneSettings]:
    if not backbones:
        raise ValueError("backbone: none chosen; backbone=all, backbone=vit, or 'backbone=[densenet,vit]'")
    if len(backbones) > _MOST:
        raise ValueError(f"backbone: {len(backbones)} are more than the {_MOST} that can stand side by side")
    if dotted := [key for key in backbones if "." in key]:
        raise ValueError(f"backbone: the key {dotted[0]} can't have a dot in it")
    return backbones


Backbones = Annotated[dict[str, BackboneSettings], AfterValidator(_chosen)]  # in the order of the gate's weights


class Backbone(nn.Module):
    """One timm network without its classifier, and a projection of its pooled features.

    Any film size works: the film is resized (bilinear, antialiased) to `image_size`. Networks with a fixed grid (ViT's
    position embedding, Swin's windows) are built for `image_size`, and pretrained embeddings are resampled to it.

    Args:
        settings: Which network, and how it is used.
        feature_dim: Width D of the projected feature.
        gradient_checkpointing: Recompute activations in the backward pass instead of keeping them. Batch norms then
            see each batch twice, so that their running statistics follow faster.

    Raises:
        UserError: `timm_name` is unknown, or the network can't be built for `image_size`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: BackboneSettings, feature_dim: int, gradient_checkpointing: bool = False) -> None:
        super().__init__()
        self.settings = settings
        self.trunk: Any
        self.trunk, self.image_size = build_trunk(settings)
        if settings.frozen:
            self.trunk.requires_grad_(False)
            self.trunk.eval()  # Lightning's fit leaves modes as it finds them, and never calls `train`
        data = self.trunk.pretrained_cfg
        self.register_buffer("mean", torch.tensor(data["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(data["std"]).view(1, 3, 1, 1), persistent=False)
        self.width: int = getattr(self.trunk, "head_hidden_size", None) or self.trunk.num_features
        self.projection = nn.Sequential(nn.Linear(self.width, feature_dim), nn.LayerNorm(feature_dim))
        self.recomputed_whole = gradient_checkpointing and not settings.frozen and not _checkpoint_blocks(self.trunk)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode as usual, but a frozen trunk stays in eval mode (batch norm, dropout, drop-path)."""
        super().train(mode)
        if self.settings.frozen:
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
        if self.settings.precision is None:
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16, enabled=self.settings.precision == "bf16")

    def pool(self, films: Tensor) -> Tensor:
        """Pooled trunk features [B, width] of `films` [B, 1, H, W] in 0-1; a frozen trunk keeps no graph."""
        inputs = self.prepare(films)
        with self.autocast(films.device), torch.set_grad_enabled(torch.is_grad_enabled() and not self.settings.frozen):
            if self.recomputed_whole and self.training:
                pooled = checkpoint(self.trunk, inputs, use_reentrant=False)
            else:
                pooled = self.trunk(inputs)
        return pooled if self.settings.precision is None else pooled.float()

    def forward(self, films: Tensor) -> Tensor:
        """Project `films` [B, 1, H, W] in 0-1 to one token each, [B, feature_dim]."""
        return self.projection(self.pool(films))


def resize(films: Tensor, side: int) -> Tensor:
    """Resize `films` [B, 1, H, W] to [B, 1, side, side] (bilinear, antialiased); as they are if they fit."""
    if films.shape[-2:] == (side, side):
        return films
    return F.interpolate(films, (side, side), mode="bilinear", antialias=True, align_corners=False)


def build_trunk(settings: BackboneSettings) -> tuple[Any, int]:
    """Build the classifier-less network at random weights; return it and the side of its input in pixels."""
    native = network_settings(settings.timm_name)
    size = settings.image_size or native.input_size[-1]
    fixed_grid: dict[str, Any] = {"img_size": size} if native.fixed_input_size and size != native.input_size[-1] else {}
    try:
        trunk = create_network(settings.timm_name, num_classes=0, **fixed_grid)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{settings.timm_name} can't be built for image_size={size}: {error}") from error
    return trunk.to(memory_format=torch.channels_last), size


def create_network(timm_name: str, **settings: Any) -> Any:
    """A network of timm's, or one of our tiny ones, at random weights."""
    create = tiny.create_network if timm_name in tiny.SETTINGS else timm.create_model
    return create(timm_name, **settings)


def network_settings(timm_name: str) -> Any:
    """timm's settings of a network: input size, mean and std, where its weights are; UserError if unknown."""
    if timm_name in tiny.SETTINGS:
        return tiny.SETTINGS[timm_name]
    if settings := timm.get_pretrained_cfg(timm_name) if timm.is_model(timm_name) else None:
        return settings
    near = timm.list_models(f"*{timm_name.split('_')[0]}*")[:8]
    hint = f" Similar: {', '.join(near)}." if near else ""
    raise UserError(f"timm knows no model named {timm_name!r} (backbone.<key>.timm_name).{hint}")


def _checkpoint_blocks(trunk: Any) -> bool:
    """Turn on timm's own block-wise gradient checkpointing; False where the network has none."""
    try:
        trunk.set_grad_checkpointing(True)
    except (AssertionError, AttributeError):
        return False
    return True
