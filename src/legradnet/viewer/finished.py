"""The films of a reading: a predict run that is finished, what `input` lists, and what was graded or dropped before."""

import json
import re
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from legradnet.data.inputs import InputFilm, list_films
from legradnet.data.sides import SIDE_WORDS, Side, side_from_name
from legradnet.errors import UserError
from legradnet.files import write_text
from legradnet.grading.journal import by_film, json_lines, read_json_lines
from legradnet.grading.predictions import Record
from legradnet.grading.settings import PredictSettings
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.statistics.bootstrap import patient_numbers
from legradnet.tables import inert
from legradnet.viewer.settings import ViewSettings
from legradnet.viewer.uploads import KEPT
from legradnet.viewer.worklist import STAMP, Row, new_row, stamp_of


@dataclass
class Given:
    """What a reading begins with.

    Attributes:
        films: The films, as listed.
        records: What is known of some, by their name in `predictions.jsonl`: for each time that a film is listed its
            records, of a whole film one a knee.
        checkpoint: What they were graded by; None where that isn't known.
        side: Of films without a side of their own.
    """

    films: list[InputFilm] = field(default_factory=list)
    records: dict[str, list[list[Record]]] = field(default_factory=dict)
    checkpoint: str | list[str] | None = None
    side: Side = ""


def given_films(settings: ViewSettings) -> Given:
    """What `input` names; raises UserError where there is nothing."""
    own_side: Side = settings.side or ""
    if settings.input is None:
        return Given(side=own_side)
    source = Path(settings.input)
    dataset_path = None if settings.data.dataset_path is None else Path(settings.data.dataset_path)
    run = RunFolder(source)
    if not source.is_dir() or not run.predictions_json.is_file():
        return Given(list_films(source, dataset_path), side=own_side)
    if not run.config.is_file():
        raise UserError(f"input={source} has predictions.jsonl and no {run.config.relative_to(source)}: it is no whole "
                        "folder of a predict run.")  # fmt: skip
    predicted = checked(PredictSettings, _resolved(run), title=f"{run.config} is of no predict run of this version:")
    dataset_path = dataset_path or (Path(predicted.data.dataset_path) if predicted.data.dataset_path else None)
    try:
        films = list_films(Path(predicted.input or ""), dataset_path)
    except UserError as error:
        raise UserError(f"input={source} is a predict run of films that are not found: {error} Paths in it that are "
                        "relative lead from the folder in which predict was run.") from None  # fmt: skip
    return Given(films, by_name(run.predictions_json), predicted.checkpoint, own_side or predicted.side or "")


def _resolved(run: RunFolder) -> Any:
    config = OmegaConf.create({"read": json.loads(json.dumps(run.read_config()))})
    try:
        return OmegaConf.to_container(config, resolve=True)["read"]  # type: ignore[index,call-overload]
    except OmegaConfBaseException as error:
        raise UserError(f"{run.config}: {str(error).splitlines()[0]}") from None


def by_name(path: Path) -> dict[str, list[list[Record]]]:
    """The records of a `predictions.jsonl`, those of one film together."""
    found: dict[str, list[list[Record]]] = {}
    for of_film in by_film(read_json_lines(path)):
        found.setdefault(of_film[0]["filename"], []).append(of_film)
    return found


def rows_of(given: Given, settings: ViewSettings) -> Iterator[Row]:
    """A row for each knee."""
    pattern = None if settings.data.patient_regex is None else re.compile(settings.data.patient_regex)
    named = [_patient(film, pattern) for film in given.films]
    numbers = patient_numbers([patient for patient, _ in named]).tolist()  # one each where none is told
    waiting = {name: deque(films) for name, films in given.records.items()}
    for film, (patient, side), number in zip(given.films, named, numbers, strict=True):
        records = _still_of(film, waiting.get(inert(film.filename)))
        for record in records:
            yield new_row(
                film,
                film.side or given.side or side or side_from_name(Path(film.filename).name),
                patient=number if patient or len(records) > 1 else None,
                is_patient_told=bool(patient),
                record=record,
            )


def _still_of(film: InputFilm, known: deque[list[Record]] | None) -> Sequence[Record | None]:
    """The first records that are of the film as it is now; [None] where none are, as when its file was replaced."""
    now = stamp_of(film.film) if isinstance(film.film, Path) else None
    while known:
        records = known.popleft()
        of = records[0].get(STAMP)
        if of is None or now is None or tuple(of) == now:
            return records
    return [None]


def _patient(film: InputFilm, pattern: re.Pattern[str] | None) -> tuple[str, Side]:
    found = pattern.search(Path(film.filename).name) if pattern and not film.patient else None
    if not found:
        return film.patient, ""
    named = found.groupdict()
    return named["patient"] or "", SIDE_WORDS.get((named.get("side") or "").lower(), "")


class OwnGrades:
    """Grades of this reading's films in `output`, so that nothing is graded twice when it is gone on with.

    Args:
        output: The user's folder.
        settings: Of which those that grades depend on must be the same.

    Raises:
        UserError: They are not, or the folder is another command's.
    """

    def __init__(self, output: Path, settings: ViewSettings) -> None:
        folder = RunFolder(output)
        folder.check_other_runs(folder.last, folder.best, folder.report, folder.predictions)
        self.path = folder.predictions_json
        now = settings.model_dump()
        if folder.config.is_file():
            before = {"film": "crop", "study": None, "seed": 0} | folder.read_config()
            keys = ["checkpoint", "precision", "side", "film", "study"]  # what was seen openly is not blind afterwards
            keys += ["seed"] if settings.study else []
            if changed := [key for key in keys if before.get(key) != now[key]]:
                words = "\n".join(f"  {key}: was {before.get(key)}, now {now[key]}" for key in changed)
                raise UserError(f"A reading is gone on with by the settings that it began with; these differ:\n{words}")
        folder.write_config(now)
        self.records = by_name(self.path) if self.path.is_file() else {}
        films = (film for of_name in self.records.values() for film in of_name)
        write_text(self.path, "".join(json_lines(film) for film in films))
        self.dropped = [
            InputFilm(film.filename, film.film)
            for film in (list_films(output / KEPT) if any((output / KEPT).glob("[!.]*")) else [])
        ]
