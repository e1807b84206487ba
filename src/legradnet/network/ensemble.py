"""The network: backbones side by side, a gate over their tokens, a linear head. Plain PyTorch."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.network.backbones import Backbone, parse_backbones, resize
from legradnet.network.gating import build_gate


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
        backbone: {key: settings of `BackboneConfig`}, in the order of the gate's weights.
        gating: {"name": mha | mlp | concat | mean, and that gate's settings}.
        num_outputs: Logits a film, as the loss wants them (`GradingLoss.num_outputs`).
        feature_dim: Width D of a backbone's token.
        dropout: Dropout before the head, 0-1.
        gradient_checkpointing: Trade time for memory in training.

    Raises:
        UserError: Unknown backbone or gate, or settings that don't go together.
    """

    def __init__(
        self,
        backbone: Mapping[str, Any],
        gating: Mapping[str, Any],
        num_outputs: int,
        feature_dim: int = 1024,
        dropout: float = 0.1,
        gradient_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.configs = parse_backbones(backbone)
        if any("." in key for key in self.configs):
            raise UserError("A backbone's key can't have a dot in it.")
        self.backbones = nn.ModuleDict(
            {key: Backbone(config, feature_dim, gradient_checkpointing) for key, config in self.configs.items()}
        )
        self.gate = build_gate(
            num_tokens=len(self.configs), feature_dim=feature_dim, **{str(k): v for k, v in gating.items()}
        )
        self.head = nn.Sequential(nn.LayerNorm(feature_dim), nn.Dropout(dropout), nn.Linear(feature_dim, num_outputs))

    @property
    def keys(self) -> tuple[str, ...]:
        """Backbone keys in the order of the gate's weights."""
        return tuple(self.configs)

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
