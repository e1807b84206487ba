"""A network knows which films are unlike those that it was trained on."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import betainc

from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.errors import UserError
from legradnet.grading.averaging import answer_views, distances_of
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.distance import UNLIKE, Distance, fit_distance, limit_rank, recentred, with_distances, with_limit
from legradnet.grading.networks import Answers
from legradnet.training.calibrate import add_distance, calibrate
from small_runs import compose

DATA = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
SHARE = 0.05  # of the 40 validation films of the small network


def drawn(films, seed, shift=0.0, channels=40):
    """Stages [films, channels] of a spread that falls from channel to channel, mixed."""
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(channels, channels))
    return (rng.normal(size=(films, channels)) / np.arange(1, channels + 1)) @ mixing + shift


@pytest.fixture(scope="module")
def data():
    module = KneeDataModule(compose(*DATA)["data"])
    module.setup()
    return module


@pytest.fixture(scope="module")
def knowing(trained, data, tmp_path_factory):
    """The small network with a distance from its films."""
    path = tmp_path_factory.mktemp("knowing") / "knowing.ckpt"
    shutil.copy(trained / "checkpoints/best.ckpt", path)
    assert add_distance(path, data, unlike_share=SHARE, precision="f32")
    return path


@pytest.fixture(scope="module")
def film(data):
    return np.asarray(data.film(int(data.films("train").index[0])))


def test_few_films_like_those_of_training_are_beyond_the_limit_and_others_are():
    distance = fit_distance(drawn(600, 1), drawn(400, 2))
    assert (distance(drawn(20_000, 3)) > 1).mean() <= 0.02
    assert (distance(drawn(500, 4, shift=4.0)) > 1).mean() > 0.95


def test_the_limit_follows_from_films_held_out_and_not_from_those_that_were_learned():
    learned, new = 0.3 * drawn(600, 1), drawn(400, 2)
    distance = fit_distance(learned, new)
    assert (distance(learned) > 1).mean() == 0
    assert (distance(new) > 1).sum() == 400 - limit_rank(400, 0.02) == 3
    narrow = with_limit(distance, learned)
    assert narrow.limit < distance.limit and (narrow(new) > 1).mean() > 0.5


@pytest.mark.parametrize(
    ("films", "share", "rank"), [(826, 0.02, 817), (400, 0.02, 397), (149, 0.02, 149), (49, 0.02, 49), (48, 0.02, None)]
)
def test_as_many_films_may_be_beyond_the_limit_as_hold_the_share_with_certainty(films, share, rank):
    assert limit_rank(films, share) == rank
    if rank:
        beyond = films - rank + 1, rank  # of a beta distribution
        assert beyond[0] / sum(beyond) <= share
        assert films < 149 or betainc(*beyond, share) >= 0.95


def test_more_channels_than_films_and_channels_without_spread_are_no_obstacle():
    train, held_out = drawn(60, 1, channels=300), drawn(200, 2, channels=300)
    train[:, 7] = held_out[:, 7] = 3.0
    distance = fit_distance(train, held_out)
    assert len(distance.directions) == 15
    odd = held_out.copy()
    odd[:, 7] = 300.0
    assert (distance(odd) > 1).all()
    assert np.isfinite(distance(held_out)).all()


def test_no_trunk_drowns_another_whatever_its_numbers_are():
    train, held_out, odd = drawn(400, 1), drawn(200, 2), drawn(200, 3)
    odd[:, :20] = drawn(200, 4, shift=3.0)[:, :20]
    expected = fit_distance(train, held_out, trunks=[20, 20])(odd)
    for stages in (train, held_out, odd):
        stages[:, 20:] *= 1e4
    assert fit_distance(train, held_out, trunks=[20, 20])(odd) == pytest.approx(expected, rel=1e-6)


def textured(count, seed, shift=0.0):
    """Stages of one trunk of 40 channels, and a texture of 15 that is nearly the same in every film."""
    return np.concatenate([drawn(count, seed), 0.1 * drawn(count, seed + 100, shift=shift, channels=15)], axis=1)


def test_a_film_of_another_texture_is_unlike_whatever_trunks_see_in_it():
    distance = fit_distance(textured(600, 1), textured(400, 2), trunks=[40])
    assert distance.width == 55 and distance.texture.width == 15
    assert (distance(textured(20_000, 3)) > 1).mean() <= 0.02
    assert (distance(textured(300, 4, shift=5.0)) > 1).mean() > 0.95
    again = Distance.model_validate(distance.model_dump())
    assert (again(textured(9, 5, shift=5.0)) == distance(textured(9, 5, shift=5.0))).all()


def test_another_sites_texture_becomes_its_own():
    distance, films = fit_distance(textured(600, 1), textured(400, 2), trunks=[40]), textured(400, 3, shift=5.0)
    moved = recentred(distance, films[:200])
    assert moved.texture.limit == distance.texture.limit and (moved(films) < distance(films)).all()
    own = with_distances(moved, moved(films[:200]))
    assert (distance(films[200:]) > 1).mean() > 0.95 > 0.05 > (own(films[200:]) > 1).mean()
    assert own.texture.limit / moved.texture.limit == pytest.approx(own.limit / moved.limit)


def test_too_few_films_have_no_distance():
    assert fit_distance(drawn(29, 1), drawn(400, 2)) is None
    assert fit_distance(drawn(400, 1), drawn(48, 2)) is None


def test_a_distance_survives_being_written():
    distance = fit_distance(drawn(100, 1), drawn(100, 2))
    again = Distance.model_validate(distance.model_dump())
    assert (again(drawn(9, 3)) == distance(drawn(9, 3))).all()


def test_an_unlike_film_is_referred_with_its_reason_and_all_else_is_as_without_a_distance(knowing, trained, film):
    unlike = [np.rot90(film).copy(), np.random.default_rng(0).integers(0, 256, film.shape).astype(np.uint8)]
    with_it, without = (
        Grader.load(path, precision="f32").grade([film, *unlike], "R")
        for path in (knowing, trained / "checkpoints/best.ckpt")
    )
    assert [UNLIKE in grading.reason for grading in with_it] == [False, True, True]
    assert [UNLIKE in grading.look for grading in with_it] == [False, True, True]
    assert all(grading.referred for grading in with_it[1:])
    assert with_it[0].distance <= 1 < min(grading.distance for grading in with_it[1:])
    for ours, theirs in zip(with_it, without, strict=True):
        assert ours.raw.tolist() == theirs.raw.tolist() and theirs.distance is None
        assert ours.probabilities.tolist() == theirs.probabilities.tolist()
        assert [part for part in ours.reason.split("; ") if part != UNLIKE] == theirs.reason.split("; ")


def test_a_film_of_unknown_side_is_as_near_as_the_nearer_of_its_views(knowing, film):
    network = CheckpointNetwork(knowing, precision="f32")
    mirrored = film[:, ::-1].copy()
    one, other = (answer_views(network, [[view]]).distances[0] for view in (film, mirrored))
    both = answer_views(network, [[film, mirrored], [film]]).distances
    assert one != other and both == pytest.approx([min(one, other), one])


def test_of_several_networks_the_median_decides_and_those_that_know_nothing_are_not_asked():
    def said(*distances):
        return [
            Answers(np.zeros((1, 5)), np.zeros((1, 5)), None, None if d is None else np.array([d])) for d in distances
        ]

    assert distances_of(said(0.5, 3.0, 1.2)) == [1.2]
    assert distances_of(said(None, 0.5)) == [0.5]
    assert distances_of(said(None, None)) is None


def test_calibration_fits_a_distance_on_training_films_and_its_limit_on_validation_films(knowing, data, tmp_path):
    path = tmp_path / "best.ckpt"
    shutil.copy(knowing, path)
    calibrate(
        path, data, coverage=0.9, target_error=0.25, unlike_share=SHARE, device="cpu", precision="f32"
    )  # fmt: skip
    before, after = (read_checkpoint(path)["legradnet"] for path in (knowing, path))
    assert after["distance"] == before["distance"]
    assert (after["distance"]["films"], after["distance"]["held_out"]) == (len(data.films("train")), 40)


def test_too_few_validation_films_leave_a_run_without_a_distance_and_say_so(trained, data, tmp_path, caplog):
    path = tmp_path / "best.ckpt"
    shutil.copy(trained / "checkpoints/best.ckpt", path)
    before = path.read_bytes()
    assert add_distance(path, data, unlike_share=0.02) is None
    assert path.read_bytes() == before
    assert "too few films; none is referred as unlike" in caplog.text


def test_stages_that_are_not_finite_are_told_and_fit_nothing(trained, data, tmp_path):
    path = tmp_path / "best.ckpt"
    content = read_checkpoint(trained / "checkpoints/best.ckpt")
    name = "ensemble.backbones.vit.trunk.blocks.0.norm1.weight"
    content["state_dict"][name] = torch.full_like(content["state_dict"][name], math.nan)
    torch.save(content, path)
    with pytest.raises(UserError, match="see of its films is not finite"):
        add_distance(path, data, unlike_share=SHARE, precision="f32")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"limit": math.nan}, "distance.limit=nan must be a number"),
        ({"limit": 0.0}, "distance.limit=0.0 must be a number above 0"),
        ({"rest": -1.0}, "distance.rest=-1.0 must be a number"),
        ({"scales": [1.0]}, "means and scales of a distance go together"),
        ({"variances": []}, "directions and variances"),
        ({"directions": ["x"]}, "must be numbers of 16 bits in base 64"),
        ({"directions": ["AAA="]}, "must each have"),
        ({"directions": ["AHw="]}, "all of them finite"),
        ({"directions": ["A" * 10**5]}, "distance.directions.0"),
        ({"means": [1.0], "scales": [1.0], "directions": [], "variances": [], "texture": None}, "of 1 channels, not"),
        ({"texture": {"limit": 1.0}}, "distance.texture.means"),
        ({"means": [math.inf]}, "distance.means.0=inf must be a number"),
        ({"surplus": 1}, "distance.surplus is unknown"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_strangers_distance_is_checked_before_it_is_used(knowing, tmp_path, change, words):
    content = read_checkpoint(knowing)
    changed = content["legradnet"]["distance"] | change
    if change.get("directions"):
        changed["directions"] = [*change["directions"], *content["legradnet"]["distance"]["directions"][1:]]
    torch.save({**content, "legradnet": {**content["legradnet"], "distance": changed}}, path := tmp_path / "odd.ckpt")
    with pytest.raises(UserError) as told:
        CheckpointNetwork(Path(path), device="cpu")
    assert words in str(told.value) and len(str(told.value)) < 3000
