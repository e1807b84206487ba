"""Class activation maps, from activations and the score's gradients with respect to them.

Each takes `activations` and `gradients` [B, C, h, w] and gives a map [B, h, w] without the usual final ReLU, so that
evidence against the target stays visible. captum's LayerGradCam is not used: it takes every layer for NCHW, which
is wrong for Swin and ViT, and one pass a layer.
"""

import torch
from torch import Tensor


def gradcam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighed by their mean gradient (Selvaraju et al. 2017, arXiv:1610.02391)."""
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def gradcam_plus_plus(activations: Tensor, gradients: Tensor) -> Tensor:
    """Channels weighed by their positive gradients (Chattopadhay et al. 2018, arXiv:1710.11063, equation 19).

    The paper's closed form is for exp(score) and activations after a ReLU. Where activations are signed, their
    positive part takes the ReLU's place in the denominator, which could pass zero otherwise.
    """
    positive = gradients.relu()
    total = activations.relu().sum(dim=(2, 3), keepdim=True)
    shares = positive / (2 * positive + total * positive.square()).clamp(min=torch.finfo(positive.dtype).tiny)
    return ((shares * positive).sum(dim=(2, 3), keepdim=True) * activations).sum(dim=1)


def hirescam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Gradient times activation, place by place (Draelos and Carin 2020, arXiv:2011.08891)."""
    return (gradients * activations).sum(dim=1)


def eigencam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Projection on the first principal component (Muhammad and Yeasin 2020, arXiv:2008.00299), at least 0.

    Knows no target: it shows what the network sees, not what speaks for a grade. The component's sign is arbitrary;
    taken is the one under which the map's sum is positive.
    """
    places = activations.flatten(2).transpose(1, 2)  # [B, hw, C]
    _, _, components = torch.linalg.svd(places, full_matrices=False)
    projection = (places @ components[:, 0, :, None]).squeeze(2)
    projection = projection * projection.sum(dim=1, keepdim=True).sign()
    return projection.relu().unflatten(1, tuple(activations.shape[2:]))
