"""The last step of training: what validation and training films teach about the best checkpoint, stored in it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from legradnet.checkpoint import read_checkpoint, write_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.files import written_whole
from legradnet.grading.calibration import Calibration, fit_calibration
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.film_check import FilmCheck, fit_film_check
from legradnet.run_folder import versions
from legradnet.training.metrics import answers_to

log = logging.getLogger(__name__)

_FILMS_CHECKED = 2000  # training films are enough for the limits of a few measures


def calibrate(
    path: Path, data: KneeDataModule, *, coverage: float, target_error: float, device: str, precision: str
) -> None:
    """Fit calibration on the validation films and the film check on training films, and store both in a checkpoint.

    Args:
        path: The checkpoint, rewritten whole.
        data: The films it was trained and validated on.
        coverage: Wanted share of prediction sets that hold the true grade.
        target_error: Wanted share of wrong grades among films that are not referred.
        device: auto, cpu, cuda, mps.
        precision: f32 or bf16.
    """
    network = CheckpointNetwork(path, device=device, precision=precision)
    answers, labels = answers_to(network, data, "val")
    raw = answers.probabilities
    calibration = fit_calibration(raw, labels, network.rule, coverage=coverage, target_error=target_error)
    describe_calibration(calibration)
    train, val = data.dataset("train"), data.dataset("val")
    chosen = np.random.default_rng(data.settings.seed).permutation(len(train))[:_FILMS_CHECKED]
    with ThreadPoolExecutor(4) as pool:
        film_check = fit_film_check(pool.map(train.thumbnail, chosen.tolist()))
        referred = 0
        if film_check:
            referred = sum(pool.map(lambda index: bool(film_check.reason(val.thumbnail(index))), range(len(val))))
    _describe_film_check(film_check, referred, len(val))

    learned: dict[str, Any] = {
        "calibration": calibration.model_dump(),
        "film_check": film_check.model_dump() if film_check else None,
        "false_referrals": {"films": len(val), "referred": referred} if film_check else None,
        "data": {"source": data.settings.source, "films": {s: data.class_counts(s) for s in ("train", "val", "test")}},
        "versions": versions(),
    }
    calibrated = {**read_checkpoint(path), "legradnet": learned}
    with written_whole(path, shared=True) as file:
        write_checkpoint(calibrated, file)


def describe_calibration(calibration: Calibration) -> None:
    """Log what was fitted."""
    if calibration.coverage is not None:
        log.info(
            "Calibrated on %d validation knees: temperature %.2f, prediction sets of %.0f %% coverage%s, "
            "%s (wanted error rate %g)",
            calibration.films,
            calibration.temperature,
            100 * calibration.coverage,
            " for each grade" if calibration.by_grade else "",
            "all referred as unsure"
            if calibration.min_confidence > 1
            else f"referred below a probability of {calibration.min_confidence:.2f}"
            if calibration.min_confidence > 0
            else "none referred as unsure",
            calibration.target_error,
        )
    for note in calibration.notes:
        log.warning("Calibration: %s.", note)


def _describe_film_check(film_check: FilmCheck | None, referred: int, films: int) -> None:
    if film_check:
        log.info("Film check: %d of %d validation films would be referred for their look.", referred, films)
    else:
        log.warning("Film check: too few training films; none is referred for a look unlike theirs.")
