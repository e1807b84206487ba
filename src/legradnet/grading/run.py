"""Grade any number of films into `predictions.csv` and `predictions.jsonl`, written as it goes."""

import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from legradnet.claims import claimed, is_restarted
from legradnet.data.inputs import FilmList, name_films
from legradnet.errors import UserError
from legradnet.files import GrowingFile, written_whole
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.journal import by_film, json_lines, read_json_lines
from legradnet.grading.loading import models_in_words
from legradnet.grading.outlet import Outlets
from legradnet.grading.parquet import check_parquet
from legradnet.grading.predictions import KNEE, PredictionsTable, Record, records
from legradnet.grading.settings import PredictSettings
from legradnet.grading.shards import Mark, Shard, finish, merge, read_mark, shard_of
from legradnet.run_folder import RunFolder, as_references
from legradnet.settings import checked
from legradnet.tables import inert

log = logging.getLogger(__name__)

_MAY_CHANGE = {"resume", "num_workers", "shard"}  # from a run to its resumption


def predict(
    config: Mapping[str, Any] | PredictSettings, run_folder: str | Path, outlets: Outlets | None = None
) -> bool:
    """Grade the films of `input`, or those of one shard, or put the shards of `merge` together.

    Args:
        config: `PredictSettings` or their plain values, as `conf/predict.yaml` composes them.
        run_folder: Where predictions are written; of a shard its own folder, `Shard.folder`.
        outlets: Opens what `dicom` and `format` ask for: `legradnet.hospital.outlets.open_outlets`.

    Returns:
        Whether every film could be read and graded; what is no knee to be graded has a reason, and is no failure.

    Raises:
        UserError: A mistake in the config, the checkpoint or the list of films; a folder that is another run's or can't
            be written. A film that can't be read is none: it gets a row with its error.
    """
    settings = checked(PredictSettings, config)
    if settings.input is None and settings.merge is None:
        raise UserError("input= is needed: a film, a folder or a table of films; or merge=, a folder of shards.")
    if settings.input is not None and settings.merge is not None:
        raise UserError("Either input= is graded, or the shards of merge= are put together: leave one of them out.")
    asks_for_more = settings.dicom is not None or settings.format != "csv"
    if asks_for_more and settings.merge is not None:
        raise UserError("dicom= and format= are of each shard, when its films are graded, not of merge=.")
    if asks_for_more and outlets is None:
        raise UserError("dicom= and format= need predict(..., outlets=legradnet.hospital.outlets.open_outlets).")
    with claimed(Path(run_folder)):
        folder = RunFolder(Path(run_folder))
        if settings.merge is not None:
            return _merge(Path(settings.merge), folder)
        return _predict(settings, Path(settings.input or ""), folder, outlets if asks_for_more else None)


def _merge(parts: Path, folder: RunFolder) -> bool:
    folder.check_other_runs(folder.last, folder.best, folder.report, folder.predictions_json, folder.predictions)
    check_parquet()
    films, errors = merge(parts, folder)
    log.info("%d films of the shards in %s, of which %d have an error (column error)", films, parts, errors)
    print(folder.predictions)
    return errors == 0


