"""From a manifest to batches of uint8 films."""

import logging
import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from legradnet.data.cache import CacheKey, CacheSettings
from legradnet.data.cached import CachedFilms
from legradnet.data.dataset import Batch, KneeDataset, collate
from legradnet.data.features import FeatureDataset, Features, as_it_is
from legradnet.data.film import Fit
from legradnet.data.manifest import Manifest, load_manifest
from legradnet.data.sampler import EpochSampler
from legradnet.data.sides import SIDES
from legradnet.data.splits import Split, assign_splits, check_splits
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError

log = logging.getLogger(__name__)


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
        num_workers: Reading processes; None: none for generated or cached films, else half the cores, at most 4.
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
        cache: auto: what the check decodes is kept for later epochs, runs and processes; or off.
        cache_dir: Folder for that, None: a hidden one in `dataset_path`.
        cache_key: A film is known by stat (path, size, times), or by the hash of its content.
        feature_views: Views of each training film whose features frozen backbones compute once; None: one where films
            aren't augmented. Whoever computes them sets `features`, which loaders give in the films' place.
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
        cache: Literal["auto", "off"] = "auto",
        cache_dir: str | None = None,
        cache_key: CacheKey = "stat",
        feature_views: int | None = None,
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
        self.cache = CacheSettings(image_size, fit, Path(cache_dir) if cache_dir else None, cache_key)
        self.cached: CachedFilms | None = None
        self.feature_views = feature_views
        self.features: Features | None = None
        self._caches = cache != "off"
        self._pixels: np.ndarray | None = None
        self._root = Path()

    def read(self) -> None:
        """Read and check the manifest without splitting it; `split` is what the data say, else ""."""
        manifest = self._generate() if self.source == "synthetic" else self._read()
        self._root = manifest.root
        self.cached = manifest.cached
        self.skipped = manifest.skipped
        self.table = manifest.table

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the manifest, once."""
        if hasattr(self, "table"):
            return
        self.read()
        table = assign_splits(self.table, **self.split_settings).reset_index(drop=True)
        check_splits(table, self.num_classes)
        if self.mirror_left and len(unsided := table[~table["side"].isin(SIDES)]):
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
            cache=self.cache if self._caches else None,
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
            cached=self.cached,
        )

    def loader(self, split: Split, shuffle: bool = False, *, whole: bool = False) -> DataLoader[Batch]:
        """Batches of one split: this process's share of them, or the `whole`."""
        dataset = self.dataset(split)
        trainer = None if whole else self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        sampler = EpochSampler(
            dataset.labels, shuffle=shuffle, balance=shuffle and self.balance, seed=self.seed, rank=rank, world=world
        )
        if self.features:
            return self._feature_loader(dataset, self.features[split], sampler, shuffle=shuffle)
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

    def _feature_loader(
        self, films: KneeDataset, features: Tensor, sampler: EpochSampler, *, shuffle: bool
    ) -> DataLoader[Batch]:
        sampler.views = len(features)
        return DataLoader(
            FeatureDataset(features, films.labels, films.rows),
            batch_size=self.batch_size,
            sampler=sampler,
            collate_fn=as_it_is,  # type: ignore[arg-type]  # __getitems__ gives a batch, not a list
            drop_last=shuffle and len(sampler) >= self.batch_size,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _workers(self, world: int) -> int:
        if self.num_workers is not None:
            return self.num_workers
        if self._pixels is not None or (self.cached is not None and self.cached.count == len(self.table)):
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
