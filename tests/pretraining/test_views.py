"""What two views have in common, which films are pairs, and the numbers to watch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from legradnet.data.sampler import EpochSampler
from legradnet.pretraining.losses import SimCLR, VICReg
from legradnet.pretraining.pairs import PairSampler
from legradnet.pretraining.watch import effective_rank, linear_probe

PATIENTS = st.lists(st.sampled_from(["", "a", "b", "c"]), min_size=1, max_size=20)


@given(patients=PATIENTS, seed=st.integers(0, 100), epoch=st.integers(0, 5))
def test_each_film_is_beside_another_of_its_patient_or_itself_and_the_draw_is_repeated(patients, seed, epoch):
    def pairs():
        order = EpochSampler(np.zeros(len(patients), dtype=int), shuffle=True, seed=seed)
        sampler = PairSampler(order, patients, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    drawn = pairs()
    assert drawn == pairs() and sorted(film for film, _ in drawn) == list(range(len(patients)))
    for film, partner in drawn:
        alone = not patients[film] or patients.count(patients[film]) == 1
        assert partner == film if alone else partner != film and patients[partner] == patients[film]


def test_vicreg_is_nothing_where_views_are_alike_and_dimensions_are_wide_and_independent():
    views = torch.tensor([[a, b] for a in (-2.0, 2.0) for b in (-2.0, 2.0)])
    loss = VICReg(25, 25, 1)
    assert loss(views, views).item() == pytest.approx(0, abs=1e-6)
    assert loss(views, views + 1).item() == pytest.approx(25)
    same = torch.zeros(4, 2)
    assert loss(same, same).item() == pytest.approx(25 * (1 - 1e-2), rel=1e-3), "nothing varies"
    twice = views[:, :1].repeat(1, 2)
    assert loss(twice, twice).item() > 1, "two dimensions say the same"


def test_simclr_is_the_cross_entropy_of_finding_the_other_view():
    rng = torch.Generator().manual_seed(0)
    first, second = (torch.randn(5, 3, generator=rng) for _ in range(2))
    views = [view / view.norm() for view in torch.cat([first, second])]
    losses = []
    for i, view in enumerate(views):
        others = {j: float(view @ other) / 0.2 for j, other in enumerate(views) if j != i}
        total = np.log(sum(np.exp(value) for value in others.values()))
        losses.append(total - others[(i + 5) % 10])
    assert SimCLR(0.2)(first, second).item() == pytest.approx(np.mean(losses), rel=1e-5)


@given(directions=st.integers(1, 6), seed=st.integers(0, 50))
def test_the_rank_is_at_most_the_directions_that_features_have(directions, seed):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(40, directions)) @ rng.normal(size=(directions, 12))
    assert 1 <= effective_rank(features) <= directions + 0.01


def test_features_that_are_equal_use_one_direction():
    assert effective_rank(np.ones((10, 4))) == pytest.approx(1, abs=1e-3)
    assert effective_rank(np.full((10, 4), np.nan)) == 1


def test_the_probe_reads_grades_that_lie_on_a_line_and_nothing_where_there_are_none():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, 6))
    grades = np.clip(np.rint(features[:, 2] + 2), 0, 4).astype(int)
    read = linear_probe(features[:150], grades[:150], features[150:], grades[150:], 5)
    assert read["qwk"] > 0.9 and read["accuracy"] > 0.8
    unread = linear_probe(features[:150, :2], grades[:150], features[150:, :2], grades[150:], 5)
    assert abs(unread["qwk"]) < 0.2
    unknown = np.full(150, -1)
    assert np.isnan([*linear_probe(features[:150], unknown, features[150:], grades[150:], 5).values()]).all()
    some = np.where(np.arange(150) < 75, grades[:150], -1)
    assert linear_probe(features[:150], some, features[150:], grades[150:], 5)["qwk"] > 0.9
