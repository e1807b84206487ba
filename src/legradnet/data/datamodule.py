"""From a manifest to batches of uint8 films."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from legradnet.data.images import Film, Fit, fit_image, read_film
from legradnet.data.manifest import Manifest, load_manifest
from legradnet.data.splits import assign_splits, check_splits
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError

log = logging.getLogger(__name__)

Split = Literal["train", "val", "test"]


class Batch(NamedTuple):
    """`films` uint8 [B, 1, S, S], `labels` int64 [B], `rows` int64 [B]: each film's row in the data module's table."""

    films: Tensor
    labels: Tensor
    rows: Tensor


class KneeDataset(Dataset[Batch]):
    """Films of one split, read when asked for.

    Args:
        table: Rows of the manifest; the index is the row number in the whole table.
        root: Folder that filenames are relative to.
        image_size: Side S in pixels.
        fit: How a film that isn't square is made so.
        mirror_left: Turn left knees to look like right ones.
        pixels: Films already in memory, uint8 [len(whole table), H, W], instead of files.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        root: Path,
        *,
        image_size: int,
        fit: Fit = "pad",
        mirror_left: bool = False,
        pixels: np.ndarray | None = None,
    ) -> None:
        self.root = root
        self.rows = table.index.to_numpy()
        self.filenames = table["filename"].to_numpy()
        self.labels = table["label"].to_numpy()
        self.mirrored = (table["side"] == "L").to_numpy() & mirror_left
        self.image_size = image_size
        self.fit = fit
        self.pixels = pixels

    def __len__(self) -> int:
        return len(self.rows)

    def film(self, index: int) -> Film:
        """A film as it is in its file."""
        if self.pixels is not None:
            return Film(self.pixels[int(self.rows[index])])
        return read_film(self.root / self.filenames[index])

    def __getitem__(self, index: int) -> Batch:
        row = int(self.rows[index])
        square = fit_image(self.film(index).gray, self.image_size, self.fit)
        if self.mirrored[index]:
            square = square[:, ::-1]
        return Batch(
            torch.from_numpy(np.ascontiguousarray(square))[None],
            torch.tensor(int(self.labels[index])),
            torch.tensor(row),
        )


