"""Gradients of depthwise convolutions, which oneDNN computes in bfloat16 up to four times slower than in float32."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_backward = torch.ops.aten.convolution_backward.default


class DepthwiseInFloat32(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While this is entered, depthwise convolutions of bfloat16 have their slow gradients computed in float32.

    These are the kernels', and with a stride the films' too: measured with torch 2.14 on AVX512-BF16, where a training
    step of EfficientNet-Lite takes 0.65 of the time. All else runs as it would.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is not _backward or not _is_slow(*args):
            return func(*args, **(kwargs or {}))
        grad, films, kernels, *rest, (to_films, to_kernels, _) = args
        wide = grad.float(), films.float(), kernels.float()
        if max(rest[1]) > 1:
            found = _backward(*wide, *rest, [to_films, to_kernels, False])
        else:
            native = _backward(grad, films, kernels, *rest, [to_films, False, False])
            found = native[0], _backward(*wide, *rest, [False, to_kernels, False])[1]
        return *(None if given is None else given.to(grad.dtype) for given in found[:2]), None


def depthwise_in_float32(network: nn.Module, device: torch.device, precision: object) -> AbstractContextManager[object]:
    """What a backward pass of `network` runs in: `DepthwiseInFloat32` where `device` and `precision` need it."""
    is_slow = device.type == "cpu" and precision == "bf16-mixed" and has_depthwise(network)
    return DepthwiseInFloat32() if is_slow else nullcontext()


def has_depthwise(network: nn.Module) -> bool:
    """Whether `network` has a depthwise convolution that learns: looking at each step of others takes time too."""
    convolutions = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return any(1 < one.groups == one.in_channels and one.weight.requires_grad for one in convolutions)


def _is_slow(grad: Tensor, films: Tensor, kernels: Tensor, bias: Any, *rest: Any) -> bool:
    groups, wanted = rest[-2:]
    return bool(1 < groups == films.shape[1] and grad.dtype == torch.bfloat16 and not wanted[2])
