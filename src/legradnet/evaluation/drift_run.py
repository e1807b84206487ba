"""`legradnet-evaluate drift=true`: films without labels held beside those that a model was calibrated on."""

import json
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
from tqdm import tqdm

from legradnet.data.inputs import InputFilm, list_films
from legradnet.data.sides import Side
from legradnet.data.sources import with_patients
from legradnet.errors import UserError
from legradnet.evaluation.drift import (
    Sample,
    compare_samples,
    sample_of,
    sample_of_reference,
    sentence,
    to_plain,
)
from legradnet.evaluation.drift_figure import drift_figure
from legradnet.evaluation.films import load_films
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.figures import picture
from legradnet.files import write_text, written_whole
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.journal import read_json_lines
from legradnet.grading.loading import load_network, models_in_words
from legradnet.grading.networks import GradingNetwork
from legradnet.grading.predictions import Record, records
from legradnet.grading.reference import ReferenceFilms
from legradnet.grading.reference_file import read_reference
from legradnet.models.named import name_of
from legradnet.run_folder import RunFolder

log = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
DRIFT, FIGURE = "drift.json", "drift.png"
_ROUNDED = 0.01  # by which probabilities may miss 1


def watch_drift(settings: EvaluateSettings, folder: RunFolder) -> None:
    """Compare films, or what was said of films before, with the model's reference; write numbers and one figure.

    Raises:
        UserError: Several checkpoints, one without reference films, no film that was graded, or predictions of another
            model.
    """
    if isinstance(settings.checkpoint, list):
        raise UserError(f"drift=true watches one model: checkpoint={settings.checkpoint} must be a single one.")
    folder.check_other_runs(folder.last, folder.best, folder.predictions_json, folder.report)
    network = load_network(settings.checkpoint, settings.device, settings.precision, None)
    name = Path(name_of(network.path)).name
    reference, right = sample_of_reference(_reference(settings, network, name), network.calibration)
    folder.write_config(settings.model_dump())
    samples = [*_samples(settings, network)]
    drifts = compare_samples(samples, reference, right, false_alarms=settings.false_alarms)
    for missing in sorted({key for sample in samples for key in set(reference.numbers) - set(sample.numbers)}):
        log.warning(
            "%s was not compared: not all of these films have it. Predictions of older releases have none.", missing
        )
    for missing in sorted({key for sample in samples for key in set(sample.numbers) - set(reference.numbers)}):
        log.warning("%s was not compared: the reference has none.", missing)
    told = [sentence(drift, name, settings.false_alarms, len(drifts)) for drift in drifts]
    said = {
        "model": network.digest,
        "false_alarms": settings.false_alarms,
        "reference": {"films": reference.films, "patients": len(reference.confidence)},
        "sentences": told,
        "samples": [to_plain(drift) for drift in drifts],
    }
    write_text(folder.path / DRIFT, json.dumps(said, indent=2, allow_nan=False) + "\n", shared=True)
    alarms = sum(bool(drift.alarms) for drift in drifts)
    title = f"{name}: {alarms or 'no'} alarm{'' if alarms == 1 else 's'} in {len(drifts)} samples"
    if len(drifts) == 1:
        title = f"{drifts[0].name}: {', '.join(one.name for one in drifts[0].alarms) or 'no alarm'}"
    with written_whole(folder.path / FIGURE, shared=True) as file:
        file.write(picture(drift_figure(drifts, title), "png"))
    for line in told[:-1]:
        log.info("%s", line)
    print(told[-1])
    log.info("%s", folder.path / FIGURE)


def _reference(settings: EvaluateSettings, network: GradingNetwork, name: str) -> ReferenceFilms:
    if settings.reference:
        return read_reference(Path(settings.reference), network.calibration, network.classes)
    if network.learned.reference is None:
        raise UserError(
            f"{name} has kept none of the films that it was calibrated on (an older release trained it, or it was not "
            "calibrated): name "
            f"predictions of such films, reference=FOLDER/{PREDICTIONS} of legradnet-predict on its labelled "
            "validation films, or calibrate it on labelled films of this site by legradnet-calibrate."
        )
    return network.learned.reference


