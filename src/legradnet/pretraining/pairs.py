"""Pairs of films to be alike, and the loaders that give them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.dataset import Batch, KneeDataset
from legradnet.data.sampler import EpochSampler


class Pair(NamedTuple):
    """`films` uint8 [B, 2, S, S]: of each of B knees a film, and one that it is to be like."""

    films: Tensor


class PairSampler(Sampler[tuple[int, int]]):
    """An epoch's films in the order of `films`, each with a partner that is drawn from (seed, epoch, film) alone.

    Args:
        films: Their order.
        patients: Of each film; "" where unknown. A film without another of its patient is its own partner.
        seed: Of the draws.
    """

    def __init__(self, films: EpochSampler, patients: Sequence[str], seed: int) -> None:
        self.films, self.seed = films, seed
        by_patient: defaultdict[str, list[int]] = defaultdict(list)
        for film, patient in enumerate(patients):
            by_patient[patient or f"\0{film}"].append(film)
        self.others = {film: [other for other in own if other != film] for own in by_patient.values() for film in own}

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this."""
        self.films.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.films)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng([self.seed, self.films.epoch, 1])
        draws = rng.random(len(self.others))
        for film in self.films:
            others = self.others[film]
            yield film, others[int(draws[film] * len(others))] if others else film


class _Pairs(Dataset[Pair]):
    def __init__(self, films: KneeDataset) -> None:
        self.films = films

    def __getitem__(self, pair: tuple[int, int]) -> Pair:
        first, second = (self.films[film].films for film in pair)
        return Pair(torch.cat([first, second]))


def _stacked(pairs: Sequence[Pair]) -> Pair:
    return Pair(torch.stack([pair.films for pair in pairs]))


class PairedFilms(KneeDataModule):
    """A `KneeDataModule` of films that need no grade, whose training batches are pairs.

    Args:
        data: Settings of the films.
        num_classes: Of the grades of films that have one.
        pairs: "patient": of two films of a patient where there are; "film": of one.
        progress: Show a progress bar while checking films.
    """

    def __init__(self, data: object, *, num_classes: int, pairs: str, progress: bool = False) -> None:
        super().__init__(data, num_classes=num_classes, progress=progress, labelled=False)  # type: ignore[arg-type]
        self.pairs = pairs

    @property
    def paired(self) -> int:
        """Training films with another of their patient."""
        patients = self.films("train")["patient"]
        return int((patients.ne("") & patients.duplicated(keep=False)).sum()) if self.pairs == "patient" else 0

    def train_dataloader(self) -> DataLoader[Pair]:  # type: ignore[override]
        """Shuffled pairs of training films."""
        dataset = self.dataset("train")
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        order = EpochSampler(dataset.labels, shuffle=True, seed=self.settings.seed, rank=rank, world=world)
        patients = self.films("train")["patient"] if self.pairs == "patient" else [""] * len(dataset)
        workers = self._workers(world)
        return DataLoader(
            _Pairs(dataset),
            batch_size=self.settings.batch_size,
            sampler=PairSampler(order, list(patients), self.settings.seed),
            num_workers=workers,
            collate_fn=_stacked,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            drop_last=len(order) >= self.settings.batch_size,
            generator=torch.Generator().manual_seed(self.settings.seed),
        )

    def val_dataloader(self) -> list[DataLoader[Batch]]:  # type: ignore[override]
        """Films of validation, and if there are any, those of training with a grade: the probe learns from them."""
        graded = (self.films("train")["label"] >= 0).any()
        return [self.loader("val"), *([self.loader("train", graded=True)] if graded else [])]