class EpochSampler(Sampler[int]):
    """Order of the films in an epoch, drawn from (seed, epoch) alone: a resumed run sees what it would have seen.

    Each of `world` processes gets every `world`-th film; the last ones are repeated so that all get equally many.

    Args:
        labels: Grades of the films [N].
        shuffle: New order each epoch; False: row order.
        balance: Draw with replacement so that all grades that occur are equally likely; N draws an epoch.
        seed: Seed of the order.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(
        self, labels: np.ndarray, *, shuffle: bool, balance: bool = False, seed: int = 0, rank: int = 0, world: int = 1
    ) -> None:
        self.labels = labels
        self.shuffle = shuffle
        self.balance = balance
        self.seed = seed
        self.rank = rank
        self.world = world
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.labels) // self.world)

    def __iter__(self) -> Iterator[int]:
        count = len(self.labels)
        order = np.arange(count)
        if self.shuffle:
            rng = np.random.default_rng([self.seed, self.epoch])
            if self.balance:
                share = 1.0 / np.bincount(self.labels)[self.labels]
                order = rng.choice(count, size=count, p=share / share.sum())
            else:
                order = rng.permutation(count)
        padded = np.resize(order, len(self) * self.world)
        return iter(padded[self.rank :: self.world].tolist())


class KneeDataModule(LightningDataModule):
    """Films with their grades, checked and split by patient. Settings are the config group `data`.

    Args:
        source: csv, folder, or synthetic (generated knees).
        dataset_path: Folder that filenames are relative to (csv, folder).
        csv_path: CSV with `filename,label` and perhaps `patient,side,split` (csv).
        count: Films to generate (synthetic).
        num_classes: Grades are 0..num_classes-1.
        image_size: Side of a film in pixels as it reaches the network.
        fit: pad (keeps the aspect), crop, or stretch.
        batch_size: Films a batch.
        num_workers: Reading processes; None: none for generated knees, else half the cores, at most 4.
        val_fraction: Share of the films for validation, where there is no `split` column.
        test_fraction: Share for the test.
        fold: Use fold `fold` of `num_folds` for validation instead.
        num_folds: Number of folds.
        patient_regex: Finds `patient`, and perhaps `side`, in file names that have no such column.
        mirror_left: Turn left knees to look like right ones; needs each film's side.
        balance: Train on all grades equally often.
        on_bad_image: error, or skip.
        verify: decode every film beforehand, or only its header.
        seed: Seed of split, order and generated knees.
        progress: Show a progress bar while checking films.

    Raises:
        UserError: From `setup`, with everything that is wrong with the data at once.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame

    def __init__(
        self,
        *,
        source: Literal["csv", "folder", "synthetic"] = "synthetic",
        dataset_path: str | None = None,
        csv_path: str | None = None,
        count: int = 600,
        num_classes: int = 5,
        image_size: int = 224,
        fit: Fit = "pad",
        batch_size: int = 16,
        num_workers: int | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        fold: int | None = None,
        num_folds: int | None = None,
        patient_regex: str | None = None,
        mirror_left: bool = False,
        balance: bool = False,
        on_bad_image: Literal["error", "skip"] = "error",
        verify: Literal["decode", "header"] = "decode",
        seed: int = 0,
        progress: bool = False,
    ) -> None:
        super().__init__()
        self.source = source
        self.dataset_path = dataset_path
        self.csv_path = csv_path
        self.count = count
        self.num_classes = num_classes
        self.image_size = image_size
        self.fit: Fit = fit
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.split_settings: dict[str, Any] = {
            "val_fraction": val_fraction,
            "test_fraction": test_fraction,
            "fold": fold,
            "num_folds": num_folds,
            "seed": seed,
        }
        self.patient_regex = patient_regex
        self.mirror_left = mirror_left
        self.balance = balance
        self.on_bad_image: Literal["error", "skip"] = on_bad_image
        self.verify: Literal["decode", "header"] = verify
        self.seed = seed
        self.progress = progress
        self._pixels: np.ndarray | None = None
        self._root = Path()

    def read(self) -> None:
        """Read and check the manifest without splitting it; `split` is what the data say, else ""."""
        manifest = self._generate() if self.source == "synthetic" else self._read()
        self._root = manifest.root
        self.skipped = manifest.skipped
        self.table = manifest.table

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the manifest, once."""
        if hasattr(self, "table"):
            return
        self.read()
        table = assign_splits(self.table, **self.split_settings).reset_index(drop=True)
        check_splits(table, self.num_classes)
        if self.mirror_left and len(unsided := table[~table["side"].isin(["L", "R"])]):
            raise UserError(
                f"data.mirror_left=true needs the side of every film, and {len(unsided)} have none (first: "
                f"{unsided['filename'].iloc[0]}): add a `side` column (L or R) or a `side` group to data.patient_regex."
            )
        self.table = table

    def _generate(self) -> Manifest:
        self._pixels, table = synthesize(self.count, size=self.image_size, num_classes=self.num_classes, seed=self.seed)
        table = table.assign(split="")
        return Manifest(table, root=Path())

    def _read(self) -> Manifest:
        needed = {"data.dataset_path": self.dataset_path} | (
            {"data.csv_path": self.csv_path} if self.source == "csv" else {}
        )
        if missing := [key for key, value in needed.items() if value is None]:
            raise UserError(f"data={self.source} needs {' and '.join(missing)}.")
        return load_manifest(
            Path(str(self.dataset_path)),
            Path(str(self.csv_path)) if self.source == "csv" else None,
            num_classes=self.num_classes,
            patient_regex=self.patient_regex,
            verify=self.verify,
            on_bad_image=self.on_bad_image,
            progress=self.progress,
        )

    def films(self, split: Split) -> pd.DataFrame:
        """Rows of one split, in table order."""
        return self.table[self.table["split"] == split]

    def film(self, row: int) -> Path | np.ndarray:
        """Where the film of a row of `table` is: its file, or its pixels if it was generated."""
        return self._root / str(self.table["filename"].iat[row]) if self._pixels is None else self._pixels[row]

    def class_counts(self, split: Split = "train") -> list[int]:
        """Films of each grade 0..K-1 in a split."""
        return np.bincount(self.films(split)["label"], minlength=self.num_classes).tolist()

    def dataset(self, split: Split) -> KneeDataset:
        """Films of one split, in table order."""
        return KneeDataset(
            self.films(split),
            self._root,
            image_size=self.image_size,
            fit=self.fit,
            mirror_left=self.mirror_left,
            pixels=self._pixels,
        )

    def loader(self, split: Split, shuffle: bool = False, *, whole: bool = False) -> DataLoader[Batch]:
        """Batches of one split: this process's share of them, or the `whole`."""
        dataset = self.dataset(split)
        trainer = None if whole else self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = EpochSampler(
            dataset.labels, shuffle=shuffle, balance=shuffle and self.balance, seed=self.seed, rank=rank, world=world
        )
        workers = self._workers(world)
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            drop_last=shuffle and len(sampler) >= self.batch_size,  # batch norm can't train on a last batch of one
            generator=torch.Generator().manual_seed(self.seed),  # workers' seeds must not use up the global stream
        )

    def _workers(self, world: int) -> int:
        if self.num_workers is not None:
            return self.num_workers
        if self._pixels is not None:
            return 0
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return min(4, max(1, cores // (2 * world)))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training films."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation films in row order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test films in row order."""
        return self.loader("test")


def collate(films: Sequence[Batch]) -> Batch:
    """Stack single films to a batch."""
    return Batch(*(torch.stack(column) for column in zip(*films, strict=True)))
