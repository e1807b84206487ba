"""Attention rollout (Abnar and Zuidema 2020, arXiv:2005.00928); captum has none."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from legradnet.explain.features import head_reads_patches, prefix_tokens
from legradnet.network.backbones import Backbone


@torch.no_grad()
def attention_rollout(backbone: Backbone, films: Tensor) -> Tensor | None:
    """How much of the pooled feature was attended to from each patch: [B, h, w], at least 0, for any target.

    Layer by layer, half of a token stays itself and half is the mean over the heads of what it attends to. Read is
    the class token's row, or the mean over the patches' rows where the head pools those. A row sums to 1 with its
    prefix tokens, whose share is left out. `films` are [B, 1, H, W] in 0-1; fused attention must be off.

    None where tokens don't all attend to each other: in CNNs, and in Swin, whose windows have no common rows.
    """
    trunk = backbone.trunk
    flow: list[Tensor] = []  # the running product [B, T, T]; not every layer's [B, heads, T, T]

    def multiply(module: nn.Module, inputs: Any, attention: Tensor) -> None:
        if attention.ndim != 4 or len(attention) != len(films) or attention.shape[2] != attention.shape[3]:
            return
        layer = attention.float().mean(dim=1)
        layer = (layer + torch.eye(layer.shape[1], device=layer.device)) / 2
        layer = layer / layer.sum(dim=2, keepdim=True)
        flow[:] = [layer @ flow[0] if flow and flow[0].shape == layer.shape else layer]

    # timm applies this dropout, idle in eval mode, to the weights themselves
    weights = [module for name, module in trunk.named_modules() if name.endswith("attn_drop")]
    if not weights:
        return None
    hooks = [module.register_forward_hook(multiply) for module in weights]
    try:
        with backbone.autocast(films.device):
            features = trunk.forward_features(backbone.prepare(films))
    finally:
        for hook in hooks:
            hook.remove()
    if features.ndim != 3 or not flow or flow[0].shape[1] != features.shape[1]:
        return None
    prefix = prefix_tokens(trunk, features)
    rows = flow[0][:, prefix:] if head_reads_patches(trunk, features) else flow[0][:, :prefix]
    shares = rows.mean(dim=1)[:, prefix:]
    side = isqrt(shares.shape[1])
    return shares.reshape(-1, side, side)
