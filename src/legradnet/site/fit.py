"""Calibration, film check and distance from a site's labelled films; weights are neither asked nor changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from legradnet.data.film import Film
from legradnet.grades import Floats, Ints, Rule
from legradnet.grading.calibration import MIN_PER_GRADE, Calibration, nonconformity, referral_threshold
from legradnet.grading.distance import MIN_FILMS as MIN_OF_DISTANCE
from legradnet.grading.distance import Distance, fit_distance, limit_rank, recentred, with_distances
from legradnet.grading.film_check import FilmCheck, fit_film_check
from legradnet.grading.reference import ReferenceFilms
from legradnet.site.scaling import Tried, choose_scaling, folds_of
from legradnet.statistics.conformal import conformal_quantile, weight_of_older

ENOUGH = 100  # films of a site, and of each grade, with which older ones count for nothing in its sets
ENOUGH_OF_A_GRADE = 2 * MIN_PER_GRADE
_SPARE = 1.0  # standard errors by which the films that are kept are better than wanted: of few films luck is large
SHARE = 0.02  # of films like the site's that may be beyond a distance of its own


@dataclass(frozen=True)
class Aims:
    """What the probabilities are for: coverage of sets, error rate of films that are kept, share of unlike films."""

    coverage: float
    target_error: float


@dataclass(frozen=True)
class FilmsToFit:
    """N films of a site as a network sees them.

    Attributes:
        raw: Its probabilities [N, K].
        labels: True grades [N].
        patients: The number of each one's patient [N].
        thumbnails: Of each film [N].
        stages: What its trunks see of each: [V, W] for V views of it; () where it does not say.
        trunks: How many of the channels are each trunk's.
    """

    raw: Floats
    labels: Ints
    patients: Ints
    thumbnails: Sequence[Film]
    stages: Sequence[Floats] = ()
    trunks: tuple[int, ...] = ()

    def subset(self, rows: Ints) -> "FilmsToFit":
        """Some of them."""
        return FilmsToFit(
            self.raw[rows],
            self.labels[rows],
            self.patients[rows],
            [self.thumbnails[row] for row in rows],
            [self.stages[row] for row in rows] if self.stages else (),
            self.trunks,
        )


@dataclass(frozen=True)
class Fitted:
    """What was fitted, and how.

    Attributes:
        calibration: Of probabilities, sets and referral.
        tried: The ways to scale probabilities, and what was found of each.
        film_check: Limits of a film's look.
        distance: From the training films, with the site's limit; None where the network does not say.
        distances: Of the films [N], as it will measure new ones: by films of others alone; nan where it was fitted on a
            film. None where the distance is the model's, or there is none.
        older_films: Films of the reference that took part in the sets.
        older_share: Their share of the weight there.
        notes: What could not be fitted, and why.
    """

    calibration: Calibration
    tried: list[Tried]
    film_check: FilmCheck | None
    distance: Distance | None
    distances: Floats | None = None
    older_films: int = 0
    older_share: float = 0.0
    notes: list[str] = field(default_factory=list)


def fit_site(
    films: FilmsToFit,
    rule: Rule,
    aims: Aims,
    *,
    older: ReferenceFilms | None,
    distance: Distance | None,
    seed: int,
    all_tried: bool = False,
) -> Fitted:
    """Fit all that a site's films teach.

    Args:
        films: Of the site, of two patients at least.
        rule: How a grade follows from the network's probabilities.
        aims: As in the calibration before, or others.
        older: Films that the calibration before was fitted on, where the model keeps some.
        distance: The model's.
        seed: Of the folds.
        all_tried: As `choose_scaling` takes it.
    """
    scaled, tried = choose_scaling(films.raw, films.labels, films.patients, rule, seed=seed, all_tried=all_tried)
    sets, notes = _fit_sets(scaled, films, aims, older)
    grades = scaled.grades(films.raw)
    confidence = scaled.probabilities(films.raw)[np.arange(len(grades)), grades]
    least = referral_threshold(confidence, grades != films.labels, aims.target_error, spare=_SPARE)
    if least > 1:
        notes.append(f"no films of the site are graded with an error rate of at most {aims.target_error:g}: all are "
                     "referred")  # fmt: skip
    calibration = scaled.model_copy(
        update={
            "films": len(films.labels),
            "coverage": aims.coverage,
            "thresholds": sets.thresholds,
            "by_grade": sets.by_grade,
            "target_error": aims.target_error,
            "min_confidence": least,
            "notes": list(notes),
        }
    )
    fitted_distance, distances, said = _fit_distance(films, distance, seed)
    return Fitted(
        calibration,
        tried,
        fit_film_check(films.thumbnails),
        fitted_distance,
        distances,
        sets.older_films,
        sets.older_share,
        [*notes, *said],
    )


@dataclass(frozen=True)
class _Sets:
    thresholds: list[float]
    by_grade: bool
    older_films: int
    older_share: float


def _fit_sets(
    scaled: Calibration, films: FilmsToFit, aims: Aims, older: ReferenceFilms | None
) -> tuple[_Sets, list[str]]:
    classes = films.raw.shape[1]
    scores, labels = _scores(scaled, films.raw, films.labels), films.labels
    theirs = _scores(scaled, older.raw, older.true_grades) if older else np.zeros(0)
    their_labels = older.true_grades if older else np.zeros(0, np.int64)
    ours_of, theirs_of = (np.bincount(of, minlength=classes) for of in (labels, their_labels))
    weights_of = [
        weight_of_older(int(ours), int(others), ENOUGH_OF_A_GRADE)
        for ours, others in zip(ours_of, theirs_of, strict=True)
    ]
    counted = ours_of + np.array(weights_of) * theirs_of
    notes = []
    if by_grade := bool((counted >= MIN_PER_GRADE).all()):
        weights = np.array(weights_of)[their_labels]
        thresholds = [
            conformal_quantile(
                np.concatenate([scores[labels == grade], theirs[their_labels == grade]]),
                aims.coverage,
                np.concatenate([np.ones(int(ours_of[grade])), weights[their_labels == grade]]),
            )
            for grade in range(classes)
        ]
    else:
        rare = ", ".join(
            f"{count:.3g} of grade {grade}" for grade, count in enumerate(counted) if count < MIN_PER_GRADE
        )
        notes.append(f"sets cover {aims.coverage:.0%} on average, not for each grade: only {rare}")
        weights = np.full(len(theirs), weight_of_older(len(scores), len(theirs), ENOUGH))
        all_weights = np.concatenate([np.ones(len(scores)), weights])
        thresholds = [conformal_quantile(np.concatenate([scores, theirs]), aims.coverage, all_weights)] * classes
    if math.inf in thresholds:
        notes.append(f"too few films for a coverage of {aims.coverage:g}: sets hold more grades than they need to")
    total = float(weights.sum())
    return _Sets(thresholds, by_grade, int((weights > 0).sum()), total / (total + len(scores))), notes


def _scores(scaled: Calibration, raw: Floats, labels: Ints) -> Floats:
    return nonconformity(scaled.probabilities(raw))[np.arange(len(labels)), labels]


def _fit_distance(
    films: FilmsToFit, distance: Distance | None, seed: int
) -> tuple[Distance | None, Floats | None, list[str]]:
    """The model's distance about the site's own centre, with a limit from patients who did not move that."""
    if not films.stages:
        return distance, None, []
    if distance is None:
        folds = folds_of(films.patients, seed, folds=2)
        first = np.stack([films.stages[row][0] for row in np.flatnonzero(folds == 0).tolist()])
        held = np.concatenate([films.stages[row][:1] for row in np.flatnonzero(folds == 1).tolist()])
        fitted = fit_distance(first, held, trunks=films.trunks, share=SHARE)
        few = f"no distance: the model has none, and half of {len(films.labels)} films are too few to fit one"
        if fitted is None:
            return None, None, [few]
        found = np.full(len(folds), np.nan)
        found[folds == 1] = fitted(held)
        return fitted, found, []
    if limit_rank(len(films.stages), distance.share) is None or len(films.stages) < MIN_OF_DISTANCE:
        return distance, None, [f"{len(films.stages)} films are too few for a distance of the site: it is the model's"]
    folds = folds_of(films.patients, seed)
    held_out = np.zeros(len(folds))
    for fold in range(int(folds.max()) + 1):
        others = [films.stages[row].mean(axis=0) for row in np.flatnonzero(folds != fold).tolist()]
        moved = recentred(distance, np.stack(others))
        for row in np.flatnonzero(folds == fold).tolist():
            held_out[row] = moved(films.stages[row]).min()
    moved = recentred(distance, np.stack([views.mean(axis=0) for views in films.stages]))
    fitted = with_distances(moved, held_out)
    return fitted, held_out * distance.limit / fitted.limit, []
