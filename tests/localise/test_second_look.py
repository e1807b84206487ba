import numpy as np
import pytest
import torch

from legradnet.localise.layers import answers, layers_of
from legradnet.localise.learn_second_look import exact_examples, network, widened
from legradnet.localise.second_look import CLOSER, EXACT, Square, look_closer, look_exactly
from whole_films import LEFT, RIGHT, whole_film

FILM = whole_film(RIGHT, LEFT)


def off(square, place):
    return max(abs(square.x - place.x), abs(square.y - place.y)) / place.side, square.side / place.side


@pytest.mark.parametrize(("x", "y", "scale"), [(0.2, -0.1, 0.75), (-0.15, 0.2, 1.3)])
def test_a_square_that_is_far_off_comes_to_lie_on_its_knee(x, y, scale):
    start = Square(RIGHT.x + x * RIGHT.side, RIGHT.y + y * RIGHT.side, scale * RIGHT.side)
    look = look_closer(FILM, start)
    middle, side = off(look.square, RIGHT)
    assert middle < 0.12 and 0.85 < side < 1.18 and look.logit > 0


def test_whence_a_knee_is_looked_at_does_not_matter():
    squares = [
        look_exactly(FILM, Square(RIGHT.x + x, RIGHT.y - x, scale * RIGHT.side))
        for x, scale in ((-4, 0.95), (0, 1), (4, 1.05))
    ]
    assert np.ptp(squares, axis=0).max() < 0.06 * RIGHT.side


def test_other_things_look_different_from_each_square():
    noise = np.random.default_rng(0).integers(0, 255, FILM.shape).astype(np.uint8)
    knee, other = look_closer(FILM, Square(*RIGHT[:3])), look_closer(noise, Square(*RIGHT[:3]))
    assert other.spread > 1.5 * knee.spread and other.logit < knee.logit


def test_a_look_beyond_the_films_edge_breaks_nothing():
    for film in (FILM[:3, :3], FILM):
        look = look_closer(film, Square(-500.0, 900.0, 40.0))
        assert np.isfinite([*look.square, look.logit, look.spread]).all()


@pytest.mark.parametrize("glance", [CLOSER, EXACT])
def test_a_window_is_seen_as_one_answer(glance):
    net = network(glance, 3)
    seen = np.random.default_rng(1).standard_normal((1, glance.height, glance.width)).astype(np.float32)
    maps = torch.from_numpy(seen[None])
    for convolution in net[:-1]:
        maps = convolution(maps).relu()
    tensors = {name: value.detach().numpy() for name, value in net.state_dict().items()}
    told = answers(layers_of(tensors, glance.strides), seen[0])
    assert told.shape == (3, 1, 1) and told == pytest.approx(net[-1](maps).detach().numpy()[0], abs=1e-4)


def test_what_is_learned_from_is_where_it_is_said_to_be():
    crop = np.full((112, 112), 60, np.uint8)
    crop[50:62, 50:62] = 250  # the very middle
    draw = exact_examples(crop[None])
    for seed in range(6):
        seen, (x, y, _), _ = draw(np.random.default_rng(seed))
        rows, columns = np.nonzero(seen > 200)
        width = EXACT.width / EXACT.span
        assert (columns.mean() + 0.5 - EXACT.width / 2) / width == pytest.approx(x, abs=0.015)
        assert (rows.mean() + 0.5 - EXACT.height / 2) / width == pytest.approx(y, abs=0.015)


def test_what_is_drawn_beside_a_crop_leaves_it_as_it_is():
    crop = FILM[:112, :112]
    wide = widened(crop, np.random.default_rng(2))
    assert wide.shape == (112, 168) and np.array_equal(wide[:, 28:-28], crop)
