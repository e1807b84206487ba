"""Grade any number of films into `predictions.csv` and `predictions.jsonl`, written as it goes."""

import csv
import io
import json
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from legradnet.config import PREDICT_RULES, check_config
from legradnet.data.images import ImageError
from legradnet.data.inputs import InputFilm, list_films
from legradnet.errors import UserError
from legradnet.grader import Grader, Grading, Request
from legradnet.run_folder import RunFolder, write_text

log = logging.getLogger(__name__)

_DIGITS = 6
_MAY_CHANGE = {"resume", "num_workers"}  # from a run to its resumption
Record = dict[str, Any]


def predict(config: Mapping[str, Any], run_folder: str | Path) -> bool:
    """Grade `config["input"]` as `conf/predict.yaml` composes it.

    Returns:
        Whether every film was graded.

    Raises:
        UserError: A mistake in the config, the checkpoint or the list of films. A film that can't be read is none: it
            gets a row with its error.
    """
    check_config(config, PREDICT_RULES)
    folder = RunFolder(Path(run_folder))
    folder.check_other_runs(folder.last, folder.best, folder.report)
    dataset_path = config["data"]["dataset_path"]
    films = list_films(Path(config["input"]), Path(dataset_path) if dataset_path else None)
    done = _already_graded(config, folder, films)
    grader = Grader.from_checkpoint(
        config["checkpoint"], device=config["device"], precision=config["precision"], batch_size=config["batch_size"]
    )
    if len(done) < len(films):  # whole batches, so that a resumed run shows the network what it would have seen
        done = done[: len(done) // grader.batch_size * grader.batch_size]
    folder.write_config(config)
    labelled = any(film.label is not None for film in films)
    table = PredictionsTable(grader.classes, grader.weighed, labelled)
    # The lines are the journal and come first: after a kill the table is made again from them.
    write_text(folder.predictions_json, _lines(done))
    write_text(folder.predictions, table.header() + table.rows(done))
    if done:
        log.info("Going on after %d of %d films", len(done), len(films))

    for network in grader.networks:
        if network.calibration.coverage is None:
            log.warning("%s is not calibrated: no prediction sets, and no film is referred as unsure.", network.path)
        if network.film_check is None:
            log.warning("%s has no film check: no film is referred for its look.", network.path)
    counts = Counter(map(_outcome, done))
    rest = iter(films[len(done) :])
    requests = (Request(film.film, film.side or config["side"] or "") for film in films[len(done) :])
    with (
        tqdm(total=len(films), initial=len(done), unit="film", disable=not sys.stderr.isatty()) as bar,
        folder.predictions_json.open("a", encoding="utf-8") as lines_file,
        folder.predictions.open("a", encoding="utf-8", newline="") as table_file,
    ):
        for batch in grader.stream(requests, workers=config["num_workers"]):
            records = [record(next(rest), grading) for grading in batch]
            for file, text in ((lines_file, _lines(records)), (table_file, table.rows(records))):
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            counts.update(map(_outcome, records))
            bar.update(len(records))
    log.info("%d films: %d graded, of which %d are referred to a reader, and %d not readable (column error)",
             len(films), counts["graded"] + counts["referred"], counts["referred"], counts["error"])  # fmt: skip
    print(folder.predictions)
    return counts["error"] == 0


def record(film: InputFilm, grading: Grading | ImageError) -> Record:
    """One film's line of `predictions.jsonl`."""
    name = inert(film.filename)
    if isinstance(grading, ImageError):
        place = f"{film.film}: " if isinstance(film.film, Path) else ""
        return {"filename": name, "label": film.label, "error": inert(str(grading).removeprefix(place))}
    return {
        "filename": name,
        "label": film.label,
        "grade": grading.grade,
        "probabilities": [round(float(p), _DIGITS) for p in grading.probabilities],
        "expected_grade": round(grading.expected_grade, _DIGITS),
        "prediction_set": list(grading.prediction_set),
        "referred": grading.referred,
        "reason": grading.reason,
        "gate_weights": {key: round(weight, _DIGITS) for key, weight in grading.gate_weights.items()},
        "error": None,
    }


class PredictionsTable:
    """The columns of `predictions.csv`, and its rows as text.

    Args:
        classes: K, for `p0..p{K-1}`.
        backbones: For `gate_<key>`.
        labelled: Whether there is a column `label`.
        others: Columns after it.
    """

    def __init__(self, classes: int, backbones: Sequence[str], labelled: bool, others: Sequence[str] = ()) -> None:
        self.backbones = backbones
        self.classes = classes
        self.known = [*(["label"] if labelled else []), *others]

    def header(self) -> str:
        """The first line."""
        grades = ["grade", *(f"p{k}" for k in range(self.classes)), "expected_grade", "prediction_set"]
        gates = [f"gate_{key}" for key in self.backbones]
        return _csv_line(["filename", *self.known, *grades, "referred", "reason", *gates, "error"])

    def rows(self, records: Iterable[Record]) -> str:
        """A line for each record."""
        return "".join(_csv_line(self._cells(each)) for each in records)

    def _cells(self, each: Record) -> list[Any]:
        known = [each[name] for name in self.known]
        if each["error"] is not None:
            empty = [None] * (self.classes + len(self.backbones) + 5)
            return [each["filename"], *known, *empty, each["error"]]
        gates = [each["gate_weights"].get(key) for key in self.backbones]
        return [
            each["filename"],
            *known,
            each["grade"],
            *each["probabilities"],
            each["expected_grade"],
            " ".join(map(str, each["prediction_set"])),
            str(each["referred"]).lower(),
            each["reason"],
            *gates,
            None,
        ]


def inert(text: str) -> str:
    """A user's text so that no table program runs it as a formula, and every program can read it.

    A name that begins like a formula gets "./" in front, which as a path means the same.
    """
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "backslashreplace").decode()
    return f"./{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def _already_graded(config: Mapping[str, Any], folder: RunFolder, films: Sequence[InputFilm]) -> list[Record]:
    """Records of the films that an earlier run in this folder has done; the line that a kill cut off is dropped."""
    if not folder.predictions_json.is_file():
        folder.check_other_runs(folder.predictions)
        if config["resume"]:
            raise UserError(f"resume=true: there are no predictions in {folder.path}. Repeat their own hydra.run.dir=.")
        return []
    if not config["resume"]:
        raise UserError(f"{folder.path} already holds predictions: add resume=true to go on with them, or choose "
                        "another hydra.run.dir=.")  # fmt: skip
    before = folder.read_config() if folder.config.is_file() else {}
    changed = [key for key in config if key not in _MAY_CHANGE and config[key] != before.get(key)]
    if changed:
        changes = "\n".join(f"  {key}: was {before.get(key)}, now {config[key]}" for key in changed)
        raise UserError(f"Predictions are resumed with the settings they began with; these differ:\n{changes}")
    whole = folder.predictions_json.read_bytes().rpartition(b"\n")[0].decode()
    done: list[Record] = [json.loads(line) for line in whole.split("\n") if line]
    if [each["filename"] for each in done] != [inert(film.filename) for film in films[: len(done)]]:
        raise UserError(f"The films of input={config['input']} have changed since {folder.predictions} was begun: "
                        "start again in another hydra.run.dir=.")  # fmt: skip
    return done


def _outcome(each: Record) -> str:
    return "error" if each["error"] is not None else "referred" if each["referred"] else "graded"


def _lines(records: Iterable[Record]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in records)


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()
