"""What grading an archive takes: hours and cores, from films that are read and graded here as predict does it."""

import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

from legradnet.benchmark.settings import BenchmarkSettings
from legradnet.data.film import ImageError
from legradnet.data.manifest import load_manifest
from legradnet.data.settings import DataSettings
from legradnet.data.synthetic import write_knees
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.loading import models_in_words
from legradnet.grading.whole_films import forget_looks

log = logging.getLogger(__name__)

_DAY = 24  # hours
_WARM_UP = 2  # batches


@dataclass(frozen=True)
class ArchiveSpeed:
    """How quickly one model grades films here.

    Attributes:
        model: In words.
        precision: It is computed in.
        films: Graded while it was measured.
        rate: Films a second of this machine.
        cores: That were busy on average.
        hours: That the archive takes here.
    """

    model: str
    precision: str
    films: int
    rate: float
    cores: float
    hours: float

    @property
    def words(self) -> str:
        """A sentence for whoever plans it."""
        needed = max(1, round(self.hours * self.cores / _DAY))  # to be done in a day
        return (
            f"{self.model}, {self.precision}: {self.rate:.1f} films/s with {self.cores:.1f} cores busy "
            f"({self.rate / self.cores:.1f} a core); here {_duration(self.hours)}, "
            f"or a day on {needed:,} such core{'s' if needed > 1 else ''}"
        )


def archive_speeds(settings: BenchmarkSettings, archive: float) -> list[ArchiveSpeed]:
    """Grade films for `seconds` with each model of `checkpoint`.

    Args:
        settings: Whose `data` names the films; generated knees are written to a temporary folder first.
        archive: Films of the archive.

    Raises:
        UserError: No such model, or films that can't be read.
    """
    models = [settings.checkpoint] if isinstance(settings.checkpoint, str) else settings.checkpoint
    with tempfile.TemporaryDirectory(prefix="legradnet-benchmark-") as folder:
        films = _films(settings.data, settings.model.num_classes, Path(folder) / "films")
        return [
            _speed(Grader.load(model, device=settings.device), films, archive, settings.seconds) for model in models
        ]


def _films(data: DataSettings, num_classes: int, folder: Path) -> list[Path]:
    if data.source == "synthetic":
        size, seed = data.image_size, data.seed
        return sorted(
            write_knees(folder, data.count, size=size, num_classes=num_classes, seed=seed).parent.glob("*.png")
        )
    root = Path(data.dataset_path or "")
    table = Path(data.csv_path) if data.csv_path else None
    manifest = load_manifest(root, table, num_classes=num_classes, verify="header")
    return [root / name for name in manifest.table["filename"]]


def _speed(grader: Grader, films: Sequence[Path], archive: float, seconds: float) -> ArchiveSpeed:
    log.info("Grading by %s", models_in_words(grader.networks))
    batches = grader.stream_knees(Request(film) for film in _again_and_again(films))
    first = list(islice(batches, _WARM_UP))
    if wrong := [knee for film in chain(*first) for knee in film if isinstance(knee, ImageError)]:
        raise UserError(f"Films that can't be read tell nothing of speed: {wrong[0]}")
    start, of_cpu, graded = time.perf_counter(), time.process_time(), 0
    while (spent := time.perf_counter() - start) < seconds or not graded:
        graded += len(next(batches))
    busy = (time.process_time() - of_cpu) / spent
    rate = graded / spent
    precision = grader.networks[0].precision
    return ArchiveSpeed(models_in_words(grader.networks), precision, graded, rate, busy, archive / rate / 3600)


def _again_and_again(films: Sequence[Path]) -> Iterator[Path]:
    """Films of an archive: a film that comes again is as new as it was."""
    while True:
        yield from films
        forget_looks()


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{max(1, round(hours * 60))} minutes"
    return f"{hours:,.1f} hours" if hours < 2 * _DAY else f"{hours / _DAY:,.1f} days"
