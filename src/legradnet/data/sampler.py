"""The order of films in an epoch."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class EpochSampler(Sampler[int]):
    """Order of the films in an epoch, drawn from (seed, epoch) alone: a resumed run sees what it would have seen.

    Each of `world` processes gets every `world`-th film; the last ones are repeated so that all get equally many.

    Args:
        labels: Grades of the films [N].
        shuffle: New order each epoch; False: row order.
        balance: Draw with replacement so that all grades that occur are equally likely; N draws an epoch.
        seed: Seed of the order.
        views: Of each film; an index is that of the film plus N times that of the epoch's view.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        shuffle: bool,
        balance: bool = False,
        seed: int = 0,
        views: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.labels = labels
        self.shuffle = shuffle
        self.balance = balance
        self.seed = seed
        self.views = views
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
        padded = np.resize(order, len(self) * self.world) + count * (self.epoch % self.views)
        return iter(padded[self.rank :: self.world].tolist())
