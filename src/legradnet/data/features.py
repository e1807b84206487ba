"""Pooled features of frozen backbones in the films' place: what never changes is computed once."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from legradnet.data.dataset import Batch
from legradnet.data.splits import Split


class FeatureDataset(Dataset[Batch]):
    """Features of one split's films.

    Args:
        features: Float32 [V, N, W]: V views of N films, each the features of all backbones side by side.
        labels: Grades of the films [N].
        rows: The films' rows in the data module's table [N].
    """

    def __init__(self, features: Tensor, labels: np.ndarray, rows: np.ndarray) -> None:
        self.features = features
        self.labels = torch.tensor(labels)
        self.rows = torch.tensor(rows)

    def __len__(self) -> int:
        return self.features.shape[0] * self.features.shape[1]

    def __getitem__(self, index: int) -> Batch:
        """Film `index % N` in view `index // N`."""
        return Batch(*(column[0] for column in self.__getitems__([index])))

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A whole batch at once: one film after the other would cost more than the training step."""
        places = torch.as_tensor(indices)
        films = places % len(self.rows)
        return Batch(self.features.flatten(0, 1)[places], self.labels[films], self.rows[films])


def as_it_is(batch: Batch) -> Batch:
    """What `FeatureDataset` gives is a batch already."""
    return batch


Features = dict[Split, Tensor]
