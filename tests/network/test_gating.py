import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from legradnet.errors import UserError
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.gating import (
    ConcatGate,
    ConcatSettings,
    MeanGate,
    MeanSettings,
    MhaSettings,
    MlpSettings,
    MultiHeadAttentionGate,
)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([MhaSettings(dropout=0.5), MlpSettings(dropout=0.5), MeanSettings()]),
    st.integers(1, 4),
    st.integers(1, 5),
    st.booleans(),
)
def test_gate_weights_of_each_film_sum_to_one_in_training_and_in_use(gating, batch, backbones, training):
    gate = gating.build(backbones, 16).train(training)
    fused, weights = gate(torch.randn(batch, backbones, 16) * 5)
    assert fused.shape == (batch, 16)
    assert weights.shape == (batch, backbones)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(batch))
    assert (weights >= 0).all()


def test_concat_fuses_without_weights():
    fused, weights = ConcatGate(3, 16)(torch.randn(2, 3, 16))
    assert fused.shape == (2, 16)
    assert weights is None


def test_attention_dropout_changes_the_fused_feature_but_not_the_reported_weights():
    gate = MultiHeadAttentionGate(4, 16, dropout=0.5).train()
    tokens = torch.randn(8, 4, 16)
    first, second = gate(tokens), gate(tokens)
    assert not torch.equal(first[0], second[0])
    torch.testing.assert_close(first[1], second[1])


def test_attention_of_each_head_sums_to_one():
    heads = MultiHeadAttentionGate(3, 16, num_heads=2).head_weights(torch.randn(5, 3, 16))
    assert heads.shape == (5, 2, 3)
    torch.testing.assert_close(heads.sum(dim=-1), torch.ones(5, 2))


def test_mean_gate_weighs_every_backbone_the_same():
    tokens = torch.randn(2, 4, 8)
    fused, weights = MeanGate(4, 8)(tokens)
    torch.testing.assert_close(fused, tokens.mean(dim=1))
    assert (weights == 0.25).all()


@pytest.mark.parametrize("gating", [MhaSettings(), MlpSettings(), ConcatSettings(), MeanSettings()])
def test_every_gate_passes_gradients_to_every_backbone(gating):
    tokens = torch.randn(2, 3, 16, requires_grad=True)
    gating.build(3, 16).eval()(tokens)[0].square().sum().backward()
    assert (tokens.grad.abs().sum(dim=(0, 2)) > 0).all()


def test_an_unknown_gate_is_told_with_the_choices():
    with pytest.raises(UserError, match="gating.name=softmax must be one of mha, mlp, concat, mean"):
        KneeEnsemble({"vit": {"timm_name": "tiny_vit"}}, {"name": "softmax"}, 5)


def test_a_setting_of_another_gate_is_told():
    with pytest.raises(UserError, match="gating.num_heads is unknown; there are name, hidden_dim, dropout"):
        KneeEnsemble({"vit": {"timm_name": "tiny_vit"}}, {"name": "mlp", "num_heads": 2}, 5)


def test_heads_that_do_not_divide_the_width_are_told():
    with pytest.raises(UserError, match="num_heads=3 must divide model.feature_dim=16"):
        MultiHeadAttentionGate(2, 16, num_heads=3)
