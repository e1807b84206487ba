"""Where a backbone's map is and how it is laid out, read off its tensors; a network looked into, and left as it is."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from math import isqrt
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble

# off while explaining: batch statistics and dropout, recomputed activations, attention that hides its weights
_SWITCHES = ("training", "grad_checkpointing", "fused_attn")


@dataclass(frozen=True)
class _Twin:
    """A copy of a network for one thread at a time, and what the network was made of when it was copied."""

    network: KneeEnsemble
    made_of: list[int]


_IDLE: WeakKeyDictionary[KneeEnsemble, SimpleQueue[_Twin]] = WeakKeyDictionary()  # as many as were ever used at once
_IDLE_LOCK = Lock()


@contextmanager
def undisturbed(network: KneeEnsemble) -> Iterator[KneeEnsemble]:
    """A twin of `network` to look into: in eval mode, with constant weights and plain attention, gradients on.

    The twin has modules and hooks of its own and the network's very weights, so that the network itself is never
    touched: other threads may grade with it, train it, or look into it at the same time, each into a twin of its own.
    """
    with _IDLE_LOCK:
        idle = _IDLE.setdefault(network, SimpleQueue())
    with torch.inference_mode(False), torch.enable_grad():
        made_of = _made_of(network)
        twin = None
        with suppress(Empty):
            while twin is None or twin.made_of != made_of:
                twin = idle.get_nowait()
        if twin is None or twin.made_of != made_of:
            twin = _Twin(_twin(network), made_of)
        yield twin.network
    idle.put(twin)  # not after an exception, which may have left something behind


def _made_of(network: nn.Module) -> list[int]:
    """The modules and the memory of the weights: another list once the network was moved, rebuilt or loaded anew."""
    tensors = chain(network.parameters(), network.buffers())
    return [*map(id, network.modules()), *(tensor.data_ptr() for tensor in tensors)]


def _twin(network: KneeEnsemble) -> KneeEnsemble:
    shared: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    for weight in network.parameters():
        shared[id(weight)] = nn.Parameter(weight.detach(), requires_grad=False)
    twin = deepcopy(network, shared)
    for module in twin.modules():
        for name in _SWITCHES:
            if name in vars(module):
                setattr(module, name, False)
    return twin


def token(backbone: Backbone, films: Tensor) -> Tensor:
    """Token [B, D] of `films` [B, 1, H, W] in 0-1, differentiable in the films even if the trunk is frozen."""
    with backbone.autocast(films.device):
        pooled = backbone.trunk(backbone.prepare(films))
    return backbone.projection(pooled)


def token_and_place(backbone: Backbone, films: Tensor) -> tuple[Tensor, Tensor]:
    """Token [B, D] of `films` [B, 1, H, W] in 0-1, and the activations that its map is read from.

    The activations are a leaf of the token's graph, so that a backward pass ends there. They are the trunk's last
    ones, unless its head reads a class token only: then no gradient reaches the last patches, and the place is the
    input of the last attention, whose keys and values are where patches still speak to the class token.

    Raises:
        UserError: A class token without such an attention.
    """
    trunk = backbone.trunk
    with _cut_before_last_attention(trunk) as attended, backbone.autocast(films.device):
        features = trunk.forward_features(backbone.prepare(films))
    if features.ndim != 3 or head_reads_patches(trunk, features):
        place = features = features.detach().float().requires_grad_()
    elif attended:
        place = attended[-1]
    else:
        name = backbone.settings.timm_name
        raise UserError(f"{name} has no place for a gradient map; method=occlusion or integrated_gradients has one.")
    return backbone.projection(trunk.forward_head(features)), place


@contextmanager
def _cut_before_last_attention(trunk: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the output of the last block's first norm as a leaf from which the graph goes on."""
    places: list[Tensor] = []

    def cut(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        if output.ndim != 3:
            return output
        places.append(output.detach().float().requires_grad_())
        return places[-1].to(output.dtype)

    norms = [module for name, module in trunk.named_modules() if name.endswith(".norm1")]
    hooks = [norm.register_forward_hook(cut) for norm in norms[-1:]]
    try:
        yield places
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def head_reads_patches(trunk: Any, features: Tensor) -> bool:
    """Whether the pooled feature changes when the patches in `features` [B, T, C] are blanked."""
    first = features[:1]
    blank = first.clone()
    blank[:, prefix_tokens(trunk, first) :] = 0
    return not torch.equal(trunk.forward_head(blank), trunk.forward_head(first))


def prefix_tokens(trunk: Any, tokens: Tensor) -> int:
    """How many of `tokens` [B, T, C] come before the patches: class, distillation and register tokens.

    Raises:
        UserError: The others form no square, though the network's input is one.
    """
    total = tokens.shape[1]
    prefix: int = getattr(trunk, "num_prefix_tokens", total - isqrt(total) ** 2)
    if isqrt(total - prefix) ** 2 != total - prefix:
        raise UserError(f"{type(trunk).__name__}: {total} tokens, {prefix} of them not patches, form no square grid.")
    return prefix


def as_grid(trunk: Any, activations: Tensor) -> Tensor:
    """Lay `activations` (NCHW, NHWC, or tokens [B, T, C]) out as [B, C, h, w].

    Raises:
        UserError: Any other shape.
    """
    if activations.ndim == 3:
        patches = activations[:, prefix_tokens(trunk, activations) :]
        side = isqrt(patches.shape[1])
        return patches.transpose(1, 2).reshape(len(patches), -1, side, side)
    if activations.ndim != 4:
        shape = tuple(activations.shape)
        raise UserError(f"{type(trunk).__name__}: features of shape {shape} can't be laid out as a map.")
    first, last = activations.shape[1], activations.shape[3]
    channels_last = last == trunk.num_features != first
    if first == last:  # a grid as wide as it is deep: only timm knows
        channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
    return activations.permute(0, 3, 1, 2) if channels_last else activations
