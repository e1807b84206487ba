"""How many films a second are read, by the number of reading processes."""

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Sampler

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.dataset import KneeDataset, collate
from legradnet.data.settings import DataSettings
from legradnet.data.synthetic import write_knees

_PREFETCHED = 2  # batches that each process reads ahead; torch's default


class _Endless(Sampler[int]):
    """Every film in turn, again and again."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self) -> Iterator[int]:
        return itertools.cycle(range(self.count))


def loading_rates(data: DataSettings, num_classes: int, workers: Sequence[int], seconds: float) -> dict[int, float]:
    """Films a second with each number of reading processes: of the films of `data`, or of generated PNG files.

    Args:
        data: Config group `data`. Generated knees are written to a temporary folder first.
        num_classes: Grades are 0..num_classes-1.
        workers: Numbers of processes to try; 0 reads in the training process itself.
        seconds: How long each is measured.

    Raises:
        UserError: The films can't be read.
    """
    if data.source != "synthetic":
        return _rates(data, num_classes, workers, seconds)
    with tempfile.TemporaryDirectory(prefix="legradnet-benchmark-") as folder:
        place, size, seed = Path(folder) / "films", data.image_size, data.seed
        table = write_knees(place, data.count, size=size, num_classes=num_classes, seed=seed)
        files = {"source": "csv", "dataset_path": str(table.parent), "csv_path": str(table)}
        return _rates(data.model_copy(update=files), num_classes, workers, seconds)


def _rates(data: DataSettings, num_classes: int, workers: Sequence[int], seconds: float) -> dict[int, float]:
    # the header only: each film is decoded in a moment anyway
    module = KneeDataModule(data.model_copy(update={"verify": "header", "num_workers": 0}), num_classes=num_classes)
    module.setup()
    dataset = module.dataset("train")
    return {count: _rate(dataset, data.batch_size, count, seconds) for count in workers}


def _rate(dataset: KneeDataset, batch_size: int, workers: int, seconds: float) -> float:
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=_Endless(len(dataset)),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        prefetch_factor=_PREFETCHED if workers else None,
    )
    batches = iter(loader)
    for _ in range(1 + _PREFETCHED * workers):  # read while the processes were starting
        next(batches)
    start, films = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or not films:
        films += len(next(batches).films)
    return films / spent
