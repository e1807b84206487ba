"""Films of one split, and their batches: uint8 squares with grades."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from legradnet.data.cached import CachedFilms
from legradnet.data.film import Film, fit_image, thumbnail
from legradnet.data.images import read_film
from legradnet.data.reading.pool import share_claims
from legradnet.data.settings import FilmSettings


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
        settings: How a film becomes a square of side S, and whether left knees are turned to look like right ones.
        pixels: Films already in memory, uint8 [len(whole table), H, W], instead of files.
        cached: Films of the whole table that need not be decoded again.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        root: Path,
        settings: FilmSettings,
        *,
        pixels: np.ndarray | None = None,
        cached: CachedFilms | None = None,
    ) -> None:
        self.root = root
        self.rows = table.index.to_numpy()
        self.filenames = table["filename"].to_numpy()
        self.labels = table["label"].to_numpy()
        self.mirrored = (table["side"] == "L").to_numpy() & settings.mirror_left
        self.settings, self.pixels, self.cached = settings, pixels, cached
        if pixels is None:
            share_claims()  # before a loader forks its processes

    def __len__(self) -> int:
        return len(self.rows)

    def thumbnail(self, index: int) -> Film:
        """A film as it is in its file, shrunk."""
        cached = self.cached.thumbnail(int(self.rows[index])) if self.cached else None
        return thumbnail(self._film(index)) if cached is None else cached

    def _film(self, index: int) -> Film:
        if self.pixels is not None:
            return Film(self.pixels[int(self.rows[index])])
        return read_film(self.root / self.filenames[index])

    def __getitem__(self, index: int) -> Batch:
        row = int(self.rows[index])
        square = self.cached.square(row) if self.cached else None
        if square is None:
            square = fit_image(self._film(index).gray, self.settings.image_size, self.settings.fit)
        if self.mirrored[index]:
            square = square[:, ::-1]
        pixels = torch.from_numpy(np.ascontiguousarray(square))[None]
        return Batch(pixels, torch.tensor(int(self.labels[index])), torch.tensor(row))


def collate(films: Sequence[Batch]) -> Batch:
    """Stack single films to a batch."""
    return Batch(*(torch.stack(column) for column in zip(*films, strict=True)))
