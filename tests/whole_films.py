"""Whole films made of drawn knees: what a clinic's film of both legs, or of one, looks like to the finder."""

import numpy as np

from legradnet.data.synthetic import synthesize
from legradnet.localise.composites import Place, compose, with_prosthesis

SHAPE = (300, 400)
SIDE = 110.0
CLEAR = 13  # seed of a film on which there is no doubt of either knee
RIGHT, LEFT = Place(105.0, 150.0, SIDE), Place(300.0, 156.0, SIDE)  # the patient's, as they lie on the film


def whole_film(*places, seed=2, shape=SHAPE, replaced=()):
    """A film [H, W] with a drawn knee at each of the places: a left one on its right half, a right one on its left."""
    knees, _ = synthesize(2, size=128, seed=seed)
    crops = [knees[0] if place.x > shape[1] / 2 else knees[1] for place in places]
    crops = [
        with_prosthesis(crop, np.random.default_rng(8)) if place in replaced else crop
        for crop, place in zip(crops, places, strict=True)
    ]
    return compose(crops, places, shape, np.random.default_rng(seed))
