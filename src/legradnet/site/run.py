"""`legradnet-calibrate`: a trained model and a site's labelled films to a model for that site; weights stay."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from legradnet.claims import filled_whole
from legradnet.data.film import ImageError
from legradnet.errors import UserError
from legradnet.evaluation.films import LabelledFilms, load_films, run_of, seen_in_training
from legradnet.grading.calibration import MIN_FILMS
from legradnet.grading.grader import Grader
from legradnet.grading.loading import load_network, models_in_words
from legradnet.grading.metadata import CalibratedAtSite, FalseReferrals, Learned
from legradnet.grading.networks import GradingNetwork
from legradnet.grading.reference import ReferenceFilms, reference_films
from legradnet.grading.reference_file import read_reference
from legradnet.settings import checked
from legradnet.site.films import crossfitted, graded_site
from legradnet.site.fit import Aims, fit_site
from legradnet.site.folder import last_of, write_site
from legradnet.site.page import numbers_of, page_of
from legradnet.site.settings import CalibrateSettings
from legradnet.statistics.bootstrap import patient_numbers

log = logging.getLogger(__name__)

_COVERAGE, _TARGET_ERROR = 0.9, 0.25  # where the model was not calibrated


def calibrate(config: Mapping[str, Any] | CalibrateSettings) -> Path:
    """Calibrate `checkpoint` on a site's films, as `conf/calibrate.yaml` composes it.

    Returns:
        The folder: a model, or an export where the checkpoint is one.

    Raises:
        UserError: A mistake in the config, the checkpoint, the films or the output folder; too few films or patients,
            or films that trained the model.
    """
    settings = checked(CalibrateSettings, config)
    network = load_network(settings.checkpoint, settings.device, settings.precision, None)
    if network.not_finite:
        raise UserError(f"{network.path} can't be calibrated: {network.not_finite} is not finite.")
    output = Path(settings.output)
    with filled_whole(output, last=last_of(network)) as folder:
        try:
            _fill(folder, settings, network)
        except ImageError as error:
            raise UserError(f"Nothing was written: {error}") from None
    print(output)
    return output


def _fill(folder: Path, settings: CalibrateSettings, network: GradingNetwork) -> None:
    older = _reference(settings, network)
    films = _films(settings, network)
    warnings = [*films.warnings, *_seen(network, films)]
    if older is None:
        warnings.append(
            "The model has kept none of the films that it was calibrated on, so the prediction sets follow from this "
            "site's alone; reference= names predictions of such films."
        )
    aims = Aims(
        settings.coverage or network.calibration.coverage or _COVERAGE,
        settings.target_error or network.calibration.target_error or _TARGET_ERROR,
    )
    grader = Grader([network], batch_size=settings.data.batch_size)
    log.info("Calibrating %s on %d films", models_in_words(grader.networks), len(films.table))
    site = graded_site(grader, films, settings.data.num_workers)
    after, gradings = crossfitted(site, network, aims, older, settings.seed)
    how: Any = {"older": older, "distance": network.distance, "seed": settings.seed}
    fitted = fit_site(site.seen, network.rule, aims, all_tried=True, **how)
    patients = site.before.patients
    record = CalibratedAtSite(
        films=len(gradings),
        patients=int(patients.max()) + 1,
        older_films=fitted.older_films,
        older_share=fitted.older_share,
        scaling=next(tried.family for tried in fitted.tried if tried.chosen),
        model=network.digest,
    )
    referred = sum(bool(grading.look) for grading in gradings)
    learned = network.learned.model_copy(
        update={
            "calibration": fitted.calibration,
            "film_check": fitted.film_check,
            "distance": fitted.distance,
            "false_referrals": FalseReferrals(films=len(gradings), referred=referred),
            "reference": reference_films(gradings, site.before.labels, patients, distances=fitted.distances),
            "site": record,
        }
    )
    numbers = numbers_of(site.before, after, fitted, record, settings, warnings)
    write_site(folder, network, Learned.model_validate(learned.model_dump(exclude_unset=True)),
               page_of(numbers, network, fitted), numbers)  # fmt: skip
    _tell(numbers)


def _reference(settings: CalibrateSettings, network: GradingNetwork) -> ReferenceFilms | None:
    if settings.reference:
        return read_reference(Path(settings.reference), network.calibration, network.classes)
    return network.learned.reference


def _films(settings: CalibrateSettings, network: GradingNetwork) -> LabelledFilms:
    data = settings.data.model_copy(update={"verify": "decode"})  # training films are known by their pictures
    films = load_films(
        data, network.path, split=settings.split, num_classes=network.classes, image_size=network.image_size
    )
    count = len(films.table)
    if count < MIN_FILMS:
        raise UserError(
            f"{count} labelled films are too few to calibrate on: at least {MIN_FILMS} are needed, and 100 to 300 are "
            "better."
        )
    if int(patient_numbers(films.table["patient"].astype(str).tolist()).max()) == 0:
        raise UserError(f"All {count} films are of one patient: what they teach can't be tried on another one.")
    return films


def _seen(network: GradingNetwork, films: LabelledFilms) -> Sequence[str]:
    """What is to be told of films that training may have seen; UserError where some are known to be training films."""
    name = network.path.name
    if seen := network.learned.seen:
        if known := seen.among(films.fingerprints):
            first = films.table["filename"].iat[known[0]]
            raise UserError(
                f"{len(known)} of the {len(films.table)} films were training films of {name}, {first} first: what a "
                "model says of films that it has learned teaches nothing about others. Leave them out."
            )
        return []
    if films.own is None and (known_by_name := seen_in_training(films.table, run_of(network.path))):
        return [
            f"{known_by_name} of these films share a file name or a patient with training or validation films of the "
            "model: if they are the same, the numbers are too good."
        ]
    if films.own:
        return []
    return ["Whether some of these films trained the model could not be checked, as it has kept nothing of its films."]


def _tell(numbers: Mapping[str, Any]) -> None:
    log.info("Probabilities: %s", next(one["family"] for one in numbers["scaling"] if one["chosen"]))
    for name in ("accuracy", "ece", "coverage", "referral_rate", "accepted_error"):
        pair = [numbers["metrics"][name][when] for when in ("before", "after")]
        told = ["n/a" if one is None or one["value"] is None else f"{one['value']:.3f}" for one in pair]
        log.info("%-14s %s -> %s (on patients that nothing was fitted on)", name, *told)
    for warning in [*numbers["warnings"], *numbers["notes"]]:
        log.warning("%s", warning if warning.endswith(".") else f"{warning[:1].upper()}{warning[1:]}.")
