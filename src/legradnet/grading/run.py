"""Grade any number of films into `predictions.csv` and `predictions.jsonl`, written as it goes."""

import logging
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tqdm import tqdm

from legradnet.claims import claimed
from legradnet.data.inputs import InputFilm, list_films
from legradnet.errors import UserError
from legradnet.files import GrowingFile, write_text
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.loading import models_in_words
from legradnet.grading.predictions import (
    KNEE,
    PredictionsTable,
    Record,
    by_film,
    json_lines,
    read_json_lines,
    records,
)
from legradnet.grading.settings import PredictSettings
from legradnet.run_folder import RunFolder, as_references
from legradnet.settings import checked
from legradnet.tables import inert

log = logging.getLogger(__name__)

_MAY_CHANGE = {"resume", "num_workers"}  # from a run to its resumption


def predict(config: Mapping[str, Any] | PredictSettings, run_folder: str | Path) -> bool:
    """Grade the films of `input`.

    Args:
        config: `PredictSettings` or their plain values, as `conf/predict.yaml` composes them.
        run_folder: Where predictions are written.

    Returns:
        Whether every film could be read and graded; what is no knee to be graded has a reason, and is no failure.

    Raises:
        UserError: A mistake in the config, the checkpoint or the list of films; a folder that is another run's or can't
            be written. A film that can't be read is none: it gets a row with its error.
    """
    settings = checked(PredictSettings, config)
    with claimed(Path(run_folder)):
        return _predict(settings, RunFolder(Path(run_folder)))


def _predict(settings: PredictSettings, folder: RunFolder) -> bool:
    folder.check_other_runs(folder.last, folder.best, folder.report)
    dataset_path = settings.data.dataset_path
    films = list_films(Path(settings.input), Path(dataset_path) if dataset_path else None)
    done = _already_graded(settings, folder, films)
    grader = Grader.from_checkpoint(
        settings.checkpoint, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
    )
    if len(done) < len(films):  # whole batches, so that a resumed run shows the network what it would have seen
        done = done[: len(done) // grader.batch_size * grader.batch_size]
    before = [knee for film in done for knee in film]
    folder.write_config(settings.model_dump())
    labelled = any(film.label is not None for film in films)
    table = PredictionsTable(grader.classes, grader.weighed, labelled, whole=any(KNEE in knee for knee in before))
    # The lines are the journal and come first: after a kill the table is made again from them.
    write_text(folder.predictions_json, json_lines(before))
    write_text(folder.predictions, table.header() + table.rows(before))
    log.info("Grading by %s", models_in_words(grader.networks))
    if done:
        log.info("Going on after %d of %d films", len(done), len(films))

    for network in grader.networks:
        if network.calibration.coverage is None:
            log.warning("%s is not calibrated: no prediction sets, and no film is referred as unsure.", network.path)
        if network.film_check is None:
            log.warning("%s has no film check: no film is referred as unlike its training films.", network.path)
    counts = Counter(map(_outcome, before))
    rest = iter(films[len(done) :])
    requests = (Request(film.film, film.side or settings.side or "", film.knee) for film in films[len(done) :])
    with (
        tqdm(total=len(films), initial=len(done), unit="film", disable=not sys.stderr.isatty()) as bar,
        GrowingFile(folder.predictions_json) as lines_file,
        ExitStack() as table_files,
    ):
        table_file = table_files.enter_context(GrowingFile(folder.predictions))
        for batch in grader.stream_knees(requests, film=settings.film, workers=settings.num_workers):
            rows = [row for knees in batch for row in records(next(rest), knees)]
            lines_file.add(json_lines(rows))
            if not table.whole and any(KNEE in row for row in rows):  # the first whole film: the table gets its columns
                table_files.close()
                table = PredictionsTable(grader.classes, grader.weighed, labelled, whole=True)
                write_text(folder.predictions, table.header() + table.rows(read_json_lines(folder.predictions_json)))
                table_file = table_files.enter_context(GrowingFile(folder.predictions))
            else:
                table_file.add(table.rows(rows))
            counts.update(map(_outcome, rows))
            bar.update(len(batch))
    log.info("%d films: %d graded, of which %d are referred to a reader, and %d have an error (column error)",
             len(films), counts["graded"] + counts["referred"], counts["referred"], counts["error"])  # fmt: skip
    if counts["left"]:
        log.info("%d knees, or films without one, have no grade (column reason)", counts["left"])
    print(folder.predictions)
    return counts["error"] == 0


def _already_graded(settings: PredictSettings, folder: RunFolder, films: Sequence[InputFilm]) -> list[list[Record]]:
    """Records of each of the films that an earlier run in this folder has done, without what a kill cut off."""
    if not folder.predictions_json.is_file():
        folder.check_other_runs(folder.predictions)
        if settings.resume:
            raise UserError(f"resume=true: there are no predictions in {folder.path}. Repeat their own hydra.run.dir=.")
        return []
    if not settings.resume:
        raise UserError(f"{folder.path} already holds predictions: add resume=true to go on with them, or choose "
                        "another hydra.run.dir=.")  # fmt: skip
    began = {"film": "crop"} | (folder.read_config() if folder.config.is_file() else {})
    now = as_references(settings.model_dump(exclude=_MAY_CHANGE))
    if changed := [key for key in now if now[key] != began.get(key)]:
        changes = "\n".join(f"  {key}: was {began.get(key)}, now {now[key]}" for key in changed)
        raise UserError(f"Predictions are resumed with the settings they began with; these differ:\n{changes}")
    done = by_film(read_json_lines(folder.predictions_json))
    if [knees[0]["filename"] for knees in done] != [inert(film.filename) for film in films[: len(done)]]:
        raise UserError(f"The films of input={settings.input} have changed since {folder.predictions} was begun: "
                        "start again in another hydra.run.dir=.")  # fmt: skip
    return done


def _outcome(film: Record) -> str:
    if film["error"] is None and film["grade"] is None:
        return "left"
    return "error" if film["error"] is not None else "referred" if film["referred"] else "graded"
