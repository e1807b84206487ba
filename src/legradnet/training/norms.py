"""Batch norms over the films of all processes: as if each step's films were one batch."""

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.modules.batchnorm import _BatchNorm


class SynchronisedNorms(LayerSync):
    """Let batch norms take mean and variance over all processes while they train, on GPUs and CPUs.

    Lightning's own takes torch's conversion, which makes plain norms of those of timm that hold an activation and so
    leaves the activation out, and runs on GPUs only. Here a norm stays the module that it is, and has another forward.
    """

    def __init__(self) -> None:
        self._before: list[tuple[nn.Module, type]] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"_before": []}  # each process of ddp has its own

    def apply(self, model: nn.Module) -> nn.Module:
        """Synchronise the batch norms of `model`."""
        for norm in model.modules():
            kind = type(norm)
            known = isinstance(norm, BatchNormAct2d) or kind.forward is _BatchNorm.forward
            if isinstance(norm, _BatchNorm) and norm.track_running_stats and known:
                self._before.append((norm, kind))
                norm.__class__ = type(kind.__name__, (_Synchronised, kind), {})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """End it."""
        while self._before:
            norm, kind = self._before.pop()
            norm.__class__ = kind
        return model


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Synchronised(_BatchNorm):
    process_group = None
    _check_non_zero_input_channels = nn.SyncBatchNorm._check_non_zero_input_channels

    def forward(self, input: Tensor) -> Tensor:
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(input)
        on_gpu = input.device.type == "cuda"  # where torch has kernels for it
        films = nn.SyncBatchNorm.forward(self, input) if on_gpu else _normalised(self, input)  # type: ignore[arg-type]
        return self.act(self.drop(films)) if isinstance(self, BatchNormAct2d) else films


def _normalised(norm: _BatchNorm, films: Tensor) -> Tensor:
    """What `torch.nn.SyncBatchNorm` gives on a GPU: `films` [B, C, ...] normalised over all processes' B and ..."""
    assert norm.num_batches_tracked is not None and norm.running_mean is not None and norm.running_var is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    over = [dim for dim in range(films.ndim) if dim != 1]
    values = films.float()
    variance, mean = torch.var_mean(values, over, correction=0)
    own = torch.stack([torch.ones_like(mean), mean, variance + mean.square()]).double()  # squares need the digits
    count, mean, square = _SumOverProcesses.apply(own * (values.numel() / len(mean)))
    mean, variance = mean / count, square / count - (mean / count).square()
    with torch.no_grad():
        norm.running_mean.lerp_(mean.float(), share)
        norm.running_var.lerp_((variance * count / (count - 1)).float(), share)
    scale = (variance + norm.eps).rsqrt()
    scale = scale if norm.weight is None else scale * norm.weight
    shift = -mean * scale if norm.bias is None else norm.bias - mean * scale
    shape = [1, -1, *[1] * (films.ndim - 2)]
    return (values * scale.float().view(shape) + shift.float().view(shape)).to(films.dtype)