def _samples(settings: EvaluateSettings, network: GradingNetwork) -> Iterator[Sample]:
    if settings.predictions is None:
        grader = Grader([network], batch_size=settings.data.batch_size)
        films = _films(settings, network)
        log.info("%d films, graded by %s", len(films), models_in_words(grader.networks))
        yield _sample("these films", [*_graded(grader, films, settings)], network, "the films")
        return
    if not settings.predictions:
        raise UserError("predictions=[] names none: name a predictions.jsonl of legradnet-predict, or several.")
    paths = [settings.predictions] if isinstance(settings.predictions, str) else settings.predictions
    for text in paths:
        path = Path(text) / PREDICTIONS if Path(text).is_dir() else Path(text)
        if not path.is_file():
            raise UserError(
                f"There are no predictions at {path}: name a {PREDICTIONS} of legradnet-predict, or its folder."
            )
        found = _with_patients([*read_json_lines(path)], settings.data.patient_regex)
        called = path.parent.resolve().name if path.name == PREDICTIONS else path.stem
        yield _sample(called, found, network, str(path))


def _sample(name: str, found: Sequence[Record], network: GradingNetwork, where: str) -> Sample:
    for film in [film for film in found if film.get("grade") is not None]:
        probabilities = film["probabilities"]
        if len(probabilities) != network.classes or not film["gate_weights"].keys() <= set(network.backbones):
            raise UserError(f"{where} is of another model: it has other grades or other backbones.")
        if not 0 <= film["grade"] < network.classes or min(probabilities) < 0 or abs(sum(probabilities) - 1) > _ROUNDED:
            raise UserError(f"{where} is damaged: what it says of {film['filename']} is no grade with probabilities.")
    sample = sample_of(name, found)
    if sample is None:
        raise UserError(f"None of {where} was graded, so that there is nothing to compare.")
    return sample


def _films(settings: EvaluateSettings, network: GradingNetwork) -> list[InputFilm]:
    """The films to grade; a CSV's or a folder's need no labels, unless a split of them is asked for."""
    data = settings.data
    if data.source in ("own", "synthetic") or settings.split:
        labelled = load_films(
            data, network.path, split=settings.split, num_classes=network.classes, image_size=network.image_size
        )
        rows = zip(labelled.requests, labelled.table.to_dict("records"), strict=True)
        return [
            InputFilm(row["filename"], cast(Path, request.film), None, cast(Side, row["side"]), str(row["patient"]))
            for request, row in rows
        ]
    place = data.csv_path if data.source == "csv" else data.dataset_path
    films = list_films(Path(str(place)), Path(str(data.dataset_path)))
    if data.patient_regex is None:
        return films
    table = pd.DataFrame({"filename": [film.filename for film in films]}, dtype=str)
    named = with_patients(table, data.patient_regex)["patient"].tolist()
    return [replace(film, patient=film.patient or name) for film, name in zip(films, named, strict=True)]


def _with_patients(found: list[Record], regex: str | None) -> list[Record]:
    if regex is None:
        return found
    table = pd.DataFrame({"filename": [film["filename"] for film in found]}, dtype=str)
    named = with_patients(table, regex)["patient"].tolist()
    return [{**film, "patient": film.get("patient") or name} for film, name in zip(found, named, strict=True)]


def _graded(grader: Grader, films: Sequence[InputFilm], settings: EvaluateSettings) -> Iterator[Record]:
    rest = iter(films)
    requests = (Request(film.film, film.side, film.knee) for film in films)
    with tqdm(total=len(films), unit="film", disable=not sys.stderr.isatty()) as bar:
        for batch in grader.stream_knees(requests, film=settings.film, workers=settings.data.num_workers):
            for knees in batch:
                yield from records(next(rest), knees)
            bar.update(len(batch))
