import tracemalloc

import numpy as np
import pytest
from PIL import Image

from legradnet.data.synthetic import synthesize
from legradnet.localise.composites import Place, distracting
from legradnet.localise.film_knees import BY_CONVENTION, CUT_OFF, film_knees
from legradnet.localise.knees import SURE, Box, find_knees, is_cut_close
from whole_films import LEFT, RIGHT, SHAPE, SIDE, whole_film


def sure(film):
    return [knee for knee in find_knees(film) if knee.score >= SURE]


def are_at(knees, *places):
    assert len(knees) == len(places)
    for knee, place in zip(knees, places, strict=True):
        assert max(abs(knee.x - place.x), abs(knee.y - place.y)) < 0.15 * place.side  # drawn joints lie higher
        assert 0.8 < knee.side / place.side < 1.25


@pytest.mark.parametrize("seed", [2, 3])
def test_both_knees_of_a_film_are_found_from_left_to_right(seed):
    are_at(sure(whole_film(RIGHT, LEFT, seed=seed)), RIGHT, LEFT)


def test_both_knees_of_a_film_are_cut_as_large_as_each_other():
    right, left = sure(whole_film(RIGHT, LEFT))
    assert right.side == left.side


def test_a_lone_knee_is_found_wherever_it_is():
    place = Place(170.0, 500.0, 80.0)
    are_at(sure(whole_film(place, shape=(900, 320))), place)


def test_black_and_white_may_be_exchanged():
    are_at(sure(255 - whole_film(RIGHT, LEFT)), RIGHT, LEFT)


def test_no_more_than_two_knees_are_found():
    places = [Place(x, 150.0, 80.0) for x in (60.0, 200.0, 340.0)]
    assert len(find_knees(whole_film(*places))) <= 2


@pytest.mark.parametrize("film", ["blank", "noise", "shaft"])
def test_where_there_is_no_knee_none_is_found(film):
    rng = np.random.default_rng(0)
    films = {
        "blank": np.full((200, 300), 90, np.uint8),
        "noise": rng.integers(0, 255, (200, 300)).astype(np.uint8),
        "shaft": np.repeat(whole_film(RIGHT, LEFT)[20:21], 250, axis=0),
    }
    assert sure(films[film]) == []


def test_a_film_that_is_a_knee_cut_close_is_told_from_one_that_is_not():
    knees, _ = synthesize(4, size=160, seed=5)
    assert all(is_cut_close(knee) for knee in knees)
    assert not is_cut_close(whole_film(RIGHT, LEFT))
    assert not is_cut_close(distracting(knees[0], (160, 160), np.random.default_rng(4)))


@pytest.mark.parametrize("shape", [(16, 16), (16, 900), (900, 16), (17, 40)])
def test_films_of_a_few_pixels_have_no_knees_and_break_nothing(shape):
    assert sure(np.random.default_rng(1).integers(0, 255, shape).astype(np.uint8)) == []


@pytest.mark.slow
def test_a_very_large_film_is_searched_in_little_memory():
    place = Place(170.0, 500.0, 80.0)
    large = np.array(
        Image.fromarray(whole_film(place, shape=(1280, 320))).resize((5000, 20_000), Image.Resampling.NEAREST)
    )
    tracemalloc.start()
    (knee,) = sure(large)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6
    assert abs(knee.side / (place.side * 5000 / 320) - 1) < 0.25


def test_a_square_over_the_edge_is_cut_with_black():
    film = np.full((10, 20), 7, np.uint8)
    cut = Box(-2, 4, 8).cut(film)
    assert cut.shape == (8, 8) and (cut[:6, 2:] == 7).all() and cut.sum() == 7 * 36
    assert Box(-2, 4, 8).outside(film.shape) == 1 - 36 / 64
    assert Box(30, 30, 5).outside(film.shape) == 1 and not Box(30, 30, 5).cut(film).any()


def test_the_patients_right_is_on_the_films_left_and_a_lone_knee_is_whose_it_is_said_to_be():
    both = find_knees(whole_film(RIGHT, LEFT))
    right, left = film_knees(both, SHAPE, "")
    assert (right.side, left.side) == ("R", "L") and BY_CONVENTION in right.remarks
    (lone,) = film_knees(both[:1], SHAPE, "L")
    assert lone.side == "L" and not lone.remarks
    (lone,) = film_knees(both[:1], SHAPE, "")
    assert lone.side == "R" and lone.remarks == (BY_CONVENTION,)
    (of_one_leg,) = film_knees(both[:1], (600, 300), "")
    assert of_one_leg.side == ""
    assert any("R alone" in said for said in film_knees(both, SHAPE, "R")[1].remarks)


def test_a_knee_that_the_edge_cuts_off_is_left_out():
    (knee,) = find_knees(whole_film(RIGHT, LEFT))[:1]
    (cut,) = film_knees([knee._replace(x=0.25 * SIDE)], SHAPE, "")
    assert cut.left_out == CUT_OFF
