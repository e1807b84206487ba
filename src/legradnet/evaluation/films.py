"""The labelled films of an evaluation, and what is known of the training run that a checkpoint comes from."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.evaluation.settings import MeasuredFilms
from legradnet.grading.grading import Request
from legradnet.grading.predictions import KNEE
from legradnet.grading.whole_films import FilmKind
from legradnet.models.description import is_model_folder
from legradnet.models.named import name_of
from legradnet.run_folder import RunFolder
from legradnet.tables import read_own

log = logging.getLogger(__name__)

_PLACES = ("dataset_path", "csv_path")


@dataclass(frozen=True)
class LabelledFilms:
    """Films to measure on.

    Attributes:
        table: `filename`, `label`, `patient`, `side`, `split` and the CSV's other columns.
        requests: Each film, for a `Grader`.
        split: train, val, test or all.
        source: csv, folder or synthetic.
        own: Folder of the training run whose films and splits these are; None for other films.
        kind: How the films are taken: a run's own are knees cut close, as they were in training.
        warnings: What a reader of the numbers must know.
        fingerprints: Of each film's picture, b"" where it was not decoded.
    """

    table: pd.DataFrame
    requests: list[Request]
    split: str
    source: str
    own: Path | None
    kind: FilmKind
    warnings: list[str] = field(default_factory=list)
    fingerprints: list[bytes] = field(default_factory=list)


def run_of(checkpoint: str | Path) -> RunFolder:
    """The run folder that a checkpoint lies in, if it still does; a model folder has none, and stands in its place."""
    path = Path(checkpoint).resolve()
    return RunFolder(path if is_model_folder(path) else path.parent.parent)


def check_run(run: RunFolder) -> None:
    """Read what an evaluation tells of a run; UserError if it is damaged."""
    if run.config.is_file():
        run.read_config()
    if run.split.is_file():
        read_own(run.own(run.split), ("filename", "patient", "split"))
    run.read_versions()


def load_films(
    data: MeasuredFilms,
    checkpoint: str | Path,
    *,
    split: str | None,
    num_classes: int,
    image_size: int,
    film: FilmKind = "crop",
) -> LabelledFilms:
    """Read and check the films, and choose a split.

    Args:
        data: Config group `data`; `source` "own" takes the films of the checkpoint's training run, and its splits.
        checkpoint: A checkpoint, in its run folder if the films are its own.
        split: train, val, test, all; None: test where there is such a split, else all.
        num_classes: K.
        image_size: Side of generated knees.
        film: crop (each is a knee cut close), whole or auto, and then a CSV's row may be one `knee` of a whole film.

    Raises:
        UserError: Mistakes in the data, no such split, or no run folder around the checkpoint.
    """
    own = data.source == "own"
    run = run_of(checkpoint)
    # the cache of training spares decoding its films for the check; others are not kept
    others = {**data.model_dump(), "image_size": image_size, "cache": "off"}
    settings = _own_settings(run, data, checkpoint) if own else others
    kept = {name: settings[name] for name in settings if name not in ("mirror_left", "batch_size")}
    given = {name: value for name, value in kept.items() if value is not None}
    takes_knees = film != "crop" and not own
    module = KneeDataModule(given, num_classes=num_classes, progress=sys.stderr.isatty(), knees=takes_knees)
    if own:
        _set_up_own(module, run, data)
    else:
        module.read()
    table = module.table
    chosen = split or ("test" if table["split"].eq("test").any() else "all")
    rows = np.arange(len(table)) if chosen == "all" else np.flatnonzero(table["split"].eq(chosen))
    if not len(rows):
        there = ", ".join(sorted(set(table["split"]) - {""})) or "no split column"
        raise UserError(f"split={chosen}: there is no such film; the data have {there}. split=all takes every film.")
    knees = table[KNEE] if KNEE in table and takes_knees else pd.Series("", index=table.index)
    requests = [
        Request(module.film(row), *map(cast, (Side, Side), (table["side"].iat[row], knees.iat[row])))
        for row in rows.tolist()
    ]
    films = table.iloc[rows].reset_index(drop=True)
    warnings = list(_warnings(films, module, chosen, own))
    source, place = module.settings.source, run.path if own else None
    kind: FilmKind = "crop" if film == "auto" and (own or source == "synthetic") else film
    prints = module.fingerprints(rows.tolist())
    return LabelledFilms(films, requests, chosen, source, place, kind, warnings, prints)


def _own_settings(run: RunFolder, data: MeasuredFilms, checkpoint: str | Path) -> dict[str, Any]:
    if is_model_folder(checkpoint):
        raise UserError(
            f"{name_of(checkpoint)} has no training run of its own here: name the films to measure on, by data=csv, "
            "data=folder or data=synthetic."
        )
    if not run.config.is_file():
        raise UserError(
            f"{name_of(checkpoint)} lies in no run folder that tells its films: choose data=csv, data=folder or "
            "data=synthetic."
        )
    settings = run.read_group("data")
    keys = (*_PLACES, "num_workers", "cache_dir")
    moved = {name: value for name in keys if (value := getattr(data, name)) is not None}
    # nothing is written where only a run folder, which may be a stranger's, says
    uncached = data.cache == "off" or (settings.get("cache_dir") is not None and data.cache_dir is None)
    return settings | moved | ({"cache": "off", "cache_dir": None} if uncached else {})


def _set_up_own(module: KneeDataModule, run: RunFolder, data: MeasuredFilms) -> None:
    """Read the films of a training run; files that only its folder names are not quoted unless they are its films."""
    named = {name: value for name in _PLACES if (value := getattr(module.settings, name)) and not getattr(data, name)}
    for name, value in named.items():
        if not Path(value).exists():
            raise UserError(f"The films of {run.path} are no longer at {value}: say data.{name}=.")
    if named:
        log.info("Films of the run: %s", ", ".join(f"data.{name}={value}" for name, value in named.items()))
    try:
        module.setup()
        run.check_split(module.table)
    except UserError:
        if not named:
            raise
        say = " ".join(f"data.{name}={value}" for name, value in named.items())
        raise UserError(
            f"The films that {run.config} names are not, or no longer, those of {run.split}. That folder may be a "
            f"stranger's, so nothing is told of what it names; if it is yours, name them yourself to see more: {say}"
        ) from None


def _warnings(films: pd.DataFrame, module: KneeDataModule, split: str, own: bool) -> Sequence[str]:
    warnings = []
    if module.settings.source == "synthetic":
        warnings.append("Measured on GENERATED knees, not on radiographs of patients.")
        if not own:
            warnings.append(
                "Generated with the seed and size of training, these are its own knees: choose another data.seed."
            )
    if split in ("train", "all") and films["split"].eq("train").any():
        warnings.append("Training films are among these: the numbers are too good.")
    if split == "val":
        warnings.append("Validation films chose the epoch: the numbers flatter a little.")
    if unknown := int(films["patient"].eq("").sum()):
        warnings.append(
            f"{unknown} of {len(films)} films have no patient and count as patients of their own: "
            "if both knees of a patient are among them, the intervals are too narrow."
        )
    if len(module.skipped):
        warnings.append(f"{len(module.skipped)} unreadable films were left out.")
    return warnings


def seen_in_training(films: pd.DataFrame, run: RunFolder) -> int:
    """How many films, or their patients, were for training or validation in the run that a checkpoint lies in."""
    if not run.split.is_file():
        return 0
    split = read_own(run.own(run.split), ("filename", "patient", "split"))
    trained = [at for at, name in enumerate(split.column("split")) if name in ("train", "val")]
    names, patients = ({column[at] for at in trained} for column in map(split.column, ("filename", "patient")))
    return int((films["filename"].isin(names) | films["patient"].isin(patients - {""})).sum())
