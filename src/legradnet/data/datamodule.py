"""From a manifest to batches of uint8 films."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from legradnet.data.cache import CacheSettings
from legradnet.data.cached import CachedFilms
from legradnet.data.dataset import Batch, KneeDataset, collate
from legradnet.data.features import FeatureDataset, Features, as_it_is
from legradnet.data.film import fingerprint
from legradnet.data.manifest import Manifest, load_manifest
from legradnet.data.sampler import EpochSampler
from legradnet.data.settings import DataSettings
from legradnet.data.sides import SIDES
from legradnet.data.splits import Split, assign_splits, check_splits
from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.machine import cores
from legradnet.settings import checked

log = logging.getLogger(__name__)


class KneeDataModule(LightningDataModule):
    """Films with their grades, checked and split by patient.

    Args:
        settings: The config group `data`, a model or plain values.
        num_classes: Grades are 0..num_classes-1.
        progress: Show a progress bar while checking films.
        labelled: Whether every film needs a grade; else those without have the label -1.
        knees: Whether a row of the CSV may be one `knee` of a whole film, as measuring takes them, and training does
            not.

    Attributes:
        table: Rows of the films: `filename`, `label`, `patient`, `side`, `split` and the CSV's other columns.
        skipped: `filename` and `error` of films that were left out.
        features: Of frozen backbones: whoever computes them sets them, and loaders give them in the films' place.

    Raises:
        UserError: From `setup`, with everything that is wrong with the data at once.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame

    def __init__(
        self,
        settings: DataSettings | Mapping[str, Any],
        *,
        num_classes: int = 5,
        progress: bool = False,
        labelled: bool = True,
        knees: bool = False,
    ) -> None:
        super().__init__()
        self.settings = checked(DataSettings, settings, group="data")
        self.num_classes = num_classes
        self.progress = progress
        self.labelled = labelled
        self.knees = knees
        self.cached: CachedFilms | None = None
        self.features: Features | None = None
        self._pixels: np.ndarray | None = None
        self._root = Path()
        self._fingerprints: Sequence[bytes] = ()

    def read(self) -> None:
        """Read and check the manifest without splitting it; `split` is what the data say, else ""."""
        manifest = self._generate() if self.settings.source == "synthetic" else self._read()
        self._root = manifest.root
        self.cached = manifest.cached
        self.skipped = manifest.skipped
        self._fingerprints = manifest.fingerprints
        self.table = manifest.table

    def setup(self, stage: str | None = None) -> None:
        """Read, check and split the manifest, once."""
        if hasattr(self, "table"):
            return
        self.read()
        table = assign_splits(self.table, self.settings).reset_index(drop=True)
        check_splits(table, self.num_classes if self.labelled else 0)
        if self.settings.mirror_left and len(unsided := table[~table["side"].isin(SIDES)]):
            raise UserError(
                f"data.mirror_left=true needs the side of every film, and {len(unsided)} have none (first: "
                f"{unsided['filename'].iloc[0]}): add a `side` column (L or R) or a `side` group to data.patient_regex."
            )
        self.table = table

    def _generate(self) -> Manifest:
        settings = self.settings
        self._pixels, table = synthesize(
            settings.count, size=settings.image_size, num_classes=self.num_classes, seed=settings.seed
        )
        return Manifest(table.assign(split=""), root=Path())

    def _read(self) -> Manifest:
        settings = self.settings
        cache_dir = Path(settings.cache_dir) if settings.cache_dir else None
        return load_manifest(
            Path(str(settings.dataset_path)),
            Path(str(settings.csv_path)) if settings.source == "csv" else None,
            num_classes=self.num_classes,
            patient_regex=settings.patient_regex,
            verify=settings.verify,
            on_bad_image=settings.on_bad_image,
            progress=self.progress,
            labelled=self.labelled,
            cache=None
            if settings.cache == "off"
            else CacheSettings(settings.image_size, settings.fit, cache_dir, settings.cache_key),
            knees=self.knees,
        )

    def films(self, split: Split) -> pd.DataFrame:
        """Rows of one split, in table order."""
        return self.table[self.table["split"] == split]

    def film(self, row: int) -> Path | np.ndarray:
        """Where the film of a row of `table` is: its file, or its pixels if it was generated."""
        return self._root / str(self.table["filename"].iat[row]) if self._pixels is None else self._pixels[row]

    def fingerprints(self, rows: Sequence[int]) -> list[bytes]:
        """By which the pictures of some rows of `table` are known (`film.fingerprint`); b"" for one not decoded."""
        if self._pixels is not None:
            return [fingerprint(self._pixels[row]) for row in rows]
        return [self._fingerprints[row] if self._fingerprints else b"" for row in rows]

    def class_counts(self, split: Split = "train") -> list[int]:
        """Films of each grade 0..K-1 in a split."""
        return np.bincount(self.films(split)["label"], minlength=self.num_classes).tolist()

    def dataset(self, split: Split, *, graded: bool = False) -> KneeDataset:
        """Films of one split, in table order: all, or those that are `graded`."""
        films = self.films(split)
        films = films[films["label"] >= 0] if graded else films
        return KneeDataset(films, self._root, self.settings.films, pixels=self._pixels, cached=self.cached)

    def loader(
        self, split: Split, shuffle: bool = False, *, whole: bool = False, graded: bool = False
    ) -> DataLoader[Batch]:
        """Batches of one split, or of those of its films that are `graded`: this process's share, or the `whole`."""
        dataset = self.dataset(split, graded=graded)
        trainer = None if whole else self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        balance, seed = shuffle and self.settings.balance, self.settings.seed
        sampler = EpochSampler(dataset.labels, shuffle=shuffle, balance=balance, seed=seed, rank=rank, world=world)
        if self.features:
            return self._feature_loader(dataset, self.features[split], sampler, shuffle=shuffle)
        workers = self._workers(world)
        return DataLoader(
            dataset,
            batch_size=self.settings.batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            # batch norm can't train on a last batch of one
            drop_last=shuffle and len(sampler) >= self.settings.batch_size,
            # workers' seeds must not use up the global stream
            generator=torch.Generator().manual_seed(self.settings.seed),
        )

    def _feature_loader(
        self, films: KneeDataset, features: Tensor, sampler: EpochSampler, *, shuffle: bool
    ) -> DataLoader[Batch]:
        sampler.views = len(features)
        return DataLoader(
            FeatureDataset(features, films.labels, films.rows),
            batch_size=self.settings.batch_size,
            sampler=sampler,
            collate_fn=as_it_is,  # type: ignore[arg-type]  # __getitems__ gives a batch, not a list
            drop_last=shuffle and len(sampler) >= self.settings.batch_size,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )

    def _workers(self, world: int) -> int:
        if self.settings.num_workers is not None:
            return self.settings.num_workers
        if self._pixels is not None or (self.cached is not None and self.cached.count == len(self.table)):
            return 0
        return min(4, max(1, cores() // (2 * world)))

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled training films."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Validation films in row order."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Test films in row order."""
        return self.loader("test")
