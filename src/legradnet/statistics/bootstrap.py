"""Confidence intervals from resampling patients: knees of one patient are alike, so they are drawn together."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from legradnet.grades import Floats, Ints

_CELLS = 1_000_000  # of a block of weights: 8 MB, and a few times that for what is computed from it


def patient_numbers(names: Sequence[str]) -> Ints:
    """Number of each film's patient [N], from 0 without gaps; a film without a name ("") is a patient of its own."""
    own = [name or f"\0{i}" for i, name in enumerate(names)]  # no CSV cell has a NUL
    numbers = {name: number for number, name in enumerate(dict.fromkeys(own))}
    return np.array([numbers[name] for name in own], np.int64)


def resampled_weights(patients: Ints, *, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each film is in each resample, in blocks [some, N] of `resamples` rows in all.

    A resample draws as many patients as there are, with replacement, and takes all films of each (cluster bootstrap;
    Field and Welsh 2007, doi:10.1111/j.1467-9868.2007.00593.x).

    Args:
        patients: Number of each film's patient [N], from 0 without gaps.
        resamples: How many.
        seed: The same seed and patients give the same resamples.
    """
    random = np.random.default_rng(seed)
    count = int(patients.max(initial=-1)) + 1
    block = max(1, _CELLS // max(1, len(patients)))
    for start in range(0, resamples, block):
        rows = min(block, resamples - start)
        drawn = random.integers(count, size=(rows, count)) + count * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield times[:, patients].astype(np.float64)


def bootstrap(
    statistics: Callable[[Floats], Mapping[str, Floats]], patients: Ints, *, resamples: int, seed: int
) -> dict[str, Floats]:
    """The values that `statistics` ({name: [R, ...]} of weights [R, N]) have in resamples: {name: [resamples, ...]}.

    A single patient can't be resampled: all values are nan then.
    """
    blocks = [statistics(weights) for weights in resampled_weights(patients, resamples=resamples, seed=seed)]
    values = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    if patients.max() == 0:
        return {name: np.full_like(value, np.nan) for name, value in values.items()}
    return values


def percentile_interval(values: Floats, confidence_level: float) -> tuple[Floats, Floats]:
    """Low and high end [...] of the interval that holds the middle `confidence_level` of `values` [resamples, ...].

    Resamples in which a value isn't defined (nan) are left out; both ends are nan if it never is.
    """
    tail = (1 - confidence_level) / 2
    columns = values.reshape(len(values), -1).T
    ends = [
        np.quantile(kept, [tail, 1 - tail]) if len(kept := column[~np.isnan(column)]) else [np.nan, np.nan]
        for column in columns
    ]
    low, high = np.array(ends, np.float64).reshape(-1, 2).T
    return low.reshape(values.shape[1:]), high.reshape(values.shape[1:])
