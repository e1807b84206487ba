"""Maps are laid out right, whatever the family, and cost the network nothing."""

import gc

import pytest
import torch
import torch.nn.functional as F
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled

from legradnet.errors import UserError
from legradnet.explain import METHODS, explain
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import Corn, CrossEntropy

SETTINGS = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3, "num_classes": 1000}
SMALL = {"img_size": 48, "patch_size": 6, "embed_dim": 48, "depth": 2, "num_heads": 3}
default_cfgs = generate_default_cfgs(
    {
        "small_beit.untrained": SETTINGS | {"classifier": "head", "fixed_input_size": True},
        "small_deit.untrained": SETTINGS | {"classifier": ("head", "head_dist"), "fixed_input_size": True},
    }
)


@register_model
def small_beit(pretrained=False, **kwargs):
    return build_model_with_cfg(Beit, "small_beit", pretrained, **(SMALL | {"use_rel_pos_bias": True} | kwargs))


@register_model
def small_deit(pretrained=False, **kwargs):
    return build_model_with_cfg(VisionTransformerDistilled, "small_deit", pretrained, **(SMALL | kwargs))


NAMES = {
    "densenet": "tiny_densenet",
    "swin": "tiny_swin",
    "convnext": "tiny_convnext",
    "vit": "tiny_vit",
    "xception": "tiny_xception",
    "deit": "small_deit",
    "beit": "small_beit",
}


def network(*keys, loss="cross_entropy", gate="mean", size=48, classes=3, frozen=False):
    torch.manual_seed(0)
    grading = {"cross_entropy": CrossEntropy, "corn": Corn}[loss](classes)
    backbone = {key: {"timm_name": NAMES[key], "image_size": size, "frozen": frozen} for key in keys}
    return KneeEnsemble(backbone, {"name": gate}, grading.num_outputs, feature_dim=16).eval(), grading


def some_films(count=3, height=40, width=56):
    return torch.randint(0, 256, (count, 1, height, width), generator=torch.Generator().manual_seed(1)).byte()


