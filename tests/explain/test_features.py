"""A network is left as it was found, and its tensors are laid out by their shapes."""

import pytest
import torch

from legradnet.errors import UserError
from legradnet.explain.features import as_grid, token, token_and_place, undisturbed
from legradnet.network.ensemble import KneeEnsemble

PREFIXED = torch.nn.Identity()
PREFIXED.num_prefix_tokens = 1
PREFIXED.num_features = 8


def grid():
    return torch.arange(2 * 8 * 3 * 3).view(2, 8, 3, 3).float()


@pytest.mark.parametrize(
    "laid_out",
    [
        grid(),
        grid().permute(0, 2, 3, 1),
        torch.cat([torch.full((2, 1, 8), -1.0), grid().flatten(2).transpose(1, 2)], dim=1),
    ],
    ids=["NCHW", "NHWC", "tokens"],
)
def test_every_layout_becomes_the_same_grid(laid_out):
    assert torch.equal(as_grid(PREFIXED, laid_out), grid())


def test_a_grid_as_wide_as_deep_is_read_as_timm_says():
    network = torch.nn.Identity()
    network.num_features, network.output_fmt = 3, "NHWC"
    square = torch.rand(1, 3, 3, 3)
    assert torch.equal(as_grid(network, square), square.permute(0, 3, 1, 2))


@pytest.mark.parametrize("shape", [(2, 9, 8), (2, 8), (2, 8, 3, 3, 3)])
def test_tokens_that_form_no_grid_are_refused(shape):
    with pytest.raises(UserError):
        as_grid(PREFIXED, torch.zeros(shape))


@pytest.mark.parametrize(
    "name", ["tiny_densenet", "tiny_swin", "tiny_convnext", "tiny_vit", "tiny_xception", "test_vit2", "test_vit3"]
)
def test_the_explained_token_is_the_one_that_grades(name):
    torch.manual_seed(0)
    network = KneeEnsemble({"one": {"timm_name": name, "image_size": 48}}, {"name": "mean"}, 2, 16).eval()
    films = torch.rand(2, 1, 40, 56)
    backbone = network.backbones["one"]
    expected = backbone(films).detach()
    with undisturbed(network) as twin:
        backbone = twin.backbones["one"]
        explained, place = token_and_place(backbone, films)
        torch.testing.assert_close(explained, expected)
        torch.testing.assert_close(token(backbone, films), expected)
        (gradient,) = torch.autograd.grad(explained[:, 0].sum(), place)
        assert place.is_leaf  # the trunk before it isn't differentiated
        assert as_grid(backbone.trunk, gradient).flatten(1).abs().sum(dim=1).gt(0).all()


def small():
    return KneeEnsemble({"one": {"timm_name": "tiny_vit", "image_size": 48}}, {"name": "mean"}, 2, 16)


def switches(network):
    names = ("training", "fused_attn", "_forward_hooks")
    found = [(name, vars(module)[name]) for module in network.modules() for name in names if name in vars(module)]
    return repr(found), [weight.requires_grad for weight in network.parameters()]


def test_a_network_that_is_looked_into_is_never_changed_and_its_twin_has_the_very_weights():
    network = small().train()
    before = switches(network)
    with undisturbed(network) as twin, undisturbed(network) as other:
        assert twin is not network and twin is not other  # each thread has its own
        assert switches(network) == before != switches(twin)
        assert [w.data_ptr() for w in twin.parameters()] == [w.data_ptr() for w in network.parameters()]
        assert not any(weight.requires_grad for weight in twin.parameters())
    with undisturbed(network) as again:
        assert again in (twin, other)


def test_a_network_that_was_loaded_anew_or_rebuilt_gets_another_twin():
    network = small()
    with undisturbed(network) as twin:
        pass
    network.load_state_dict({name: tensor.clone() for name, tensor in network.state_dict().items()}, assign=True)
    with undisturbed(network) as loaded:
        assert loaded is not twin
        assert next(loaded.parameters()).data_ptr() == next(network.parameters()).data_ptr()
    network.backbones["one"].trunk.blocks = torch.nn.Identity()
    with undisturbed(network) as rebuilt:
        assert isinstance(rebuilt.backbones["one"].trunk.blocks, torch.nn.Identity)


def test_a_class_token_without_an_attention_to_look_into_is_told():
    network = KneeEnsemble({"one": {"timm_name": "tiny_vit", "image_size": 48}}, {"name": "mean"}, 2, 16)
    backbone = network.backbones["one"]
    backbone.trunk.blocks = torch.nn.Identity()
    with pytest.raises(UserError, match="tiny_vit"):
        token_and_place(backbone, torch.rand(1, 1, 48, 48))
