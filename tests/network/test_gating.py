import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.errors import UserError
from legradnet.network.gating import GATES, build_gate


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(["mha", "mlp", "mean"]), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_gate_weights_of_each_film_sum_to_one_in_training_and_in_use(name, batch, backbones, training):
    settings = {} if name == "mean" else {"dropout": 0.5}
    gate = build_gate(name, backbones, 16, **settings).train(training)
    fused, weights = gate(torch.randn(batch, backbones, 16) * 5)
    assert fused.shape == (batch, 16)
    assert weights.shape == (batch, backbones)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(batch))
    assert (weights >= 0).all()


def test_concat_fuses_without_weights():
    fused, weights = build_gate("concat", 3, 16)(torch.randn(2, 3, 16))
    assert fused.shape == (2, 16)
    assert weights is None


def test_attention_dropout_changes_the_fused_feature_but_not_the_reported_weights():
    gate = build_gate("mha", 4, 16, dropout=0.5).train()
    tokens = torch.randn(8, 4, 16)
    first, second = gate(tokens), gate(tokens)
    assert not torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1], second[1])


def test_attention_of_each_head_sums_to_one():
    heads = build_gate("mha", 3, 16, num_heads=2).head_weights(torch.randn(5, 3, 16))
    assert heads.shape == (5, 2, 3)
    torch.testing.assert_close(heads.sum(dim=-1), torch.ones(5, 2))


def test_mean_gate_weighs_every_backbone_the_same():
    tokens = torch.randn(2, 4, 8)
    fused, weights = build_gate("mean", 4, 8)(tokens)
    torch.testing.assert_close(fused, tokens.mean(dim=1))
    assert (weights == 0.25).all()


@pytest.mark.parametrize("name", GATES)
def test_every_gate_passes_gradients_to_every_backbone(name):
    tokens = torch.randn(2, 3, 16, requires_grad=True)
    build_gate(name, 3, 16).eval()(tokens)[0].square().sum().backward()
    assert (tokens.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_an_unknown_gate_is_told_with_the_choices():
    with pytest.raises(UserError, match="mha, mlp, concat, mean"):
        build_gate("softmax", 2, 8)


def test_heads_that_do_not_divide_the_width_are_told():
    with pytest.raises(UserError, match="num_heads=3 must divide model.feature_dim=16"):
        build_gate("mha", 2, 16, num_heads=3)