@pytest.mark.parametrize("key", NAMES)
@pytest.mark.parametrize("size", [48, 96])
def test_a_map_has_the_networks_own_grid(key, size):
    cell = {"vit": 12, "deit": 6, "beit": 6, "xception": 16, "swin": size // 3 if size > 48 else 24}.get(key, 32)
    ensemble, loss = network(key, size=size)
    for method in ("gradcam", "gradcam++", "hirescam", "eigencam"):
        for films in (some_films(2), some_films(2, 64, 64)):
            native = explain(ensemble, loss, films, method=method).native[key]
            grid = -(-size // cell) if key == "xception" else size // cell
            assert native.shape == (2, grid, grid)
            assert native.dtype == torch.float32
            assert native.isfinite().all()


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_a_map_of_the_film_has_the_inputs_side(method):
    ensemble, loss = network("deit", "convnext")
    native = explain(ensemble, loss, some_films(2), method=method).native
    assert {key: values.shape for key, values in native.items()} == dict.fromkeys(("deit", "convnext"), (2, 48, 48))


def test_integrated_gradients_sum_to_the_change_of_the_score():
    ensemble, loss = network("deit", size=48)
    films = some_films(2, 48, 48)
    explained = explain(ensemble, loss, films, method="integrated_gradients", target=1)
    gray = (films.float() / 255).mean(dim=(2, 3), keepdim=True).expand(films.shape)
    change = explained.score - explain(ensemble, loss, gray, target=1).score
    torch.testing.assert_close(explained.native["deit"].sum(dim=(1, 2)), change, rtol=0.05, atol=1e-3)


def state(ensemble):
    modules = list(ensemble.modules())
    return (
        [(vars(module).get("training"), vars(module).get("fused_attn")) for module in modules],
        [
            len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks)
            for module in modules
        ],
        [(weight.requires_grad, weight.grad is None) for weight in ensemble.parameters()],
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("breaks", [False, True])
def test_the_network_is_left_as_it_was_found(method, breaks, monkeypatch):
    ensemble, loss = network("vit", "swin")
    ensemble.train().backbones["vit"].trunk.blocks[0].eval()
    next(ensemble.parameters()).requires_grad_(False)
    before = state(ensemble)
    weights = {name: values.clone() for name, values in ensemble.state_dict().items()}
    if breaks:
        monkeypatch.setattr(ensemble.backbones["swin"].trunk, "forward_features", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            explain(ensemble, loss, some_films(1), method=method)
    else:
        explain(ensemble, loss, some_films(1), method=method)
    assert state(ensemble) == before
    assert all(torch.equal(values, weights[name]) for name, values in ensemble.state_dict().items())


def test_two_hundred_films_leave_nothing_behind():
    ensemble, loss = network("vit", "swin", "convnext")
    counts = {}
    for batch in range(20):
        explain(ensemble, loss, some_films(10), method=("gradcam", "attention_rollout")[batch % 2])
        if batch in (1, 19):
            gc.collect()
            counts[batch] = sum(type(each) is torch.Tensor for each in gc.get_objects())
    assert counts[19] <= counts[1]


@pytest.mark.parametrize("method", METHODS)
def test_a_map_does_not_depend_on_the_films_beside_it(method):
    ensemble, loss = network("deit", "swin", gate="mha")
    films = some_films(3)
    together, alone = explain(ensemble, loss, films, method=method), explain(ensemble, loss, films[1:2], method=method)
    for key, native in alone.native.items():
        torch.testing.assert_close(together.native[key][1:2], native, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(together.effect[1:2], alone.effect, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "corn"])
@pytest.mark.parametrize("gate", ["mha", "mlp", "concat", "mean"])
def test_the_expected_grade_can_be_explained_under_every_loss_and_gate(loss, gate):
    ensemble, grading = network("deit", "convnext", loss=loss, gate=gate)
    films = some_films(2)
    expected, predicted = (explain(ensemble, grading, films, target=target) for target in ("expected", "predicted"))
    torch.testing.assert_close(expected.score, expected.probabilities @ torch.arange(3.0))
    chosen = predicted.probabilities.gather(1, predicted.grades[:, None])[:, 0]
    torch.testing.assert_close(predicted.score, chosen.log())
    assert not torch.allclose(expected.native["convnext"], predicted.native["convnext"])
    assert (expected.gate_weights is None) == (gate == "concat")
    assert expected.effect.shape == (2, 2)
    with torch.no_grad():  # the definition of the effect, for the second backbone
        tokens = ensemble.tokens(films)
        tokens[:, 1] = 0
        without = grading.probabilities(ensemble.head(ensemble.gate(tokens)[0])) @ torch.arange(3.0)
    torch.testing.assert_close(expected.effect[:, 1], (expected.score - without).abs(), atol=1e-5, rtol=1e-3)


def test_the_expected_grade_falls_where_occlusion_says_it_speaks_for_more():
    ensemble, loss = network("deit")
    film = some_films(1, 48, 48)
    explained = explain(ensemble, loss, film, method="occlusion", target="expected")
    row, column = divmod(int(explained.native["deit"][0].abs().argmax()), 48)
    row, column = row // 3 * 3, column // 3 * 3
    changed = film.float() / 255
    change = F.pad(torch.ones(1, 1, 3, 3), (column, 45 - column, row, 45 - row)).bool()
    changed = torch.where(change, changed.mean(), changed)
    fall = explained.score - explain(ensemble, loss, changed, target="expected").score
    assert fall.sign() == explained.native["deit"][0, row, column].sign()


def test_a_frozen_backbone_is_explained_as_any_other():
    films = some_films(1)
    (frozen, loss), (free, _) = network("vit", "convnext", frozen=True), network("vit", "convnext")
    for method in ("gradcam", "integrated_gradients"):
        one, other = explain(frozen, loss, films, method=method), explain(free, loss, films, method=method)
        for key in one.native:
            torch.testing.assert_close(one.native[key], other.native[key])
            assert one.native[key].abs().sum() > 0


@pytest.mark.parametrize(("key", "grid"), [("vit", 4), ("deit", 8), ("beit", 8)])
def test_rollout_follows_attention_between_patches(key, grid):
    ensemble, loss = network(key)
    shares = explain(ensemble, loss, some_films(2), method="attention_rollout").native[key]
    assert shares.shape == (2, grid, grid)
    assert shares.min() >= 0
    rest = 1 - shares.sum(dim=(1, 2))  # what the class token keeps: half of itself, layer by layer
    depth = len(ensemble.backbones[key].trunk.blocks)
    assert ((rest > 0.5**depth) & (rest < 1)).all() if key != "beit" else ((rest > 0) & (rest < 0.1)).all()


def test_rollout_leaves_out_what_has_no_common_attention():
    ensemble, loss = network("densenet", "swin", "vit")
    assert list(explain(ensemble, loss, some_films(1), method="attention_rollout").native) == ["vit"]
    ensemble, loss = network("densenet", "swin")
    with pytest.raises(UserError, match="tiny_swin"):
        explain(ensemble, loss, some_films(1), method="attention_rollout")


@pytest.mark.parametrize("wrong", [{"method": "magic"}, {"target": 3}, {"target": -1}, {"target": "worst"}])
def test_an_unknown_method_or_target_is_told(wrong):
    ensemble, loss = network("convnext")
    with pytest.raises(UserError, match="choose"):
        explain(ensemble, loss, some_films(1), **wrong)
