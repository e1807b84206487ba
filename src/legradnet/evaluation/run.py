"""One evaluation: grade labelled films, measure, compare, and write metrics, predictions, figures and the report."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from legradnet.claims import claimed
from legradnet.data.film import ImageError
from legradnet.data.images import read_film
from legradnet.data.remarks import by_kind
from legradnet.errors import UserError
from legradnet.evaluation.card import model_card, with_facts
from legradnet.evaluation.card_page import CARD, NUMBERS, Evaluation, card_text
from legradnet.evaluation.compare import compare
from legradnet.evaluation.crossfit import crossfit
from legradnet.evaluation.drift_run import watch_drift
from legradnet.evaluation.facts import FACTS, Facts, facts_text, read_facts
from legradnet.evaluation.films import LabelledFilms, check_run, load_films, run_of, seen_in_training
from legradnet.evaluation.graded import Graded, predictions_text
from legradnet.evaluation.grading import grade_films, left_in_words
from legradnet.evaluation.numbers import (
    by_true_grade,
    group_names,
    measure,
    metric_intervals,
    mistakes,
    referred_for,
    subgroups,
    worst_mistakes,
)
from legradnet.evaluation.report import Mistake, Report, write_figures, write_report
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.evaluation.shortcut import blank_joint
from legradnet.files import write_text
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading
from legradnet.grading.loading import models_in_words
from legradnet.models.named import is_name, name_of
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
    if not settings.drift and (unused := [name for name in ("predictions", "reference") if getattr(settings, name)]):
        raise UserError(f"{unused[0]}= is for drift=true.")
    if settings.drift and (unused := [name for name in ("crossfit", "subgroups", "facts") if getattr(settings, name)]):
        raise UserError(f"{unused[0]}= measures grades, which drift=true does not: leave one of them out.")
    with claimed(Path(run_folder)):
        (watch_drift if settings.drift else _evaluate)(settings, RunFolder(Path(run_folder)))


def _evaluate(settings: EvaluateSettings, folder: RunFolder) -> None:
    entries = settings.checkpoint if isinstance(settings.checkpoint, list) else [settings.checkpoint]
    groups = [entry if isinstance(entry, list) else [entry] for entry in entries]
    folder.check_other_runs(folder.last, folder.best, folder.predictions_json, folder.report)
    facts = read_facts(settings.facts) if settings.facts else Facts()
    folder.write_config(settings.model_dump())
    films: LabelledFilms | None = None
    reports: list[Report] = []
    names = _names(groups)
    for i, (name, paths) in enumerate(zip(names, groups, strict=True)):
        grader = _loaded(settings, paths)
        films = films or _films(settings, grader)
        log.info("%s: grading %d films (split %s) by %s", name, len(films.table), films.split,
                 models_in_words(grader.networks))  # fmt: skip
        report = _measured(settings, grader, films, f"{name}, {films.split} films", facts)
        reports.append(report)
        _write(report, folder.path / str(i + 1) if len(groups) > 1 else folder.path, facts)
    if len(reports) > 1:
        _write_comparison(settings, folder, names, reports)
    print(folder.report)


def measure_checkpoint(settings: EvaluateSettings, facts: Facts) -> Evaluation:
    """What `evaluate` would write of one checkpoint, without writing it.

    Raises:
        UserError: As `evaluate`, or the settings name several checkpoints.
    """
    if isinstance(settings.checkpoint, list):
        raise UserError(f"checkpoint={settings.checkpoint} must be a single one.")
    grader = _loaded(settings, [settings.checkpoint])
    films = _films(settings, grader)
    log.info("Measuring it on %d films (split %s)", len(films.table), films.split)
    return _evaluation(_measured(settings, grader, films, "", facts), facts)


def _loaded(settings: EvaluateSettings, paths: list[str]) -> Grader:
    grader = Grader.from_checkpoint(
        paths, device=settings.device, precision=settings.precision, batch_size=settings.data.batch_size
    )
    for network in grader.networks:
        _ = network.settings  # an export's are checked here, before the work
        check_run(run_of(network.path))
    return grader


def _films(settings: EvaluateSettings, grader: Grader) -> LabelledFilms:
    path, size = grader.networks[0].path, grader.networks[0].image_size
    films = load_films(
        settings.data, path, split=settings.split, num_classes=grader.classes, image_size=size, film=settings.film
    )
    group_names(films.table, settings.subgroups)  # a wrong one is told before the work
    return films


def _measured(settings: EvaluateSettings, grader: Grader, films: LabelledFilms, title: str, facts: Facts) -> Report:
    workers = settings.data.num_workers
    films, graded, gradings, left = grade_films(grader, films, workers)
    warnings = [*films.warnings, *filter(None, [left_in_words(left)])]
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
    about = model_card(grader, films, graded, settings)
    numbers = {
        "split": films.split,
        "crossfit": settings.crossfit,
        "loss": _loss(grader, gradings, graded),
        **numbers,
        "by_true_grade": by_true_grade(graded, **drawn),
        "mistakes": mistakes(graded),
        "referred_for": referred_for(graded, [grading.look for grading in gradings]),
        "about": about,
        "digests": [network.digest for network in grader.networks],
    }
    masked = None
    if settings.joint_masked:
        masked = metric_intervals(grade_films(grader, films, workers, alter=blank_joint).graded, **drawn)
    return Report(
        title=title,
        numbers=numbers,
        graded=graded,
        left=left,
        subgroups=subgroups(graded, list(dict.fromkeys(["side", *settings.subgroups])), **drawn),
        joint_masked=masked,
        mistakes=[_mistake(films, graded, gradings[row], row) for row in worst_mistakes(graded)],
        remarks=by_kind(
            (name, filter(None, (grading.look, *grading.remarks)))
            for name, grading in zip(graded.names, gradings, strict=True)
        ),
        facts=with_facts(about, facts),
        own_answers=facts.checklist,
        warnings=warnings,
    )


def _training_warnings(grader: Grader, films: LabelledFilms) -> Iterator[str]:
    for network in grader.networks:
        run, name = run_of(network.path), _name(name_of(network.path))
        if run.path == films.own:  # its splits are known
            continue
        known: Sequence[str] = ()
        seen, undecoded = network.learned.seen, len(films.table)
        if seen:
            known = films.table["filename"].iloc[seen.among(films.fingerprints)].tolist()
            undecoded -= sum(map(bool, films.fingerprints))
        if known:
            yield (
                f"{len(known)} of these {len(films.table)} films trained {name}, which knows them by their pictures, "
                f"{known[0]} first: the numbers are too good."
            )
        elif os.access(run.split, os.R_OK):
            if shared := seen_in_training(films.table, run):
                yield (
                    f"{shared} of these films share a file name or a patient with training or validation films of "
                    f"{name}: if they are the same, the numbers are too good."
                )
        elif not seen:
            yield f"Whether these films trained {name} could not be checked: there is no split.csv of its run."
        elif undecoded:
            yield (
                f"Whether {undecoded} of these films trained {name} was not checked: it knows films by their "
                "pictures, for which data.verify=decode is needed."
            )
        else:
            log.info(
                "None of these %d films trained %s, which knows its films by their pictures", len(films.table), name
            )


def _loss(grader: Grader, gradings: Sequence[Grading], graded: Graded) -> float | None:
    """The training loss of a single network on these films; None where a film has no logits of its own."""
    logits = [film.logits for film in gradings if film.logits is not None]
    if len(logits) < len(gradings):
        return None
    settings = grader.networks[0].settings
    loss = settings.loss.build(grader.classes, settings.class_counts)
    return float(loss(torch.from_numpy(np.stack(logits)), torch.tensor(graded.labels)))


def _mistake(films: LabelledFilms, graded: Graded, grading: Grading, row: int) -> Mistake:
    film = films.requests[row].film
    assert not isinstance(film, (ImageError, str))
    gray = read_film(film).gray
    return Mistake(
        picture=grading.knee.box.cut(gray) if grading.knee and grading.knee.box else gray,
        filename=graded.names[row],
        label=int(graded.labels[row]),
        grade=int(graded.grades[row]),
        probabilities=graded.probabilities[row].tolist(),
        prediction_set="" if graded.sets is None else _set_text(*graded.sets[row].tolist()),
        reason=graded.reasons[row],
        referred=bool(graded.referred[row]),
    )


def _set_text(low: int, high: int) -> str:
    return " ".join(map(str, range(low, high + 1)))


def _evaluation(report: Report, facts: Facts) -> Evaluation:
    more = {"subgroups": report.subgroups, "joint_masked": report.joint_masked, "warnings": report.warnings}
    return Evaluation({**report.numbers, **more}, facts)


def _write(report: Report, path: Path, facts: Facts) -> None:
    folder, evaluation = RunFolder(path), _evaluation(report, facts)
    write_text(path / NUMBERS, json.dumps(evaluation.numbers, indent=2, allow_nan=False) + "\n", shared=True)
    if facts != Facts():
        write_text(path / FACTS, facts_text(facts), shared=True)
    write_text(path / CARD, card_text(evaluation), shared=True)
    write_text(folder.predictions, predictions_text(report.graded, report.left))
    write_figures(report, path / "figures")
    write_report(report, path / "report.html")


def _write_comparison(settings: EvaluateSettings, folder: RunFolder, names: list[str], reports: list[Report]) -> None:
    first = reports[0]
    drawn = settings.model_dump(include=_DRAWN)
    common = set[str].intersection(*(set(report.graded.names) for report in reports))
    graded = [report.graded.subset(np.isin(report.graded.names, list(common))) for report in reports]
    comparisons = [
        {"names": [names[0], name], "metrics": compare(graded[0], other, **drawn)}
        for name, other in zip(names[1:], graded[1:], strict=True)
    ]
    runs = {name: report.numbers["metrics"] for name, report in zip(names, reports, strict=True)}
    warnings = list(dict.fromkeys(warning for report in reports for warning in report.warnings))
    if any(len(report.graded) > len(common) for report in reports):
        warnings.append(f"Differences are measured on the {len(common)} knees that have a grade by all.")
    compared = {"runs": runs, "comparisons": comparisons, "warnings": warnings}
    text = json.dumps(compared, indent=2, allow_nan=False)
    write_text(folder.path / NUMBERS, text + "\n", shared=True)
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
