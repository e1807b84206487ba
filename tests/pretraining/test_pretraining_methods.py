"""Each method moves a trunk, and makes its loss smaller; what it keeps beside the trunk."""

import pytest
import torch

from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.network.backbones import Backbone, BackboneSettings
from legradnet.pretraining.losses import ProjectorSettings, SimMIMSettings, VICRegSettings
from legradnet.pretraining.methods import BYOL, SimMIM, TwoViews

SHAPE = ProjectorSettings(width=16, output=8)


def built(network="convnext", side=48):
    torch.manual_seed(0)
    return Backbone(BackboneSettings(timm_name=f"tiny_{network}", image_size=side), feature_dim=1)


@pytest.fixture(scope="module")
def films():
    """Float [8, 2, 48, 48]: two equal films of each of eight knees."""
    pixels, _ = synthesize(8, size=48)
    return (torch.from_numpy(pixels)[:, None] / 255).repeat(1, 2, 1, 1)


def losses(method, backbone, films, steps=12):
    """Losses of a few steps."""
    backbone.projection.requires_grad_(False)
    trained = [weight for weight in (*backbone.parameters(), *method.parameters()) if weight.requires_grad]
    optimizer, seen = torch.optim.AdamW(trained, lr=1e-3), []
    method.start(backbone)
    for step in range(steps):
        torch.manual_seed(0)
        loss = method(backbone, films)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        method.follow(backbone, step / steps)
        seen.append(float(loss.detach()))
    return seen


@pytest.mark.parametrize("name", ["vicreg", "byol", "simmim"])
def test_each_method_moves_the_trunk_and_its_loss_falls(name, films):
    backbone, untouched = built().train(), built()
    method = {
        "vicreg": lambda: TwoViews(backbone, SHAPE, VICRegSettings().build()),
        "byol": lambda: BYOL(backbone, SHAPE, 0.9),
        "simmim": lambda: SimMIM(backbone, SimMIMSettings(square=8)),
    }[name]()
    seen = losses(method, backbone, films)
    assert seen[-1] < 0.9 * seen[0]
    before = untouched.trunk.state_dict()
    unmoved = [name for name, weight in backbone.trunk.named_parameters() if torch.equal(weight, before[name])]
    behind = ["head.norm.weight", "head.norm.bias"]  # behind the map that is drawn from
    assert unmoved == (behind if name == "simmim" else [])
    assert all(not backbone.trunk.get_parameter(name).requires_grad for name in unmoved)


def test_the_slower_copy_of_byol_starts_where_the_trunk_does_follows_it_and_stands_still_in_the_end():
    backbone = built()
    method = BYOL(backbone, SHAPE, 0.75)
    weight, copied = backbone.trunk.stem[0].weight, method.target[0].trunk.stem[0].weight
    with torch.no_grad():
        weight.zero_()
    method.start(backbone)
    assert not copied.any()
    with torch.no_grad():
        weight.fill_(1.0)
    method.follow(backbone, 0.0)
    assert copied.flatten()[0] == pytest.approx(0.25)
    method.follow(backbone, 1.0)
    assert copied.flatten()[0] == pytest.approx(0.25)
    kept = [name for name in method.state_dict() if name.startswith("target.")]
    assert kept, "a resumed run goes on with it"
    assert not any(weight.requires_grad for weight in method.target.parameters())


@pytest.mark.parametrize("network", ["densenet", "swin", "convnext", "vit", "xception"])
def test_what_is_hidden_is_drawn_again_by_every_family(network):
    backbone = built(network, side=96)
    method = SimMIM(backbone, SimMIMSettings())
    films = torch.rand(2, 2, 64, 64)
    loss = method(backbone, films)
    loss.backward()
    first = next(backbone.trunk.parameters())
    assert torch.isfinite(loss) and first.grad.abs().sum() > 0
    assert method.decoder.out_channels == method.cell**2


def test_the_loss_of_simmim_is_of_hidden_pixels_alone_and_as_many_squares_are_hidden_as_was_asked():
    backbone = built(side=64)
    method = SimMIM(backbone, SimMIMSettings(share=0.25, square=16))
    hidden = method._draw_squares(torch.zeros(3, 1, 64, 64))
    assert hidden.float().mean(dim=(1, 2, 3)).tolist() == [0.25] * 3
    assert (hidden.view(3, 4, 16, 4, 16).float().mean(dim=(2, 4)) % 1 == 0).all(), "whole squares"
    with torch.no_grad():
        method.decoder.weight.zero_(), method.decoder.bias.zero_()
    gray = torch.full((3, 2, 64, 64), 0.5 + 0.5 / 2)  # 0.5 after the network's mean and deviation of 0.5
    assert method(backbone, gray).item() == pytest.approx(0.5)


def test_a_trunk_without_a_map_of_features_is_refused_by_simmim(monkeypatch):
    backbone = built("vit")
    monkeypatch.setattr(type(backbone.trunk), "forward_features", lambda trunk, inputs: torch.zeros(1, 7, 96))
    with pytest.raises(UserError, match="tiny_vit has no square map of features; take vicreg, simclr or byol"):
        SimMIM(backbone, SimMIMSettings())
