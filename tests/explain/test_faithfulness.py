"""Maps that know where the evidence lies pass the checks, and maps that know nothing don't."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from legradnet import Grader
from legradnet.data.inputs import list_films
from legradnet.errors import UserError
from legradnet.explain.faithfulness import Faithfulness, measure_faithfulness
from legradnet.explain.perturbation import TILES, baseline_order, curves, tile_order
from legradnet.explain.randomise import LEVELS, randomise
from legradnet.explain.verdict import failures, faithfulness_figure, verdict
from legradnet.grading.grading import Request
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.gating import MeanGate
from legradnet.network.losses import CrossEntropy

SIDE = 64


class OneTile(nn.Module):
    """Grade 1 the more, the brighter the tile in row 3, column 12."""

    def __init__(self):
        super().__init__()
        self.gate = MeanGate(1, 1)
        self.head = nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0], [8.0]]))
            self.head.bias.copy_(torch.tensor([4.0, 0.0]))

    def tokens(self, films):
        films = films.float() / 255 if films.dtype == torch.uint8 else films
        return films[:, :, 12:16, 48:52].mean(dim=(2, 3))[:, :, None]


@pytest.fixture
def one_tile():
    network = SimpleNamespace(ensemble=OneTile(), loss=CrossEntropy(2), device=torch.device("cpu"))
    network.autocast = lambda: torch.autocast("cpu", enabled=False)
    return network


def bright_films(count):
    films = torch.randint(0, 60, (count, 1, SIDE, SIDE), generator=torch.Generator().manual_seed(0)).byte()
    films[:, :, 12:16, 48:52] = 255
    return films


def curves_of(network, films, order, steps=16, asked=1):
    grades = None if asked is None else [asked] * len(films)
    tokens = network.ensemble.tokens(films)
    return curves(network, films, tokens, grades, key="fused", order=order, steps=steps)


def test_a_map_of_the_evidence_deletes_and_inserts_faster_than_random_and_centred_ones(one_tile):
    films = bright_films(4)
    maps = np.zeros((4, TILES, TILES))
    maps[:, 3, 12] = 1
    random = np.random.default_rng(0)
    best = curves_of(one_tile, films, tile_order(maps, random)).mean(axis=2)
    for name in ("random", "centred"):
        baseline = curves_of(one_tile, films, baseline_order(name, 4, random)).mean(axis=2)
        assert (best[:, 0] < baseline[:, 0] - 0.1).all()
        assert (best[:, 1] > baseline[:, 1] + 0.1).all()


def test_deletion_begins_and_insertion_ends_with_the_whole_film(one_tile):
    films = bright_films(2)
    whole = one_tile.loss.probabilities(one_tile.ensemble.head(one_tile.ensemble.tokens(films)[:, 0])).detach()
    for name in ("random", "centred"):
        found = curves_of(one_tile, films, baseline_order(name, 2, np.random.default_rng(1)), steps=5)
        assert found.shape == (2, 2, 6)
        assert found[:, 0, 0] == pytest.approx(whole[:, 1].numpy(), abs=1e-6)
        assert found[:, 1, -1] == pytest.approx(whole[:, 1].numpy(), abs=1e-6)


def test_the_expected_grade_is_followed_as_a_share_of_the_highest(one_tile):
    films, order = bright_films(1), baseline_order("centred", 1, np.random.default_rng(0))
    assert curves_of(one_tile, films, order, asked=None) == pytest.approx(curves_of(one_tile, films, order, asked=1))


@given(st.integers(1, 3), st.integers(0, 2**16), st.integers(1, 5))
def test_tiles_come_highest_first_each_once(films, seed, kinds):
    random = np.random.default_rng(seed)
    maps = random.integers(0, kinds, (films, TILES, TILES)).astype(float)
    for order, one in zip(tile_order(maps, random), maps, strict=True):
        assert sorted(order) == list(range(TILES * TILES))
        assert (np.diff(one.ravel()[order]) <= 0).all()


def test_equal_tiles_come_in_no_order_of_their_place():
    order = tile_order(np.zeros((1, TILES, TILES)), np.random.default_rng(0))[0]
    assert abs(np.corrcoef(order, np.arange(len(order)))[0, 1]) < 0.3


def test_a_centred_map_goes_from_the_centre_outward():
    rows, columns = np.divmod(baseline_order("centred", 1, np.random.default_rng(0))[0], TILES)
    away = np.hypot(rows - 7.5, columns - 7.5)
    assert (np.diff(away) >= -1e-9).all()


@pytest.fixture(scope="module")
def small():
    torch.manual_seed(0)
    backbone = {"convnext": {"timm_name": "tiny_convnext"}, "vit": {"timm_name": "tiny_vit"}}
    return KneeEnsemble(backbone, {"name": "mha"}, 5, feature_dim=16).eval()


def changed_parts(before, after):
    """Which modules have other values, by name."""
    after = dict(after.named_parameters())
    return {name for name, value in before.named_parameters() if not torch.equal(value, after[name])}


def test_random_weights_come_from_the_last_layer_down_and_stay_the_same_when_more_follow(small):
    copies = [randomise(small, share / 100, seed=0) for share in LEVELS]
    changed = [changed_parts(small, copy) for copy in copies]
    assert all(not name.startswith("backbones") or ".projection." in name for name in changed[0])
    assert {"head.2.weight", "gate.key.weight", "backbones.vit.projection.0.weight"} <= changed[0]
    for level in range(len(LEVELS) - 1):
        assert changed[level] < changed[level + 1]
        values, more = dict(copies[level].named_parameters()), dict(copies[level + 1].named_parameters())
        assert all(torch.equal(values[name], more[name]) for name in changed[level])
    for key, last, first in (
        ("convnext", "stages.3", "stem.0.weight"),
        ("vit", "blocks.3", "patch_embed.proj.weight"),
    ):
        assert any(name.startswith(f"backbones.{key}.trunk.{last}") for name in changed[1])
        assert f"backbones.{key}.trunk.{first}" in changed[-1] - changed[-2]
    assert changed_parts(small, randomise(small, 1, seed=0)) == changed[-1]


def test_random_weights_are_the_trained_ones_shuffled(small):
    before, after = small.head[2].weight.flatten(), randomise(small, 0, seed=0).head[2].weight.flatten()
    assert not before.equal(after)
    assert before.sort()[0].equal(after.sort()[0])


ROW = {"method": "gradcam", "backbone": "vit", "films": 9, "change": 0.5, "empty": 0.0, "ssim_100": 0.2} | {
    f"{kind}_over_{name}{end}": value
    for kind in ("deletion", "insertion")
    for name in ("random", "centred")
    for end, value in (("", 0.1), ("_low", 0.05), ("_high", 0.15))
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "gradcam of vit passes."),
        ({"ssim_100": float("nan")}, "gradcam of vit passes (random weights not tried: too slow)."),
        ({"deletion_over_centred_low": -0.01}, "fails: deletion no better than by a centred map (+0.100, -0.010"),
        ({"insertion_over_random_low": 0.0}, "fails: insertion no better than by a random map"),
        ({"insertion_over_random_low": float("nan")}, "fails: insertion no better than by a random map"),
        ({"ssim_100": 0.6}, "fails: it looks the same under random weights (SSIM 0.60)"),
        ({"change": 0.001}, "gradcam of vit can't be judged"),
        ({"change": float("nan")}, "gradcam of vit can't be judged"),
        ({"empty": 0.25}, "On 25% of the films its map has no evidence"),
    ],
)
def test_what_passes_and_why_not_is_told_in_words(changes, words):
    found = verdict(Faithfulness(pd.DataFrame([ROW | changes]), ["attention_rollout: no ViT"]), 9, 7)
    assert words in found
    assert found.startswith("9 films of 7 patients.")
    assert "attention_rollout: no ViT" in found


@pytest.fixture(scope="module")
def sample(trained, knees):
    grader = Grader.from_checkpoint(trained / "checkpoints/best.ckpt")
    films = list_films(knees / "knees.csv")[:4]
    return grader, [grader.prepare(Request(film.film, film.side)) for film in films], [f.patient for f in films]


def test_each_method_is_measured_for_each_backbone_and_fused(sample):
    grader, films, patients = sample
    (network,) = grader.networks
    before = {name: value.clone() for name, value in network.ensemble.state_dict().items()}
    settings = {"methods": ["gradcam", "occlusion", "attention_rollout"], "steps": 2, "resamples": 20}
    found = measure_faithfulness(network, films, patients, **settings)
    table = found.table.set_index(["method", "backbone"])
    assert list(table.index) == [
        *(
            (method, key)
            for method in ("random", "centred", "gradcam", "occlusion")
            for key in ("swin", "vit", "fused")
        ),
        ("attention_rollout", "vit"),
        ("attention_rollout", "fused"),
    ]
    assert table["deletion"].between(0, 1).all() and table["insertion"].between(0, 1).all()
    maps = table.loc[["gradcam", "occlusion", "attention_rollout"]]
    assert maps["joint_share"].dropna().between(0, 1).all()
    assert maps["mirrored_ssim"].between(-1, 1).all()
    cascade = table[[f"ssim_{share}" for share in LEVELS]]
    assert cascade.loc["occlusion"].isna().all(axis=None)
    assert cascade.loc["gradcam"].notna().all(axis=None)
    gain = table.loc["random", "deletion"] - table.loc["gradcam", "deletion"]
    assert table.loc["gradcam", "deletion_over_random"].to_numpy() == pytest.approx(gain.to_numpy())
    assert all(value.equal(before[name]) for name, value in network.ensemble.state_dict().items())
    assert len(faithfulness_figure(found.table).axes) == 12
    assert all(isinstance(failures(row), list) for row in maps.reset_index().to_dict("records"))
    pd.testing.assert_frame_equal(found.table, measure_faithfulness(network, films, patients, **settings).table)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"methods": ["lime"]}, "lime unknown; choose from gradcam"), ({"target": 9}, "a grade from 0 to 4")],
)
def test_mistakes_are_told_before_anything_is_measured(sample, changes, words):
    grader, films, patients = sample
    with pytest.raises(UserError, match=words):
        measure_faithfulness(grader.networks[0], films, patients, **({"methods": ["gradcam"]} | changes))
