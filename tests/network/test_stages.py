"""What the stages of a trunk see, read off while it runs."""

from threading import Thread

import pytest
import torch

from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.stages import StageMeans, channel_means, stages_of, texture_channels, texture_of

TINY = {key: {"timm_name": f"tiny_{key}"} for key in ("densenet", "swin", "convnext", "vit", "xception")}


@pytest.fixture(scope="module")
def ensemble():
    torch.manual_seed(0)
    return KneeEnsemble(TINY, {"name": "mean"}, 5, feature_dim=16).eval().requires_grad_(False)


def test_every_family_has_stages_from_shallow_to_deep_and_ends_with_its_pooled_features(ensemble):
    films, reader = torch.rand(2, 1, 96, 96), StageMeans(ensemble)
    with reader.read(films) as means:
        ensemble(films)
    joined = reader.joined(means)
    assert joined.shape == (2, reader.width) and joined.dtype == torch.float32
    assert len(reader.trunks) == 5
    pooled = torch.split(ensemble.pool(films), [backbone.width for backbone in ensemble.backbones.values()], dim=1)
    for own, expected, backbone in zip(
        torch.split(joined, reader.trunks, dim=1), pooled, ensemble.backbones.values(), strict=True
    ):
        assert torch.equal(own[:, -backbone.width :], expected)
        assert 4 <= len(stages_of(backbone.trunk)) <= 5
    assert torch.equal(joined, reader.joined(means))


def test_a_deep_trunk_is_read_at_five_places_the_last_among_them():
    with torch.device("meta"):
        trunk = KneeEnsemble({"vit": {"timm_name": "test_vit"}}, {"name": "mean"}, 5).backbones["vit"].trunk
    trunk.feature_info = trunk.feature_info * 4
    stages = [stage for stage, _ in stages_of(trunk)]
    assert len(stages) == 5 and stages[-1] is trunk.blocks[-1]


def test_the_mean_of_a_channel_is_over_all_places_wherever_channels_stand():
    maps = torch.rand(2, 3, 4, 5)
    expected = maps.mean(dim=(2, 3))
    assert torch.allclose(channel_means(maps, "NCHW"), expected)
    assert torch.allclose(channel_means(maps.permute(0, 2, 3, 1), "NHWC"), expected)
    assert torch.allclose(channel_means(maps.flatten(2).mT, "NCHW"), expected)
    assert torch.equal(channel_means(expected.bfloat16(), "NCHW"), expected.bfloat16().float())


def test_reading_changes_no_number_and_keeps_nothing_of_other_threads(ensemble):
    films, reader = torch.rand(2, 1, 96, 96), StageMeans(ensemble)
    plain = ensemble(films).logits
    with reader.read(films) as means:
        other = Thread(target=ensemble, args=(films[:1],))
        other.start()
        other.join()
        assert not means
        assert torch.equal(ensemble(films).logits, plain)
        before = reader.joined(means)
    ensemble(films[:1])
    assert torch.equal(reader.joined(means), before)


@pytest.mark.parametrize("side", [16, 95, 224])
def test_a_texture_is_told_at_every_coarseness_that_a_film_has_pixels_for(side):
    films = torch.randint(0, 256, (3, 1, side, side), dtype=torch.uint8)
    texture = texture_of(films)
    assert texture.shape == (3, texture_channels(side)) and texture.isfinite().all()
    assert torch.allclose(texture, texture_of(films / 255))
    assert torch.allclose(texture_of(films.mT)[:, [1, 0, 2]], texture[:, :3])  # rows for columns
    flat = texture_of(torch.zeros_like(films))
    assert (flat < texture).all() and flat.isfinite().all()


def test_a_texture_stands_after_all_trunks(ensemble):
    films = torch.rand(2, 1, 96, 96)
    plain, textured = StageMeans(ensemble), StageMeans(ensemble, film_side=96)
    with plain.read(films) as means, textured.read(films) as more:
        ensemble(films)
    expected = torch.cat([plain.joined(means), texture_of(films)], dim=1)
    assert torch.equal(textured.joined(more), expected) and textured.width == expected.shape[1]