def _predict(settings: PredictSettings, source: Path, folder: RunFolder, outlets: Outlets | None) -> bool:
    folder.check_other_runs(folder.last, folder.best, folder.report)
    if shard := shard_of(settings.shard, os.environ):
        check_parquet()
        if mark := read_mark(folder.path):
            log.info("Shard %s is finished", shard)
            print(folder.predictions)
            return mark.errors == 0
    dataset_path = settings.data.dataset_path
    named = name_films(source, Path(dataset_path) if dataset_path else None)
    _check_began(settings, folder, is_shard=shard is not None)
    grader = Grader.from_checkpoint(
        settings.checkpoint, device=settings.device, precision=settings.precision, batch_size=settings.batch_size
    )
    positions = shard.part(len(named), grader.batch_size) if shard else range(len(named))
    done = _already_graded(folder, named, positions)
    if done < len(positions):  # whole batches, so that a resumed run shows the network what it would have seen
        done = done // grader.batch_size * grader.batch_size
    films = named.part(positions[done:])
    open_outlets = outlets(settings, folder, grader, [named.names[i] for i in positions]) if outlets else ()
    folder.write_config(settings.model_dump())
    counts: Counter[str] = Counter()
    labelled, whole = any(film.label is not None for film in films), False
    # The lines are the journal and come first: after a kill the table is made again from them.
    with written_whole(folder.predictions_json) as journal:
        for knees in islice(_graded(folder), done):
            journal.write(json_lines(knees).encode())
            counts.update(map(_outcome, knees))
            labelled = labelled or any(knee["label"] is not None for knee in knees)
            whole = whole or any(KNEE in knee for knee in knees)
    table = PredictionsTable(grader.classes, grader.weighed, labelled, whole=whole)
    table.write(folder.predictions, read_json_lines(folder.predictions_json))
    log.info("Grading by %s", models_in_words(grader.networks))
    if shard:
        log.info("Shard %s: %d of %d films", shard, len(positions), len(named))
    if done:
        log.info("Going on after %d of %d films", done, len(positions))

    for network in grader.networks:
        if network.calibration.coverage is None:
            log.warning("%s is not calibrated: no prediction sets, and no film is referred as unsure.", network.path)
        if network.film_check is None:
            log.warning("%s has no film check: no film is referred as unlike its training films.", network.path)
    rest = iter(films)
    requests = (Request(film.film, film.side or settings.side or "", film.knee) for film in films)
    with (
        tqdm(total=len(positions), initial=done, unit="film", disable=not sys.stderr.isatty()) as bar,
        GrowingFile(folder.predictions_json) as lines_file,
        ExitStack() as table_files,
    ):
        table_file = table_files.enter_context(GrowingFile(folder.predictions))
        for batch in grader.stream_knees(requests, film=settings.film, workers=settings.num_workers):
            rows = []
            for film, gradings in zip(islice(rest, len(batch)), batch, strict=True):
                rows += (of_film := records(film, gradings))
                for outlet in open_outlets:
                    outlet.take(film, gradings, of_film)
            lines_file.add(json_lines(rows))
            if not table.whole and any(KNEE in row for row in rows):  # the first whole film: the table gets its columns
                table_files.close()
                table = PredictionsTable(grader.classes, grader.weighed, labelled, whole=True)
                table.write(folder.predictions, read_json_lines(folder.predictions_json))
                table_file = table_files.enter_context(GrowingFile(folder.predictions))
            else:
                table_file.add(table.rows(rows))
            counts.update(map(_outcome, rows))
            bar.update(len(batch))
    for outlet in open_outlets:
        outlet.end()
    if shard:
        finish(folder, _mark(settings, shard, grader, named, len(positions), counts["error"], table, labelled))
    log.info("%d films: %d graded, of which %d are referred to a reader, and %d have an error (column error)",
             len(positions), counts["graded"] + counts["referred"], counts["referred"], counts["error"])  # fmt: skip
    if counts["left"]:
        log.info("%d knees, or films without one, have no grade (column reason)", counts["left"])
    print(folder.predictions)
    return counts["error"] == 0


def _check_began(settings: PredictSettings, folder: RunFolder, *, is_shard: bool) -> None:
    """Raise UserError where predictions in this folder can't be gone on with; a shard's are, without being asked."""
    if not folder.predictions_json.is_file():
        folder.check_other_runs(folder.predictions)
        if settings.resume and not is_shard:
            raise UserError(f"resume=true: there are no predictions in {folder.path}. Repeat their own hydra.run.dir=.")
        return
    if not settings.resume and not is_shard and not is_restarted():
        raise UserError(f"{folder.path} already holds predictions: add resume=true to go on with them, or choose "
                        "another hydra.run.dir=.")  # fmt: skip
    began = {"film": "crop", "merge": None, "pdf": False, "format": "csv"} | (
        folder.read_config() if folder.config.is_file() else {}
    )
    now = as_references(settings.model_dump(exclude=_MAY_CHANGE))
    if changed := [key for key in now if now[key] != began.get(key)]:
        changes = "\n".join(f"  {key}: was {began.get(key)}, now {now[key]}" for key in changed)
        raise UserError(f"Predictions are resumed with the settings they began with; these differ:\n{changes}")


def _already_graded(folder: RunFolder, named: FilmList, positions: range) -> int:
    """How many of the films an earlier run in this folder has done, without what a kill cut off."""
    done = 0
    for done, knees in enumerate(_graded(folder), start=1):
        if done > len(positions) or knees[0]["filename"] != inert(named.names[positions[done - 1]]):
            raise UserError(f"The films of the input have changed since {folder.predictions} was begun: "
                            "start again in another hydra.run.dir=.")  # fmt: skip
    return done


def _graded(folder: RunFolder) -> Iterator[list[Record]]:
    """What an earlier run in this folder has written of each film."""
    if folder.predictions_json.is_file():
        yield from by_film(read_json_lines(folder.predictions_json))


def _mark(
    settings: PredictSettings,
    shard: Shard,
    grader: Grader,
    named: FilmList,
    films: int,
    errors: int,
    table: PredictionsTable,
    labelled: bool,
) -> Mark:
    return Mark(
        number=shard.number,
        count=shard.count,
        films=films,
        errors=errors,
        films_of_all=len(named),
        names=named.digest(),
        models=[network.digest for network in grader.networks],
        settings={
            **settings.model_dump(include={"film", "side"}),
            "batch_size": grader.batch_size,
            "precision": [network.precision for network in grader.networks],
        },
        classes=grader.classes,
        gates=[*grader.weighed],
        labelled=labelled,
        whole=table.whole,
    )


def _outcome(film: Record) -> str:
    if film["error"] is None and film["grade"] is None:
        return "left"
    return "error" if film["error"] is not None else "referred" if film["referred"] else "graded"
