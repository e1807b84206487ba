import re

import pytest
import timm
import torch
import torch.nn.functional as F
import yaml
from torch import nn

from legradnet.cli import config_folder
from legradnet.errors import UserError
from legradnet.network.backbones import Backbone, BackboneSettings, build_trunk
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.gating import MeanSettings

FAMILIES = ["tiny_densenet", "tiny_swin", "tiny_convnext", "tiny_vit", "tiny_xception"]


def shipped(key):
    return yaml.safe_load((config_folder() / "backbone" / f"{key}.yaml").read_text())[key]


@pytest.mark.parametrize(
    ("key", "timm_name", "side", "mean", "width"),
    [
        ("densenet", "densenet201", 224, 0.485, 1920),
        ("swin", "swin_base_patch4_window7_224", 224, 0.485, 1024),
        ("convnext", "convnext_base", 224, 0.485, 1024),
        ("vit", "vit_base_patch16_224", 224, 0.5, 768),
        ("xception", "legacy_xception", 299, 0.5, 2048),
        ("efficientnet", "efficientnet_b0", 224, 0.485, 1280),
        ("deit", "deit_base_patch16_224", 224, 0.485, 768),
        ("beit", "beit_base_patch16_224", 224, 0.5, 768),
        ("lite0", "tf_efficientnet_lite0", 224, 0.5, 1280),
        ("lite1", "tf_efficientnet_lite1", 240, 0.5, 1280),
        ("lite2", "tf_efficientnet_lite2", 260, 0.5, 1280),
    ],
)
def test_each_backbone_has_its_own_size_and_normalisation(key, timm_name, side, mean, width):
    settings = shipped(key)
    assert settings == {"timm_name": timm_name, "weights": None, "frozen": False, "image_size": None, "precision": None}
    with torch.device("meta"):  # sizes only, no memory
        trunk, size = build_trunk(BackboneSettings(**settings))
    assert size == side
    assert trunk.pretrained_cfg["mean"][0] == mean
    assert (getattr(trunk, "head_hidden_size", None) or trunk.num_features) == width


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(("height", "width"), [(96, 96), (57, 130)])
def test_any_film_size_becomes_one_token(name, height, width):
    backbone = Backbone(BackboneSettings(timm_name=name), feature_dim=24).eval()
    assert backbone(torch.rand(2, 1, height, width)).shape == (2, 24)


@pytest.mark.parametrize("name", FAMILIES)
def test_image_size_can_be_chosen_for_every_family(name):
    backbone = Backbone(BackboneSettings(timm_name=name, image_size=72), feature_dim=24).eval()
    assert backbone.prepare(torch.rand(1, 1, 96, 96)).shape == (1, 3, 72, 72)
    assert backbone(torch.rand(2, 1, 96, 96)).shape == (2, 24)


def test_a_film_is_normalised_as_its_network_was_trained():
    backbone = Backbone(BackboneSettings(timm_name="tiny_vit"), feature_dim=8)
    torch.testing.assert_close(backbone.prepare(torch.full((1, 1, 96, 96), 0.5)), torch.zeros(1, 3, 96, 96))
    imagenet = Backbone(BackboneSettings(timm_name="test_convnext"), feature_dim=8)
    mean = torch.tensor(timm.get_pretrained_cfg("test_convnext").mean)
    std = torch.tensor(timm.get_pretrained_cfg("test_convnext").std)
    expected = ((0.25 - mean) / std).view(1, 3, 1, 1)
    got = imagenet.prepare(torch.full((1, 1, 160, 160), 0.25))
    torch.testing.assert_close(got.mean(dim=(2, 3), keepdim=True), expected)


def test_eight_bit_films_and_their_fractions_are_graded_alike():
    ensemble = KneeEnsemble({"vit": {"timm_name": "tiny_vit"}}, {"name": "mean"}, 5, feature_dim=16).eval()
    films = torch.randint(0, 256, (2, 1, 96, 96), dtype=torch.uint8)
    torch.testing.assert_close(ensemble(films).logits, ensemble(films.float() / 255).logits)


def test_vits_feature_is_its_cls_token():
    backbone = Backbone(BackboneSettings(timm_name="tiny_vit"), feature_dim=16).eval()
    films = torch.rand(2, 1, 96, 96)
    torch.testing.assert_close(backbone.pool(films), backbone.trunk.forward_features(backbone.prepare(films))[:, 0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_frozen_trunk_stays_as_it_is_while_its_projection_trains(name):
    torch.manual_seed(0)
    backbone = Backbone(BackboneSettings(timm_name=name, frozen=True), feature_dim=16).train()
    assert not any(module.training for module in backbone.trunk.modules())  # batch norm, dropout, drop-path
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in backbone.parameters() if p.requires_grad], lr=1.0)
    (backbone(torch.rand(4, 1, 96, 96)) * torch.randn(16)).sum().backward()
    optimizer.step()
    changed = {key for key, value in backbone.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all(key.startswith("projection.") for key in changed)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_frozen_trunk_keeps_nothing_for_a_backward_pass(name, checkpointing):
    backbone = Backbone(BackboneSettings(timm_name=name, frozen=True), 16, gradient_checkpointing=checkpointing).train()
    backbone.trunk.requires_grad_(True)  # whoever asked for this
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: None):
        pooled = backbone.pool(torch.rand(2, 1, 96, 96))
        assert not kept
        assert not pooled.requires_grad
        backbone.projection(pooled)
        assert kept  # so the hook would have told


