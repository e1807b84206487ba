"""Reference films from the `predictions.jsonl` of labelled films, for a model that has kept none."""

from pathlib import Path

import numpy as np

from legradnet.errors import UserError
from legradnet.grades import Floats, Ints
from legradnet.grading.calibration import Calibration, tempered
from legradnet.grading.journal import read_json_lines
from legradnet.grading.predictions import Record
from legradnet.grading.reference import ReferenceFilms, one_a_patient, reference_of
from legradnet.statistics.bootstrap import patient_numbers


def read_reference(path: Path, calibration: Calibration, classes: int) -> ReferenceFilms:
    """The labelled films of a `predictions.jsonl`, graded by the model whose `calibration` and `classes` these are.

    Raises:
        UserError: There is no such file, it is damaged, of another model, or has no labelled film.
    """
    if path.is_dir():
        path = path / "predictions.jsonl"
    if not path.is_file():
        raise UserError(f"There are no predictions at {path}: name a predictions.jsonl of legradnet-predict.")
    films = [film for film in read_json_lines(path) if film.get("grade") is not None and film.get("label") is not None]
    if not films:
        raise UserError(f"{path} has no film that is graded and labelled.")
    if any(len(film["probabilities"]) != classes or not 0 <= film["label"] < classes for film in films):
        raise UserError(f"{path} is of another model: it has not {classes} grades.")
    kept = [films[row] for row in one_a_patient(patients_of(films)).tolist()]
    calibrated = np.array([film["probabilities"] for film in kept], np.float64)
    return reference_of(
        films=len(films),
        labels=[film["label"] for film in kept],
        probabilities=_raw(calibrated, calibration, path),
        referred=[film["referred"] for film in kept],
        distances=[film.get("distance") for film in kept],
        gate_weights=[film["gate_weights"] for film in kept],
        measures=[film.get("film", {}) for film in kept],
    )


def patients_of(films: list[Record]) -> Ints:
    """The number of each one's patient [N]: as its record says, else by the film, whose two knees are one patient's."""
    return patient_numbers([str(film.get("patient") or f"\0{film['filename']}") for film in films])


def _raw(calibrated: Floats, calibration: Calibration, path: Path) -> Floats:
    """What the network said, of what was made of it."""
    if calibration.mixing:
        raise UserError(f"{path} can't be taken for the films of a calibration that mixes grades.")
    probabilities = calibrated.clip(1e-7)
    if calibration.biases:
        probabilities = probabilities * np.exp(-np.asarray(calibration.biases))
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return tempered(probabilities, 1 / calibration.temperature, calibration.rule)
