"""Networks that are made only to compare their tensors' shapes take no time for weights that nobody keeps."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from legradnet.network.drawn_apart import NotDrawn
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.tiny import SETTINGS


def ensemble():
    backbone = {name.removeprefix("tiny_"): {"timm_name": name} for name in SETTINGS}
    return KneeEnsemble(backbone, {"name": "mha"}, 5, feature_dim=16)


def tensors(network):
    named = [*network.named_parameters(), *network.named_buffers()]
    return {name: (tensor.shape, tensor.dtype, tensor.stride(), tensor.requires_grad) for name, tensor in named}


def test_a_network_that_is_not_drawn_has_the_tensors_of_one_that_is():
    with torch.device("meta"), NotDrawn():
        empty = ensemble()
    assert all(tensor.is_meta for tensor in empty.parameters())
    assert tensors(empty) == tensors(ensemble())


def test_no_weight_of_it_is_drawn():
    class Watched(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            drawn.append(func) if func in (torch.Tensor.uniform_, torch.Tensor.normal_) else None
            return func(*args, **(kwargs or {}))

    drawn = []
    with torch.device("meta"), Watched(), NotDrawn():
        ensemble()
    assert not drawn


@pytest.mark.parametrize("draw", [torch.nn.init.normal_, lambda tensor: tensor.uniform_(1, 2)])
def test_what_has_values_is_drawn_as_ever(draw):
    with NotDrawn():
        assert draw(torch.zeros(8)).abs().min() > 0
