"""What a site's films teach about sets, distance and referral holds for the next film."""

import numpy as np
import pytest

from legradnet.data.film import Film
from legradnet.grading.distance import fit_distance
from legradnet.grading.reference import reference_of
from legradnet.site.fit import Aims, FilmsToFit, fit_site
from legradnet.statistics.two_samples import distributions_differ

AIMS = Aims(coverage=0.8, target_error=0.3)
KNEE = Film(np.tile(np.arange(64, dtype=np.uint8), (64, 1)))


def films(count, *, seed=0, sharpened=1.5, away=0.0, stages=True):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 5, count)
    raw = np.exp(-0.5 * ((labels + random.normal(0, 0.7, count))[:, None] - np.arange(5)) ** 2 / 0.49 * sharpened)
    seen = [random.normal(away, 1, size=(1, 12)) for _ in range(count)] if stages else ()
    return FilmsToFit(raw / raw.sum(axis=1, keepdims=True), labels, np.arange(count) // 2, [KNEE] * count, seen, (12,))


def older(count=200, seed=9):
    theirs = films(count, seed=seed, stages=False)
    plain = {"referred": [False] * count, "distances": [], "gate_weights": [{}] * count, "measures": [{}] * count}
    return reference_of(films=count, labels=theirs.labels.tolist(), probabilities=theirs.raw, **plain)


def fitted(site, reference=None, distance=None):
    return fit_site(site, "mode", AIMS, older=reference, distance=distance, seed=0)


def coverage(calibration, new):
    probabilities = calibration.probabilities(new.raw)
    sets = calibration.sets(probabilities, calibration.grades(new.raw))
    return float(((sets[:, 0] <= new.labels) & (new.labels <= sets[:, 1])).mean())


def test_sets_cover_new_films_as_often_as_wanted():
    new = films(3000, seed=100)
    found = [coverage(fitted(films(120, seed=seed, stages=False)).calibration, new) for seed in range(3)]
    assert np.mean(found) >= 0.78


def test_older_films_count_in_the_sets_of_a_site_with_few_films_and_not_in_those_of_one_with_many():
    few, many = fitted(films(40, stages=False), older()), fitted(films(260, stages=False), older())
    assert few.older_films > 0 and 0.4 < few.older_share < 0.9
    assert (many.older_films, many.older_share) == (0, 0.0)
    assert few.calibration.by_grade and not fitted(films(40, stages=False)).calibration.by_grade


def test_a_distance_moves_to_the_sites_centre_and_new_films_of_the_site_are_not_unlike():
    random = np.random.default_rng(1)
    model = fit_distance(random.normal(size=(400, 12)), random.normal(size=(400, 12)))
    site, new = films(160, away=0.7), films(400, seed=5, away=0.7)
    stages = np.concatenate(new.stages)
    one = fitted(site, distance=model)
    assert (model(stages) > 1).mean() > 0.1  # as it came
    assert (one.distance(stages) > 1).mean() < 0.06
    assert (one.distance(stages + 4) > 1).all()  # other films are still seen


@pytest.mark.parametrize("has_distance", [False, True])
def test_distances_that_are_kept_are_those_that_new_films_of_the_site_have(has_distance):
    random = np.random.default_rng(2)
    model = fit_distance(random.normal(size=(400, 12)), random.normal(size=(400, 12))) if has_distance else None
    p_values = []
    for seed in range(3):
        one = fitted(films(160, seed=seed), distance=model)
        kept = one.distances[np.isfinite(one.distances)]
        p_values.append(distributions_differ(kept, one.distance(np.concatenate(films(160, seed=seed + 50).stages))))
    assert min(p_values) > 0.001 and np.median(p_values) > 0.05


def test_too_few_films_leave_the_distance_as_it_is_and_say_so():
    random = np.random.default_rng(1)
    model = fit_distance(random.normal(size=(400, 12)), random.normal(size=(400, 12)))
    one = fitted(films(40), distance=model)
    assert one.distance == model and one.distances is None
    assert any("too few for a distance of the site" in note for note in one.notes)
    assert fitted(films(40)).distance is None


def test_films_that_can_not_be_graded_well_enough_are_all_referred():
    site = films(60, stages=False)
    hopeless = FilmsToFit(site.raw[::-1].copy(), site.labels, site.patients, site.thumbnails)
    one = fit_site(hopeless, "mode", Aims(0.8, 0.01), older=None, distance=None, seed=0)
    assert one.calibration.min_confidence > 1 and any("all are referred" in note for note in one.notes)
