"""Random weights in a trained network's place, from its last layer down: a map that stays the same never saw them."""

from copy import deepcopy
from typing import cast
from zlib import crc32

import torch
from torch import nn

from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble

LEVELS = (0, 25, 50, 75, 100)  # percent of each trunk's layers; at 0 gate, head and projections are random already


def randomise(ensemble: KneeEnsemble, share: float, seed: int) -> KneeEnsemble:
    """A copy of `ensemble` whose head, gate, projections and last `share` of each trunk's layers are random.

    The cascade of Adebayo et al. 2018 (arXiv:1810.03292). A layer is a module with weights of its own; its values are
    shuffled, tensor by tensor, so that they keep their scale and the activations theirs. A larger share shuffles the
    same layers in the same way, and more.
    """
    copy = deepcopy(ensemble)
    layers = [*_layers(copy.head), *_layers(copy.gate)]
    for backbone in copy.backbones.values():
        trunk = _layers(cast(Backbone, backbone).trunk)
        layers += _layers(cast(Backbone, backbone).projection)
        layers += trunk[len(trunk) - round(share * len(trunk)) :]
    names = {module: name for name, module in copy.named_modules()}
    for layer in layers:
        random = torch.Generator().manual_seed(seed + crc32(names[layer].encode()))
        for tensor in _own(layer):
            mixed = tensor.detach().flatten()[torch.randperm(tensor.numel(), generator=random).to(tensor.device)]
            tensor.data.copy_(mixed.view_as(tensor))
    return copy


def _layers(module: nn.Module) -> list[nn.Module]:
    """Modules with weights of their own, in the order in which networks define them: first layers first."""
    return [layer for layer in module.modules() if any(True for _ in layer.parameters(recurse=False))]


def _own(layer: nn.Module) -> list[torch.Tensor]:
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return [tensor for tensor in tensors if tensor.is_floating_point()]
