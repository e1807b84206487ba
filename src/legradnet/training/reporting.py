"""What a training run says in words: its films, its epochs, its result, and how to go on with it."""

import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from legradnet.data.datamodule import KneeDataModule
from legradnet.run_folder import RunFolder

log = logging.getLogger(__name__)


def describe_films(data: KneeDataModule) -> None:
    """Log how many knees and patients each split has, and whether they are real."""
    if data.settings.source == "synthetic":
        log.info("Training on GENERATED knees, not on radiographs of patients; real ones: data=csv or data=folder.")
    for split in ("train", "val", "test"):
        if len(films := data.films(split)):
            patients = films.loc[films["patient"] != "", "patient"].nunique()
            log.info("%-5s %6d knees, %d patients, by grade %s", split, len(films), patients, data.class_counts(split))
    if data.cached:
        log.info("Cache: %s; it may be deleted at any time", data.cached.describe())
    if len(data.skipped):
        log.warning("%d bad films were left out: they are listed in skipped.csv", len(data.skipped))


def log_epoch(row: Mapping[str, float]) -> None:
    """Log one line of an epoch's metrics, for runs without a progress bar."""
    if not logging.getLogger().handlers:  # a process of ddp, where nobody has set up logging
        logging.basicConfig(format="%(message)s", level=logging.INFO)
    shown = ("train/loss", "val/loss", "val/qwk", "val/accuracy", "val/mae")
    log.info("epoch %d  %s", row["epoch"], "  ".join(f"{name} {row[name]:.4f}" for name in shown if name in row))


def print_summary(folder: RunFolder, tested: Mapping[str, float] | None) -> None:
    """Print the test metrics as a table, and where every file is."""
    if tested:
        table = Table("metric", "value", title="Test films, best epoch")
        for name, value in tested.items():
            table.add_row(name, f"{value:.4f}")
        Console().print(table)
    for what in ("best", "last", "metrics", "test_metrics", "split", "skipped", "versions", "config"):
        path: Path = getattr(folder, what)
        if path.is_file():
            print(f"{what:12}  {path}")  # not in a table, which would cut long paths


def tell_how_to_resume(folder: RunFolder, command: str) -> None:
    """Log how `command` goes on with an interrupted run."""
    if not folder.last.is_file():
        log.warning("Stopped before there was anything to resume from.")
        return
    here = [f"hydra.run.dir={folder.path}", "ckpt_path=last"]
    words = sys.argv[1:]
    if {"-m", "--multirun"} & set(words):
        log.warning("Stopped. To go on with this job, repeat its overrides with %s", shlex.join(here))
        return
    words = [word for word in words if not word.startswith(("ckpt_path=", "hydra.run.dir="))]
    log.warning("Stopped. To go on: %s", shlex.join([command, *words, *here]))
