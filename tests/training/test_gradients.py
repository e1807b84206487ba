"""Gradients of depthwise convolutions in bfloat16: the fast way gives what the usual one does."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from legradnet.training.gradients import DepthwiseInFloat32
from legradnet.training.run import build_module
from small_runs import compose


def gradients(layer, films, mode=None):
    layer.zero_grad()
    films = films.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = layer(films).float().square().mean()
    if mode is None:
        loss.backward()
    else:
        with mode:
            loss.backward()
    return [films.grad, *(parameter.grad for parameter in layer.parameters())]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("groups", [8, 1, 2])
@pytest.mark.parametrize("bias", [False, True])
def test_the_same_gradients_to_bfloat16s_digits(stride, kernel, groups, bias):
    torch.manual_seed(1)
    layer = nn.Conv2d(8, 8, kernel, stride, kernel // 2, groups=groups, bias=bias)
    films = torch.randn(4, 8, 21, 20)
    plain, fast = gradients(layer, films), gradients(layer, films, DepthwiseInFloat32())
    for one, other in zip(plain, fast, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.02 * float(one.abs().max()))


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.calls.append((args[0].dtype, args[-1]))
        return func(*args, **(kwargs or {}))


def test_the_kernels_gradient_is_computed_in_float32():
    layer, seen = nn.Conv2d(8, 8, 5, padding=2, groups=8, bias=False), Seen()
    with seen:
        gradients(layer, torch.randn(2, 8, 9, 9), DepthwiseInFloat32())
    assert seen.calls == [(torch.bfloat16, [True, False, False]), (torch.float32, [False, True, False])]


@pytest.mark.parametrize(
    ("precision", "network", "frozen", "entered"),
    [
        ("bf16-mixed", "convnext", False, True),
        ("bf16-mixed", "convnext", True, False),
        ("bf16-mixed", "vit", False, False),
        ("32-true", "convnext", False, False),
    ],
)
def test_a_training_in_bfloat16_on_a_processor_uses_it_for_networks_that_have_such_and_learn(
    precision, network, frozen, entered, monkeypatch
):
    backbone = [f"backbone.vit.timm_name=tiny_{network}", f"backbone.vit.frozen={frozen}"]
    module = build_module(compose(f"trainer.precision={precision}", *backbone))
    monkeypatch.setattr(DepthwiseInFloat32, "__enter__", lambda self: seen.append(self) or self)
    monkeypatch.setattr(DepthwiseInFloat32, "__exit__", lambda *_: None)
    seen = []
    module.backward(torch.zeros((), requires_grad=True))
    assert bool(seen) == entered
