"""The last step of training: what validation and training films teach about the best checkpoint, stored in it."""

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from legradnet.checkpoint import read_checkpoint, write_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.dataset import KneeDataset, collate
from legradnet.errors import UserError
from legradnet.files import written_whole
from legradnet.grades import Floats, Ints
from legradnet.grading.calibration import Calibration, fit_calibration
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.distance import MIN_FILMS, Distance, fit_distance, limit_rank
from legradnet.grading.film_check import FilmCheck, fit_film_check
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Request
from legradnet.grading.reference import one_a_patient, reference_films
from legradnet.grading.seen_films import seen_films
from legradnet.run_folder import versions
from legradnet.statistics.bootstrap import patient_numbers
from legradnet.training.metrics import answers_to

log = logging.getLogger(__name__)

_FILMS_CHECKED = 2000  # training films are enough for the limits of a few measures
_FILMS_MEASURED = 6000  # are enough for the spread of what trunks see


def calibrate(
    path: Path,
    data: KneeDataModule,
    *,
    coverage: float,
    target_error: float,
    unlike_share: float | None = None,
    device: str,
    precision: str,
) -> None:
    """Fit calibration on the validation films, film check and distance on training films; store all in a checkpoint.

    Args:
        path: The checkpoint, rewritten whole.
        data: The films it was trained and validated on.
        coverage: Wanted share of prediction sets that hold the true grade.
        target_error: Wanted share of wrong grades among films that are not referred.
        unlike_share: As `add_distance` takes it; None: no distance is fitted.
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
    distance = _fitted_distance(network, data, unlike_share) if unlike_share else None
    network.calibration, network.film_check, network.distance = calibration, film_check, distance  # as it will grade

    learned: dict[str, Any] = {
        "calibration": calibration.model_dump(),
        "film_check": film_check.model_dump() if film_check else None,
        "false_referrals": {"films": len(val), "referred": referred} if film_check else None,
        **({"distance": distance.model_dump()} if distance else {}),
        **_kept_of_films(network, data),
        "data": {"source": data.settings.source, "films": {s: data.class_counts(s) for s in ("train", "val", "test")}},
        "versions": versions(),
    }
    _rewrite(path, learned)


def _kept_of_films(network: CheckpointNetwork, data: KneeDataModule) -> dict[str, Any]:
    """Validation films to hold others beside, and which pictures were learned; of what can't be had nothing."""
    films = data.films("val")
    patients = patient_numbers(films["patient"].astype(str).tolist())
    chosen = one_a_patient(patients).tolist()
    sides = films["side"].tolist()
    requests = [Request(data.film(int(films.index[row])), sides[row]) for row in chosen]
    gradings = [film for batch in Grader([network]).stream(requests) for film in batch]
    kept = [i for i, film in enumerate(gradings) if isinstance(film, Grading)]  # a file may be gone since it was cached
    labels = films["label"].to_numpy()[[chosen[i] for i in kept]]
    seen = seen_films(data.fingerprints(data.films("train").index.tolist()))
    reference = None
    if kept:
        reference = reference_films([gradings[i] for i in kept], labels, np.arange(len(kept)), films=len(films))  # type: ignore[misc]
    return {
        **({"seen": seen.model_dump()} if seen else {}),
        **({"reference": reference.model_dump()} if reference else {}),
    }


def add_distance(
    path: Path, data: KneeDataModule, *, unlike_share: float = 0.02, device: str = "auto", precision: str = "auto"
) -> Distance | None:
    """Give a checkpoint that was trained without one its distance from the training films; all else stays as it is.

        data = KneeDataModule({"source": "folder", "dataset_path": "knees", "mirror_left": True})
        data.setup()
        add_distance(Path("run/checkpoints/best.ckpt"), data)

    Args:
        path: The checkpoint, rewritten whole.
        data: The films it was trained and validated on, split and prepared as they were then, which is not checked.
        unlike_share: Most films like these that may be referred as unlike them.
        device: auto, cpu, cuda, mps.
        precision: That it will grade in: auto, f32 or bf16.

    Returns:
        What was added; None, and nothing is written, where there are too few films.

    Raises:
        UserError: No checkpoint of ours; what it sees of films is not finite.
    """
    network = CheckpointNetwork(path, device=device, precision=precision)
    if distance := _fitted_distance(network, data, unlike_share):
        _rewrite(path, {**(read_checkpoint(path).get("legradnet") or {}), "distance": distance.model_dump()})
    return distance


def _fitted_distance(network: CheckpointNetwork, data: KneeDataModule, share: float) -> Distance | None:
    films = {split: data.dataset(split) for split in ("train", "val")}
    if limit_rank(len(films["val"]), share) is None or len(films["train"]) < MIN_FILMS:
        log.warning("Distance: too few films; none is referred as unlike the training films by what trunks see of it.")
        return None
    chosen = np.random.default_rng(data.settings.seed).permutation(len(films["train"]))[:_FILMS_MEASURED]
    train, val = (
        _stages_of(network, dataset, rows, data.settings.batch_size)
        for dataset, rows in ((films["train"], np.sort(chosen)), (films["val"], np.arange(len(films["val"]))))
    )
    distance = fit_distance(train, val, trunks=network.stage_means.trunks, share=share)
    if distance:
        log.info("Distance from %d training films: %d of %d validation films would be referred as unlike them.",
                 len(train), int((distance(val) > 1).sum()), len(val))  # fmt: skip
    return distance


def _stages_of(network: CheckpointNetwork, films: KneeDataset, rows: Ints, batch_size: int) -> Floats:
    """What the trunks see of films themselves [N, W], also where training knew no more than their pooled features."""
    stages = []
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, len(rows), batch_size):
            batch = pool.map(films.__getitem__, rows[start : start + batch_size].tolist())
            stages.append(network.stages(collate([*batch]).films.numpy()))
    joined = np.concatenate(stages)
    if not np.isfinite(joined).all():
        raise UserError(f"What the trunks of {network.path} see of its films is not finite.")
    return joined


def _rewrite(path: Path, learned: dict[str, Any]) -> None:
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
