"""A site's films graded once by the model as it came, with all that fitting needs of each; they are not kept."""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from legradnet.data.film import Film, Gray, ImageError, thumbnail
from legradnet.data.reading.pool import Stop
from legradnet.evaluation.films import LabelledFilms
from legradnet.evaluation.graded import Graded, graded_films
from legradnet.grades import Floats
from legradnet.grading.distance import UNLIKE
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Prepared, Request, readable, why_unsure
from legradnet.grading.look import look_at
from legradnet.grading.networks import GradingNetwork
from legradnet.grading.preparing import read, read_in_batches, without_film
from legradnet.grading.reference import ReferenceFilms
from legradnet.site.fit import Aims, FilmsToFit, Fitted, fit_site
from legradnet.site.scaling import folds_of

_WORKERS = 4


@dataclass(frozen=True)
class SiteFilms:
    """N labelled films of a site.

    Attributes:
        films: Where they are.
        gradings: What the model says of each, as it came [N].
        before: The same beside the true grades.
        seen: What of them is fitted on.
    """

    films: LabelledFilms
    gradings: list[Grading]
    before: Graded
    seen: FilmsToFit


def graded_site(grader: Grader, films: LabelledFilms, workers: int | None) -> SiteFilms:
    """Grade the films, and keep of each what fitting needs.

    Raises:
        ImageError: A film that can't be read, or that is answered with numbers that are not finite.
    """
    (network,) = grader.networks
    gradings: list[Grading] = []
    thumbnails: list[Film] = []
    stages: list[Floats] = []

    def prepared(request: Request) -> tuple[Prepared, Film] | ImageError:
        one = grader.prepare(request)
        return one if isinstance(one, ImageError) else (without_film(one), thumbnail(one.film))

    with (
        closing(read_in_batches(films.requests, prepared, workers, grader.batch_size, grader.networks)) as batches,
        tqdm(total=len(films.requests), unit="film", disable=not sys.stderr.isatty()) as bar,
    ):
        for batch in batches:
            several = readable(batch)
            gradings += readable(grader.grade_prepared([one for one, _ in several]))
            thumbnails += [small for _, small in several]
            stages += _stages_of(network, [one.views[0] for one, _ in several])
            bar.update(len(batch))
    before = graded_films(films.table, gradings, grader.backbones)
    trunks = () if isinstance(network, ExportedNetwork) else tuple(network.stage_means.trunks)  # type: ignore[attr-defined]
    seen = FilmsToFit(before.raw, before.labels, before.patients, thumbnails, stages, trunks)
    return SiteFilms(films, gradings, before, seen)


def _stages_of(network: GradingNetwork, views: Sequence[Sequence[Gray]]) -> list[Floats]:
    """What trunks see of each film's views, [V, W] each; none where an export does not say."""
    batch = np.stack([view for film in views for view in film])[:, None]
    if isinstance(network, ExportedNetwork):
        if network.distance is None:
            return []
        said = network.outputs(batch)["stages"].astype(np.float64)
    else:
        said = network.stages(batch)  # type: ignore[attr-defined]
    return np.split(said, np.cumsum([len(film) for film in views])[:-1])


def crossfitted(
    site: SiteFilms, network: GradingNetwork, aims: Aims, older: ReferenceFilms | None, seed: int
) -> tuple[Graded, list[Grading]]:
    """The films as they would be graded after calibrating: each by what films of other patients teach.

    Returns:
        Beside the true grades, and one by one.
    """
    count, rule = len(site.gradings), network.rule
    folds = folds_of(site.seen.patients, seed)
    after: list[Grading] = list(site.gradings)
    for fold in range(int(folds.max()) + 1):
        rows = np.flatnonzero(folds == fold)
        others = site.seen.subset(np.flatnonzero(folds != fold))
        fitted = fit_site(others, rule, aims, older=older, distance=network.distance, seed=seed)
        for row, grading in zip(rows.tolist(), regraded(site, rows.tolist(), fitted), strict=True):
            after[row] = grading
    assert len(after) == count
    return graded_films(site.films.table, after, site.before.backbones), after


def regraded(site: SiteFilms, rows: Sequence[int], fitted: Fitted) -> list[Grading]:
    """Gradings of some films under another calibration, film check and distance; the network is not asked again."""
    raw = site.seen.raw[list(rows)]
    probabilities, grades = fitted.calibration.probabilities(raw), fitted.calibration.grades(raw)
    sets = fitted.calibration.sets(probabilities, grades)
    assert sets is not None
    looks = _looks(site.films.requests, rows, fitted.film_check)
    gradings = []
    for i, row in enumerate(rows):
        before, grade = site.gradings[row], int(grades[i])
        distance = before.distance
        if fitted.distance and site.seen.stages:
            distance = float(fitted.distance(site.seen.stages[row]).min())
        look = "; ".join(filter(None, [looks[i], UNLIKE if distance is not None and distance > 1 else ""]))
        confidence, least = float(probabilities[i, grade]), fitted.calibration.min_confidence
        unsure = "" if confidence >= least else why_unsure(confidence, least)
        gradings.append(
            replace(
                before,
                grade=grade,
                probabilities=probabilities[i],
                expected_grade=float(probabilities[i] @ np.arange(raw.shape[1])),
                prediction_set=tuple(range(int(sets[i, 0]), int(sets[i, 1]) + 1)),
                referred=bool(look or unsure),
                reason="; ".join(filter(None, [look, unsure, *before.remarks])),
                look=look,
                distance=distance,
            )
        )
    return gradings


def _looks(requests: Sequence[Request], rows: Sequence[int], check: FilmCheck | None) -> list[str]:
    """What is wrong with the look of some films under another check: read again, as they are not kept."""

    def look(row: int) -> str:
        film = read(requests[row]).film
        return "; ".join([*film.doubts, *look_at(film, [check]).refer])

    with Stop() as stop, ThreadPoolExecutor(_WORKERS, initializer=stop.heed) as pool:
        return [*pool.map(look, rows)]
