"""Shards: one of N machines grades its part of a long list, and one command puts the parts together."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field, ValidationError

from legradnet.errors import UserError
from legradnet.files import write_text, written_whole
from legradnet.grading.journal import json_lines, read_json_lines
from legradnet.grading.parquet import write_parquet
from legradnet.grading.predictions import PredictionsTable, Record
from legradnet.run_folder import RunFolder
from legradnet.settings import Settings

AUTO, ALL = "auto", "all"
_MARK = "done.json"  # in a shard's folder, when all of its films are graded
_FOLDER = re.compile(r"shard-(\d+)-of-(\d+)")
_TOLD = 20  # shards that are told by name


@dataclass(frozen=True)
class Shard:
    """A part of a list of films.

    Attributes:
        number: Of the part, from 0.
        count: Parts in all.
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folder(self, parts: Path) -> Path:
        """Its own folder in that of all parts."""
        digits = len(str(self.count - 1))
        return parts / f"shard-{self.number:0{digits}}-of-{self.count}"

    def part(self, films: int, batch_size: int) -> range:
        """Positions of its films: whole batches of the full list, so that a network sees what it would in one run."""
        batches = -(-films // batch_size)
        start, end = (batches * number // self.count * batch_size for number in (self.number, self.number + 1))
        return range(min(start, films), min(end, films))


def shard_of(asked: str, environment: Mapping[str, str]) -> Shard | None:
    """The shard that `shard=` asks for.

    Args:
        asked: "I/N" with I = 0 ... N-1; "auto", that of the task of a SLURM array, or none outside of one; "all", none.
        environment: The process's.

    Raises:
        UserError: No such shard, or an array whose tasks are not numbered evenly.
    """
    if asked == ALL:
        return None
    if asked != AUTO:
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", asked)
        shard = Shard(int(found[1]), int(found[2])) if found else None
        if shard is None or shard.number >= shard.count:
            raise UserError(f"shard={asked} is no part: I/N with I = 0 ... N-1, as 3/64; {AUTO} or {ALL}.")
        return shard
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return None
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MAX")
    try:
        task, first, count, last = (int(environment[name]) for name in names)
        step = int(environment.get("SLURM_ARRAY_TASK_STEP", "1"))
    except (KeyError, ValueError):
        raise UserError(
            f"shard={AUTO}: SLURM does not say which of its array's tasks this is: name shard=I/N."
        ) from None
    if step < 1 or first + step * (count - 1) != last or (task - first) % step or not first <= task <= last:
        raise UserError(f"shard={AUTO}: this SLURM array's tasks are not numbered evenly: name shard=I/N, or {ALL}.")
    return Shard((task - first) // step, count)


def check_parts(parts: Path, shard: Shard) -> None:
    """Raise UserError where the folder of all parts holds shards of another count: part of an array was run again."""
    others = {of.count for _, of in _folders(parts)} - {shard.count}
    if others:
        words = f"{parts} holds shards of {min(others)}, and this is {shard}"
        raise UserError(f"{words}: name shard=I/{min(others)}, or choose another hydra.run.dir=.")


class Mark(Settings):
    """`done.json`: what a finished shard graded, and how; shards of one list say the same but for `number`."""

    number: int = Field(ge=0)
    count: int = Field(ge=1)
    films: int = Field(ge=0)
    errors: int = Field(ge=0)
    films_of_all: int = Field(ge=1)
    names: str
    models: list[str]
    settings: dict[str, object]
    classes: int = Field(ge=2, le=1000)
    gates: list[str]
    labelled: bool
    whole: bool

    @property
    def shared(self) -> dict[str, object]:
        """What all shards have in common."""
        own = ("number", "films", "errors", "labelled", "whole")
        return {name: value for name, value in self.model_dump().items() if name not in own}


def finish(folder: RunFolder, mark: Mark) -> None:
    """Write a shard's Parquet part, and then its mark."""
    write_parquet(folder.parquet, read_json_lines(folder.predictions_json), mark.classes, mark.gates)
    write_text(folder.path / _MARK, json.dumps(mark.model_dump(), indent=1) + "\n")


def read_mark(folder: Path) -> Mark | None:
    """The mark of a finished shard; None where it is not finished.

    Raises:
        UserError: It is damaged.
    """
    path = folder / _MARK
    if not path.is_file():
        return None
    try:
        return Mark.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(f"{path} is damaged: delete it, and run this shard again.") from None


def merge(parts: Path, folder: RunFolder) -> tuple[int, int]:
    """Put the predictions of all shards together, in the order of the list: what one run would have written.

    Args:
        parts: The folder of all shards.
        folder: Where `predictions.csv`, `.jsonl` and `.parquet` are written.

    Returns:
        How many films, and how many of them have an error.

    Raises:
        UserError: Shards are missing, unfinished, or of different lists, models or settings.
    """
    found = dict(sorted((shard.number, place) for place, shard in _folders(parts)))
    counts = {shard.count for _, shard in _folders(parts)}
    if not found:
        raise UserError(
            f"merge={parts} holds no shards: their folders are named as {Shard(3, 64).folder(Path()).name}."
        )
    if len(counts) > 1:
        raise UserError(f"merge={parts} holds shards of {' and of '.join(map(str, sorted(counts)))}: keep one kind.")
    marks = {number: mark for number, place in found.items() if (mark := read_mark(place))}
    (count,) = counts
    if missing := [number for number in range(count) if number not in marks]:
        more = f", {len(missing) - _TOLD} more" if len(missing) > _TOLD else ""
        numbers = ", ".join(map(str, missing[:_TOLD]))
        raise UserError(f"merge={parts}: {len(missing)} of {count} shards are missing or unfinished: {numbers}{more}. "
                        "The command of each goes on with it.")  # fmt: skip
    first = marks[0]
    for number, mark in marks.items():
        if differing := [name for name, value in mark.shared.items() if value != first.shared[name]]:
            raise UserError(
                f"Shards 0 and {number} in {parts} are not of one run, they differ in {', '.join(differing)}."
            )
    if (films := sum(mark.films for mark in marks.values())) != first.films_of_all:
        raise UserError(f"The shards in {parts} have {films} films, and their list has {first.films_of_all}.")

    def all_records() -> Iterator[Record]:
        for place in found.values():
            yield from read_json_lines(RunFolder(place).own(RunFolder(place).predictions_json))

    folder.write_config({**RunFolder(found[0]).read_config(), "shard": ALL})
    labelled, whole = (any(getattr(mark, name) for mark in marks.values()) for name in ("labelled", "whole"))
    table = PredictionsTable(first.classes, first.gates, labelled, whole=whole)
    with written_whole(folder.predictions_json) as file:
        for record in all_records():
            file.write(json_lines([record]).encode())
    write_parquet(folder.parquet, all_records(), first.classes, first.gates)
    table.write(folder.predictions, all_records())
    return films, sum(mark.errors for mark in marks.values())


def _folders(parts: Path) -> Iterator[tuple[Path, Shard]]:
    for place in sorted(parts.iterdir()) if parts.is_dir() else ():
        if (name := _FOLDER.fullmatch(place.name)) and place.is_dir():
            yield place, Shard(int(name[1]), int(name[2]))
