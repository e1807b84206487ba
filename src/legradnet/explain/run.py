"""Explain any number of films: a picture and the maps of each, and a table of their grades."""

import logging
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from tqdm import tqdm

from legradnet.checkpoint import written_whole
from legradnet.config import EXPLAIN_RULES, check_config
from legradnet.data.images import ImageError
from legradnet.data.inputs import InputFilm, list_films
from legradnet.errors import UserError
from legradnet.evaluation.figures import picture
from legradnet.explain.film import FilmExplanation, explain_films
from legradnet.explain.methods import METHODS
from legradnet.explain.overlay import explanation_figure
from legradnet.grader import Grader, Request
from legradnet.predicting import PredictionsTable, record
from legradnet.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)


def explain(config: Mapping[str, Any], run_folder: str | Path) -> bool:
    """Explain `config["input"]` as `conf/explain.yaml` composes it, into `maps/` and `predictions.csv`.

    Returns:
        Whether every film was explained.

    Raises:
        UserError: A mistake in the config, the checkpoint or the list of films. A film that can't be read is none: it
            gets a row with its error.
    """
    check_config(config, EXPLAIN_RULES)
    if config["method"] not in METHODS:
        raise UserError(f"method={config['method']} is unknown; choose one of {', '.join(METHODS)}.")
    folder = RunFolder(Path(run_folder))
    folder.check_other_runs(folder.last, folder.best, folder.report, folder.predictions)
    dataset_path = config["data"]["dataset_path"]
    films = list_films(Path(config["input"]), Path(dataset_path) if dataset_path else None)
    grader = Grader.from_checkpoint(
        config["checkpoint"], device=config["device"], precision=config["precision"], batch_size=config["batch_size"]
    )
    folder.write_config(config)
    table = PredictionsTable(grader.classes, grader.weighed, any(film.label is not None for film in films))
    rows = []
    with tqdm(total=len(films), unit="film", disable=not sys.stderr.isatty()) as bar:
        for place, film, found in _explained(grader, films, config):
            if isinstance(found, ImageError):
                rows.append(record(film, found))
            else:
                rows.append(record(film, found.grading))
                _write(found, folder.path / "maps" / place, PurePosixPath(film.filename).name)
            bar.update()
    write_text(folder.predictions, table.header() + table.rows(rows))
    failed = sum(row["error"] is not None for row in rows)
    log.info("%d films explained, %d not readable (column error of predictions.csv)", len(rows) - failed, failed)
    print(folder.path / "maps")
    return failed == 0


def _explained(
    grader: Grader, films: Sequence[InputFilm], config: Mapping[str, Any]
) -> Iterator[tuple[Path, InputFilm, FilmExplanation | ImageError]]:
    """Each film in order, with the place of its files below `maps/`."""
    places = _places(films)
    for start in range(0, len(films), grader.batch_size):
        batch = films[start : start + grader.batch_size]
        prepared = [grader.prepare(Request(film.film, film.side or config["side"] or "")) for film in batch]
        good = [one for one in prepared if not isinstance(one, ImageError)]
        found = iter(explain_films(grader, good, method=config["method"], target=config["target"]) if good else [])
        for i, one in enumerate(prepared):
            yield places[start + i], batch[i], one if isinstance(one, ImageError) else next(found)


def _places(films: Sequence[InputFilm]) -> list[Path]:
    """Where each film's files go, without ending: its own name below the folder or CSV, whole where names repeat."""
    names = [PurePosixPath(film.filename) for film in films]
    if len(names) == 1:
        names = [PurePosixPath(names[0].name)]
    names = [PurePosixPath(*(part for part in name.parts if part not in ("/", ".."))) for name in names]
    times = Counter(name.with_suffix("") for name in names)
    return [Path(name if times[name.with_suffix("")] > 1 else name.with_suffix("")) for name in names]


def _write(explained: FilmExplanation, place: Path, name: str) -> None:
    native = {f"native_{key}": one for key, one in explained.native.items()}
    with written_whole(place.with_name(f"{place.name}.npz")) as file:
        arrays: dict[str, Any] = {**explained.maps, **native}
        np.savez_compressed(file, **arrays)
    with written_whole(place.with_name(f"{place.name}.png")) as file:
        file.write(picture(explanation_figure(explained, name), "png"))
