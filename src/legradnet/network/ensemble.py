"""The network: backbones side by side, a gate over their tokens, a linear head. Plain PyTorch."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from legradnet.network.backbones import Backbone, Backbones, BackboneSettings, resize
from legradnet.network.gating import GatingSettings, MhaSettings
from legradnet.network.losses import CrossEntropySettings, LossSettings
from legradnet.settings import Settings, Share, checked


class ShapeSettings(Settings):
    """What of the config group `model` is about the network alone."""

    feature_dim: int = Field(default=1024, ge=1, description="width of a backbone's token")
    num_classes: int = Field(default=5, ge=2, le=1000, description="grades; 5 = Kellgren-Lawrence")
    dropout: Share = Field(default=0.1, description="dropout before the head")
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations: less memory, more time; batch norms see each batch twice"
    )


class ModelSettings(ShapeSettings):
    """Config group `model`."""

    pretrained: bool = Field(default=True, description="trunks start from timm's pretrained weights")


class NetworkSettings(Settings):
    """The config groups that say what the network is; a checkpoint says them of itself."""

    backbone: Backbones
    gating: GatingSettings = MhaSettings()
    model: ModelSettings = ModelSettings()
    loss: LossSettings = CrossEntropySettings()


class EnsembleOutput(NamedTuple):
    """What the network says of B films with N backbones.

    `logits` [B, outputs]; `gate_weights` [B, N], each row sums to 1, or None under `concat`; `tokens` [B, N, D].
    """

    logits: Tensor
    gate_weights: Tensor | None
    tokens: Tensor


class KneeEnsemble(nn.Module):
    """Grade films with several backbones that a gate fuses.

    Args:
        backbone: {key: settings}, in the order of the gate's weights; settings are models or plain values.
        gating: The gate's settings, a model or plain values.
        num_outputs: Logits a film, as the loss wants them (`GradingLoss.num_outputs`).
        feature_dim: Width D of a backbone's token.
        dropout: Dropout before the head, 0-1.
        gradient_checkpointing: Trade time for memory in training.

    Raises:
        UserError: Unknown backbone or gate, or settings that don't go together.
    """

    def __init__(
        self,
        backbone: Mapping[str, BackboneSettings | Mapping[str, Any]],
        gating: GatingSettings | Mapping[str, Any],
        num_outputs: int,
        feature_dim: int = 1024,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        settings = checked(NetworkSettings, {"backbone": backbone, "gating": gating})
        self.backbones = nn.ModuleDict(
            {key: Backbone(own, feature_dim, gradient_checkpointing) for key, own in settings.backbone.items()}
        )
        self.gate = settings.gating.build(len(settings.backbone), feature_dim)
        self.head = nn.Sequential(nn.LayerNorm(feature_dim), nn.Dropout(dropout), nn.Linear(feature_dim, num_outputs))

    @property
    def keys(self) -> tuple[str, ...]:
        """Backbone keys in the order of the gate's weights."""
        return tuple(self.backbones)

    def compile_trunks(self) -> None:
        """Let torch compile each trunk when it is first run; the names in the state dict stay."""
        for backbone in self.backbones.values():
            cast(Backbone, backbone).trunk.compile()

    def pool(self, films: Tensor) -> Tensor:
        """Pooled features of all trunks side by side [B, W] of `films` [B, 1, H, W], uint8 or float in 0-1."""
        return torch.cat([backbone.pool(own) for backbone, own in self._resized(films)], dim=1)

    def tokens(self, films: Tensor) -> Tensor:
        """Token of `films` [B, 1, H, W] (uint8, or float in 0-1) from every backbone: [B, N, D].

        In the films' place may be what `pool` made of them [B, W].
        """
        if films.ndim == 2:
            backbones = [cast(Backbone, backbone) for backbone in self.backbones.values()]
            pooled = torch.split(films, [backbone.width for backbone in backbones], dim=1)
            return torch.stack([b.projection(own) for b, own in zip(backbones, pooled, strict=True)], dim=1)
        return torch.stack([backbone(own) for backbone, own in self._resized(films)], dim=1)

    def _resized(self, films: Tensor) -> Iterator[tuple[Backbone, Tensor]]:
        """Each backbone with the films at its side, resized once, however many networks share it."""
        if films.dtype == torch.uint8:
            films = films.float() / 255
        backbones = [cast(Backbone, backbone) for backbone in self.backbones.values()]
        resized = {side: resize(films, side) for side in {backbone.image_size for backbone in backbones}}
        return ((backbone, resized[backbone.image_size]) for backbone in backbones)

    def forward(self, films: Tensor) -> EnsembleOutput:
        """Grade `films` [B, 1, H, W], uint8 or float in 0-1, of any height and width, or what `pool` made of them."""
        tokens = self.tokens(films)
        fused, gate_weights = self.gate(tokens)
        return EnsembleOutput(self.head(fused).float(), gate_weights, tokens)
