"""A map lies where the evidence was planted, whatever the family.

Half of the films are even gray, half have one checkered patch, anywhere: a network that tells them apart can have it
from there only. What makes a short training fair to gradcam, which sees the gradient at one point and one coarse grid:

- Small members of the families whose last map has 6 x 6 or 12 x 12 cells. On 3 x 3, laying it over the film spreads
  even a single bright cell so far that its own area gets 5 times an even spread, and a patch on its border less.
- Tokens as wide as the product's, and an end of the training once the films are told apart. A layer norm keeps a token
  on a sphere; a narrow one soon sits where the score is highest on it, and there the gradient has no direction left.
- Batch statistics taken anew after so few steps; the running ones lag behind, and the network says one class of all.
"""

import pytest
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.convnext import ConvNeXt
from timm.models.densenet import DenseNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from timm.models.xception_aligned import XceptionAligned
from torch.optim.swa_utils import update_bn

from legradnet.explain import explain
from legradnet.explain.film import over_film, spread
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import CrossEntropy

SIDE, PATCH = 96, 24
SETTINGS = {"input_size": (3, SIDE, SIDE), "mean": (0.5,) * 3, "std": (0.5,) * 3, "num_classes": 1000}
default_cfgs = generate_default_cfgs(
    {
        "planted_densenet.untrained": SETTINGS | {"classifier": "classifier"},
        "planted_swin.untrained": SETTINGS | {"classifier": "head.fc", "fixed_input_size": True},
        "planted_convnext.untrained": SETTINGS | {"classifier": "head.fc"},
        "planted_vit.untrained": SETTINGS | {"classifier": "head", "fixed_input_size": True},
        "planted_xception.untrained": SETTINGS | {"classifier": "head.fc"},
    }
)


@register_model
def planted_densenet(pretrained=False, **kwargs):
    shape = {"growth_rate": 12, "block_config": (2, 2, 4)}
    return build_model_with_cfg(DenseNet, "planted_densenet", pretrained, **(shape | kwargs))


@register_model
def planted_swin(pretrained=False, **kwargs):
    shape = {"img_size": SIDE, "window_size": 6, "embed_dim": 24, "depths": (1, 1, 2), "num_heads": (1, 2, 4)}
    return build_model_with_cfg(SwinTransformer, "planted_swin", pretrained, **(shape | kwargs))


@register_model
def planted_convnext(pretrained=False, **kwargs):
    shape = {"patch_size": 2, "depths": (1, 1, 2, 1), "dims": (12, 24, 48, 96)}
    shape |= {"ls_init_value": 1.0}  # at the usual 1e-6 the blocks stay shut for thousands of steps
    return build_model_with_cfg(ConvNeXt, "planted_convnext", pretrained, **(shape | kwargs))


@register_model
def planted_vit(pretrained=False, **kwargs):
    shape = {"img_size": SIDE, "patch_size": 16, "embed_dim": 96, "depth": 2, "num_heads": 3}
    return build_model_with_cfg(VisionTransformer, "planted_vit", pretrained, **(shape | kwargs))


@register_model
def planted_xception(pretrained=False, **kwargs):
    blocks = [
        {"in_chs": 64, "out_chs": 64, "stride": 2},
        {"in_chs": 64, "out_chs": 96, "stride": 2},
        {"in_chs": 96, "out_chs": (96, 128, 128), "stride": 1, "no_skip": True, "start_with_relu": False},
    ]
    return build_model_with_cfg(XceptionAligned, "planted_xception", pretrained, **({"block_cfg": blocks} | kwargs))


def planted_films(count, generator):
    """Films [B, 1, H, W] in 0-1, whether each has the patch (every second one), and where [B, H, W]."""
    films = 0.35 + 0.05 * torch.randn(count, 1, SIDE, SIDE, generator=generator)
    has_patch = torch.arange(count) % 2
    places = torch.zeros(count, SIDE, SIDE, dtype=torch.bool)
    squares = torch.arange(PATCH) // 4
    checkers = 0.1 + 0.8 * ((squares[:, None] + squares) % 2)
    for i in range(count):
        row, column = (PATCH * torch.randint(0, SIDE // PATCH, (2,), generator=generator)).tolist()
        places[i, row : row + PATCH, column : column + PATCH] = True
        if has_patch[i]:
            films[i, 0, row : row + PATCH, column : column + PATCH] = checkers
    return films.clamp(0, 1), has_patch, places


def network_that_finds_the_patch(family, seed, most_steps=150):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    loss = CrossEntropy(2)
    backbone = {family: {"timm_name": f"planted_{family}", "image_size": SIDE}}
    ensemble = KneeEnsemble(backbone, {"name": "mean"}, loss.num_outputs, feature_dim=1024, dropout=0.0).train()
    optimizer = torch.optim.AdamW(ensemble.parameters(), lr=5e-4, weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, start_factor=0.1, total_iters=9)
    losses = []
    while len(losses) < most_steps and (len(losses) < 10 or max(losses[-10:]) > 0.1):
        films, has_patch, _ = planted_films(16, generator)
        wrong = loss(ensemble(films).logits, has_patch)
        optimizer.zero_grad()
        wrong.backward()
        torch.nn.utils.clip_grad_norm_(ensemble.parameters(), 1.0)
        optimizer.step()
        warmup.step()
        losses.append(wrong.item())
    update_bn([planted_films(16, generator)[0] for _ in range(4)], ensemble)
    return ensemble.eval(), loss


def evidence_on_the_patch(ensemble, loss, films, places, method):
    """The patch's share of the positive evidence over its share of the area, for each film [B]."""
    (natives,) = explain(ensemble, loss, films, method=method).native.values()
    maps = [spread(over_film(native, (SIDE, SIDE), "stretch", mirrored=False)) for native in natives]
    return torch.tensor([one[place.numpy()].mean() for one, place in zip(maps, places, strict=True)])


@pytest.fixture(
    scope="module",
    params=[
        "swin",
        "vit",
        "convnext",
        *(pytest.param(key, marks=pytest.mark.slow) for key in ("densenet", "xception")),
    ],
)
def finder(request):
    return network_that_finds_the_patch(request.param, seed=0)


def test_the_network_has_found_the_patch(finder):
    ensemble, loss = finder
    films, has_patch, _ = planted_films(64, torch.Generator().manual_seed(1000))
    with torch.no_grad():
        grades = loss.grades(loss.probabilities(ensemble(films).logits))
    assert (grades == has_patch).float().mean() > 0.95


@pytest.mark.parametrize("method", ["gradcam", "occlusion", "integrated_gradients"])
def test_the_map_lies_on_the_patch_that_decides(finder, method):
    films, has_patch, places = planted_films(8, torch.Generator().manual_seed(1000))
    evidence = evidence_on_the_patch(*finder, films[has_patch == 1], places[has_patch == 1], method)
    assert evidence.mean() >= 3
    assert evidence.min() > 1  # nor is any one film's map elsewhere