def seen_dtypes(backbone, autocast):
    seen = set()
    hooks = [
        module.register_forward_hook(lambda module, _, output: seen.add(output.dtype))
        for module in backbone.trunk.modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        token = backbone(torch.rand(2, 1, 96, 96))
    for hook in hooks:
        hook.remove()
    return seen, token.dtype


@pytest.mark.parametrize("name", ["tiny_xception", "tiny_vit"])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_backbones_own_precision_wins_over_the_trainers(name, frozen):
    f32, bf16 = torch.float32, torch.bfloat16
    for precision, autocast, expected in [
        (None, False, f32),
        (None, True, bf16),
        ("f32", False, f32),
        ("f32", True, f32),
        ("bf16", False, bf16),
        ("bf16", True, bf16),
    ]:
        backbone = Backbone(
            BackboneSettings(timm_name=name, frozen=frozen, precision=precision), feature_dim=16
        ).train()
        assert seen_dtypes(backbone, autocast)[0] == {expected}, (precision, autocast)


def test_a_film_is_resized_once_for_all_networks_of_a_side_and_each_token_is_as_if_it_were_alone(monkeypatch):
    backbone = {key: {"timm_name": f"tiny_{key}"} for key in ("vit", "swin", "convnext")}
    ensemble = KneeEnsemble(backbone | {"xception": {"timm_name": "tiny_xception"}}, {"name": "mean"}, 5, 16).eval()
    films = torch.rand(2, 1, 130, 57)
    alone = [network(films) for network in ensemble.backbones.values()]
    calls = []
    interpolate = F.interpolate
    monkeypatch.setattr(F, "interpolate", lambda *a, **k: calls.append(a[1]) or interpolate(*a, **k))
    tokens = ensemble.tokens(films)
    assert sorted(calls) == [(72, 72), (96, 96)]
    assert torch.equal(tokens, torch.stack(alone, dim=1))


@pytest.mark.parametrize("name", [*FAMILIES, "legacy_xception"])
def test_gradient_checkpointing_changes_memory_not_gradients(name):
    def gradients(checkpointing):
        torch.manual_seed(0)
        backbone = Backbone(
            BackboneSettings(timm_name=name, image_size=64), feature_dim=16, gradient_checkpointing=checkpointing
        )
        backbone.train()
        (backbone(torch.linspace(0, 1, 2 * 64 * 64).view(2, 1, 64, 64)) * torch.arange(16)).sum().backward()
        return {key: value.grad for key, value in backbone.named_parameters()}

    plain, recomputed = gradients(False), gradients(True)
    for key, gradient in plain.items():
        torch.testing.assert_close(recomputed[key], gradient, msg=key)


def test_gate_weights_follow_the_order_of_the_backbones():
    ensemble = KneeEnsemble(
        {"vit": {"timm_name": "tiny_vit"}, "swin": {"timm_name": "tiny_swin"}}, {"name": "mha"}, 4, feature_dim=16
    )
    assert ensemble.keys == ("vit", "swin")
    output = ensemble.eval()(torch.rand(3, 1, 96, 96))
    assert output.logits.shape == (3, 4)
    assert output.tokens.shape == (3, 2, 16)
    assert output.gate_weights.shape == (3, 2)


def test_the_head_starts_with_small_logits():
    torch.manual_seed(0)
    ensemble = KneeEnsemble({"lite0": {"timm_name": "tf_efficientnet_lite0"}}, {"name": "mha"}, 5).eval()
    assert isinstance(ensemble.head[-1], nn.Linear)
    assert ensemble(torch.rand(2, 1, 64, 64)).logits.abs().max() < 3


def test_an_unknown_network_is_told_with_similar_names():
    with pytest.raises(UserError, match="knows no model named 'vit_base_patch99'.*Similar: .*vit_"):
        build_trunk(BackboneSettings(timm_name="vit_base_patch99"))


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ({}, "backbone: none chosen; backbone=all"),
        ({"vit": {"weights": None}}, "backbone.vit.timm_name= is needed"),
        ({"vit": {"timm_name": "tiny_vit", "file": "x"}}, "backbone.vit.file is unknown; there are timm_name, weights"),
        ({"vit": {"timm_name": "tiny_vit", "frozen": "maybe"}}, "backbone.vit.frozen=maybe must be one of true, false"),
        ({"a.b": {"timm_name": "tiny_vit"}}, "backbone: the key a.b can't have a dot in it"),
    ],
)
def test_an_odd_backbone_group_is_told(group, words):
    with pytest.raises(UserError, match=re.escape(words)):
        KneeEnsemble(group, {"name": "mean"}, 5)


def test_settings_are_taken_as_models_too():
    ensemble = KneeEnsemble({"vit": BackboneSettings(timm_name="tiny_vit")}, MeanSettings(), 5, feature_dim=8)
    assert ensemble.backbones["vit"].settings.timm_name == "tiny_vit"


def test_thousands_of_backbones_are_refused_before_the_first_is_built():
    with pytest.raises(UserError, match="5000 are more than the 64"):
        KneeEnsemble({f"b{i}": {"timm_name": "tiny_vit"} for i in range(5000)}, {"name": "mean"}, 5)


def test_backbones_that_are_no_group_are_told_in_words():
    with pytest.raises(UserError, match="backbone=vit must be a group of keys"):
        KneeEnsemble("vit", {"name": "mean"}, 5)
