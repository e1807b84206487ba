"""One evaluation: grade labelled films, measure, compare, and write metrics, predictions, figures and the report."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from legradnet.claims import claimed
from legradnet.data.film import Gray, ImageError
from legradnet.data.images import read_film
from legradnet.data.remarks import by_kind
from legradnet.evaluation.card import model_card
from legradnet.evaluation.compare import compare
from legradnet.evaluation.films import LabelledFilms, check_run, load_films, run_of, seen_in_training
from legradnet.evaluation.graded import Graded, predictions_text
from legradnet.evaluation.numbers import group_names, measure, metric_intervals, subgroups, worst_mistakes
from legradnet.evaluation.report import Mistake, Report, write_figures, write_report
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.evaluation.shortcut import blank_joint
from legradnet.files import write_text
from legradnet.grading.calibration import Calibration, fit_calibration
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, readable
from legradnet.grading.loading import models_in_words
from legradnet.models.named import is_name
from legradnet.run_folder import RunFolder
from legradnet.settings import checked

log = logging.getLogger(__name__)

_DRAWN = {"resamples", "seed", "confidence_level", "threshold"}  # what numbers and intervals depend on


def evaluate(config: Mapping[str, Any] | EvaluateSettings, run_folder: str | Path) -> None:
    """Measure one checkpoint, or several side by side, as `conf/evaluate.yaml` composes it.

    Several get a numbered folder each; the page and `metrics.json` at the top compare them with the first. An entry of
    the list that is itself a list is graded by the mean of its checkpoints.

    Raises:
        UserError: A mistake in the config, the checkpoint or the films; a folder that is another run's or can't be
            written.
    """
    settings = checked(EvaluateSettings, config)
    with claimed(Path(run_folder)):
        _evaluate(settings, RunFolder(Path(run_folder)))


def _evaluate(settings: EvaluateSettings, folder: RunFolder) -> None:
    entries = settings.checkpoint if isinstance(settings.checkpoint, list) else [settings.checkpoint]
    groups = [entry if isinstance(entry, list) else [entry] for entry in entries]
    folder.check_other_runs(folder.last, folder.best, folder.predictions_json, folder.report)
    folder.write_config(settings.model_dump())
    films: LabelledFilms | None = None
    reports: list[Report] = []
    names = _names(groups)
    for i, (name, paths) in enumerate(zip(names, groups, strict=True)):
        grader = Grader.from_checkpoint(
            paths, device=settings.device, precision=settings.precision, batch_size=settings.data.batch_size
        )
        for network in grader.networks:
            _ = network.settings  # an export's are checked here, before the work
            check_run(run_of(network.path))
        if films is None:
            size = grader.networks[0].image_size
            films = load_films(
                settings.data,
                grader.networks[0].path,
                split=settings.split,
                num_classes=grader.classes,
                image_size=size,
            )
            group_names(films.table, settings.subgroups)  # a wrong one is told before the work
        log.info("%s: grading %d films (split %s) by %s", name, len(films.table), films.split,
                 models_in_words(grader.networks))  # fmt: skip
        report = _measured(settings, grader, films, f"{name}, {films.split} films")
        reports.append(report)
        _write(report, folder.path / str(i + 1) if len(groups) > 1 else folder.path)
    if len(reports) > 1:
        _write_comparison(settings, folder, names, reports)
    print(folder.report)


def _measured(settings: EvaluateSettings, grader: Grader, films: LabelledFilms, title: str) -> Report:
    graded, gradings = _grade(grader, films, settings.data.num_workers)
    warnings = list(films.warnings)
    warnings += _training_warnings(grader, films)
    if settings.crossfit:
        looks = [grading.look for grading in gradings]
        graded, notes = crossfit(graded, looks, grader.networks[0].calibration, settings.seed)
        reasons = [
            "; ".join(filter(None, [why, *grading.remarks]))
            for why, grading in zip(graded.reasons, gradings, strict=True)
        ]
        graded = replace(graded, reasons=reasons)
        warnings.append(
            "Calibration was fitted on one half of these films' patients and measured on the other, both in turn: "
            "the checkpoint's own calibration was not used, except with the joint blanked out."
        )
        warnings += [f"Crossfit: {note}." for note in notes]
    elif films.split == "val" and grader.networks[0].calibration.films:
        warnings.append("Calibration was fitted on validation films: its numbers flatter (crossfit=true mends that).")
    elif any(network.calibration.coverage is None for network in grader.networks):
        warnings.append("The checkpoint is not calibrated: there are no prediction sets, and no film is unsure.")
    drawn = settings.model_dump(include=_DRAWN)
    numbers = measure(graded, **drawn)
    numbers = {"split": films.split, "loss": _loss(grader, gradings, graded), **numbers}
    masked = None
    if settings.joint_masked:
        blank, _ = _grade(grader, films, settings.data.num_workers, alter=blank_joint)
        masked = metric_intervals(blank, **drawn)
    return Report(
        title=title,
        numbers=numbers,
        graded=graded,
        subgroups=subgroups(graded, list(dict.fromkeys(["side", *settings.subgroups])), **drawn),
        joint_masked=masked,
        mistakes=[_mistake(films, graded, row) for row in worst_mistakes(graded)],
        remarks=by_kind(
            (str(name), filter(None, (grading.look, *grading.remarks)))
            for name, grading in zip(films.table["filename"], gradings, strict=True)
        ),
        facts=model_card(grader, films, graded, settings),
        warnings=warnings,
    )


def _grade(
    grader: Grader, films: LabelledFilms, workers: int | None, alter: Callable[[Gray], Gray] | None = None
) -> tuple[Graded, list[Grading]]:
    """Grade all films: together, and one by one."""
    gradings: list[Grading] = []
    with tqdm(total=len(films.requests), unit="film", disable=not sys.stderr.isatty()) as bar:
        for batch in grader.stream(films.requests, workers=workers, alter=alter):
            gradings += readable(batch)
            bar.update(len(batch))
    sets = [(film.prediction_set[0], film.prediction_set[-1]) for film in gradings if film.prediction_set]
    gates = [[film.gate_weights[key] for key in grader.backbones] for film in gradings if film.gate_weights]
    return Graded(
        table=films.table,
        grades=np.array([film.grade for film in gradings]),
        probabilities=np.stack([film.probabilities for film in gradings]),
        raw=np.stack([film.raw for film in gradings]),
        sets=np.array(sets) if sets else None,
        referred=np.array([film.referred for film in gradings]),
        reasons=[film.reason for film in gradings],
        gate_weights=np.array(gates) if gates else None,
        backbones=grader.backbones,
    ), gradings


def crossfit(graded: Graded, looks: Sequence[str], like: Calibration, seed: int) -> tuple[Graded, list[str]]:
    """Calibrate each half of the patients by the other half, with the aims of `like`; `looks` [N] still refer films.

    Also gives what could not be fitted, and why.
    """
    aims = {name: value for name in ("coverage", "target_error") if (value := getattr(like, name)) is not None}
    patients = graded.patients
    drawn = np.random.default_rng(seed).permutation(patients.max() + 1)
    first = drawn[patients] % 2 == 0
    probabilities = graded.raw.astype(np.float64).copy()
    sets = np.zeros((len(graded), 2), np.int64)
    unsure = np.zeros(len(graded), bool)
    have_sets = True
    notes: list[str] = []
    for fitted, measured in ((first, ~first), (~first, first)):
        calibration = fit_calibration(graded.raw[fitted], graded.labels[fitted], like.rule, **aims)
        notes += calibration.notes
        probabilities[measured] = calibration.probabilities(graded.raw[measured])
        grades = graded.grades[measured]
        crossed_sets = calibration.sets(probabilities[measured], grades)
        have_sets &= crossed_sets is not None
        if crossed_sets is not None:
            sets[measured] = crossed_sets
        unsure[measured] = probabilities[measured][np.arange(len(grades)), grades] < calibration.min_confidence
    crossed = replace(
        graded,
        probabilities=probabilities,
        sets=sets if have_sets else None,
        referred=unsure | np.array([bool(look) for look in looks]),
        reasons=[
            "; ".join(filter(None, [look, "unsure" if doubted else ""]))
            for look, doubted in zip(looks, unsure, strict=True)
        ],
    )
    return crossed, list(dict.fromkeys(notes))


def _training_warnings(grader: Grader, films: LabelledFilms) -> Iterator[str]:
    for network in grader.networks:
        run = run_of(network.path)
        if run.path == films.own:  # its splits are known
            continue
        if not os.access(run.split, os.R_OK):
            yield f"Whether these films trained {network.path} could not be checked: there is no split.csv of its run."
        elif seen := seen_in_training(films.table, run):
            yield (
                f"{seen} of these films share a file name or a patient with training or validation films of "
                f"{network.path}: if they are the same, the numbers are too good."
            )


def _loss(grader: Grader, gradings: Sequence[Grading], graded: Graded) -> float | None:
    """The training loss of a single network on these films; None where a film has no logits of its own."""
    logits = [film.logits for film in gradings if film.logits is not None]
    if len(logits) < len(gradings):
        return None
    settings = grader.networks[0].settings
    loss = settings.loss.build(grader.classes, settings.class_counts)
    return float(loss(torch.from_numpy(np.stack(logits)), torch.tensor(graded.labels)))


def _mistake(films: LabelledFilms, graded: Graded, row: int) -> Mistake:
    film = films.requests[row].film
    assert not isinstance(film, (ImageError, str))
    return Mistake(
        picture=read_film(film).gray,
        filename=str(films.table["filename"].iat[row]),
        label=int(graded.labels[row]),
        grade=int(graded.grades[row]),
        probabilities=graded.probabilities[row].tolist(),
        prediction_set="" if graded.sets is None else _set_text(*graded.sets[row].tolist()),
        reason=graded.reasons[row],
        referred=bool(graded.referred[row]),
    )


def _set_text(low: int, high: int) -> str:
    return " ".join(map(str, range(low, high + 1)))


def _write(report: Report, path: Path) -> None:
    folder = RunFolder(path)
    more = {"subgroups": report.subgroups, "joint_masked": report.joint_masked, "warnings": report.warnings}
    metrics = json.dumps({**report.numbers, **more}, indent=2, allow_nan=False)
    write_text(path / "metrics.json", metrics + "\n", shared=True)
    write_text(folder.predictions, predictions_text(report.graded))
    write_figures(report, path / "figures")
    write_report(report, path / "report.html")


def _write_comparison(settings: EvaluateSettings, folder: RunFolder, names: list[str], reports: list[Report]) -> None:
    first = reports[0]
    drawn = settings.model_dump(include=_DRAWN)
    comparisons = [
        {"names": [names[0], name], "metrics": compare(first.graded, other.graded, **drawn)}
        for name, other in zip(names[1:], reports[1:], strict=True)
    ]
    runs = {name: report.numbers["metrics"] for name, report in zip(names, reports, strict=True)}
    warnings = list(dict.fromkeys(warning for report in reports for warning in report.warnings))
    compared = {"runs": runs, "comparisons": comparisons, "warnings": warnings}
    text = json.dumps(compared, indent=2, allow_nan=False)
    write_text(folder.path / "metrics.json", text + "\n", shared=True)
    write_report(
        replace(first, title=" against ".join([first.title, *names[1:]]), comparisons=comparisons, warnings=warnings),
        folder.report,
    )


def _names(groups: Sequence[Sequence[str]]) -> list[str]:
    """What to call each run: its folder's name, numbered where two have the same."""
    names = [_name(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "") for paths in groups]
    return [f"{name} ({i + 1})" if names.count(name) > 1 else name for i, name in enumerate(names)]


def _name(checkpoint: str) -> str:
    if is_name(checkpoint):
        return checkpoint
    run = run_of(checkpoint)
    return run.path.name if run.config.is_file() else Path(checkpoint).stem
