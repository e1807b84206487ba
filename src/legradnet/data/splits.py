"""Training, validation and test: stratified by grade, and both knees of a patient on one side."""

import logging
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import numpy.typing as npt

from legradnet.data.settings import DataSettings
from legradnet.errors import UserError

if TYPE_CHECKING:
    import pandas as pd  # only for types: grading films needs no tables

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

SHOWN = 10  # patients named in an error

_log = logging.getLogger(__name__)


def assign_splits(table: "pd.DataFrame", settings: DataSettings) -> "pd.DataFrame":
    """Return `table`, rows and order kept, with every film's `split`.

    A `split` column that is filled is used as given, without the fractions. Otherwise patients are drawn by systematic
    sampling (Cochran 1977, Sampling Techniques, ch. 8): shuffled by `seed`, sorted by grade, then every 1/fraction-th.
    The draw depends on names, grades and the seed, not on the order of the rows. A film without a patient counts as a
    patient of its own.

    Args:
        table: A manifest's table: `filename`, `label`, `patient`, `split`.
        settings: `val_fraction` and `test_fraction` are shares of the patients. With a `fold` all but the test films
            are divided in `num_folds`; this one is `val` and the others `train`, and the test films are the same for
            every fold. `seed` is that of the shuffle.

    Raises:
        UserError: The fractions leave nothing to train or to validate on, or some films have a split and others none.
    """
    import pandas as pd  # late: grading films needs no tables

    given = table["split"].ne("")
    if given.any() and not given.all():
        raise UserError(f"{int((~given).sum())} of {len(table)} films have no split while the others have one")
    is_given = bool(given.any())
    fold, num_folds = settings.fold, settings.num_folds
    if not is_given:
        _check_fractions(settings)
    if unknown := int(table["patient"].eq("").sum()):
        _log.warning(
            "no patient ids for %d of %d films: split per image, so both knees of a patient may land in two splits",
            unknown,
            len(table),
        )
    if is_given and fold is None:
        return table.copy()

    rng = np.random.default_rng(settings.seed)
    is_test = table["split"].eq("test").to_numpy()
    pool = np.flatnonzero(~is_test)  # rows to be divided
    patient_of_row, order = _graded_patients(table.iloc[pool], rng)
    split = np.full(len(order), "train", dtype=object)
    if not is_given:
        chosen = _systematic(len(order), settings.test_fraction, rng)
        split[order[chosen]] = "test"
        order = order[~chosen]
    if fold is not None and num_folds is not None:
        if len(order) < num_folds:
            raise UserError(f"data.num_folds={num_folds} is more than the {len(order)} patients to divide")
        in_val = (np.arange(len(order)) + rng.integers(num_folds)) % num_folds == fold
    else:
        in_val = _systematic(len(order), settings.val_fraction / (1 - settings.test_fraction), rng)
    split[order[in_val]] = "val"

    result = np.full(len(table), "test", dtype=object)
    result[pool] = split[patient_of_row]
    return table.assign(split=pd.Series(result, index=table.index, dtype=table["filename"].dtype))


def check_splits(table: "pd.DataFrame", num_classes: int) -> None:
    """Assert that no patient is in two splits and that there is something to train and to validate on.

    A grade that training never sees is only warned about.

    Raises:
        UserError: Names the first patients that are in two splits, or the split that is empty or unknown.
    """
    if unknown := sorted(set(table["split"]) - set(SPLITS)):
        raise UserError(f"split {unknown[0]!r} is not one of {', '.join(SPLITS)}")
    places = table.loc[table["patient"].ne(""), ["patient", "split"]].drop_duplicates()
    divided = places.loc[places["patient"].duplicated(), "patient"].unique()
    if len(divided):
        named = [
            f"{patient!r} ({', '.join(sorted(places.loc[places['patient'].eq(patient), 'split']))})"
            for patient in divided[:SHOWN]
        ]
        more = f" and {len(divided) - SHOWN:,} more" if len(divided) > SHOWN else ""
        raise UserError(f"{len(divided):,} patients are in more than one split: {', '.join(named)}{more}")
    for split in ("train", "val"):
        if not table["split"].eq(split).any():
            raise UserError(
                f"the {split} split is empty: of {len(table)} films none is left for it; "
                "check the split column, or data.val_fraction and data.test_fraction"
            )
    unseen = sorted(set(range(num_classes)) - set(table.loc[table["split"].eq("train"), "label"]))
    if unseen:
        _log.warning("training has no film of grade %s", ", ".join(map(str, unseen)))


def _check_fractions(settings: DataSettings) -> None:
    val, test = settings.val_fraction, settings.test_fraction
    if settings.fold is not None:
        return
    if val == 0:
        raise UserError("data.val_fraction=0 leaves nothing to validate on")
    if val + test >= 1:
        raise UserError(f"data.val_fraction={val} and data.test_fraction={test} leave nothing to train on")


def _graded_patients(
    films: "pd.DataFrame", rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return each film's patient as a number, and all patients in random order within their grades."""
    import pandas as pd

    own = "\0" + films["filename"]  # no id of a CSV file holds a NUL
    patient_of_row, names = pd.factorize(films["patient"].where(films["patient"].ne(""), own), sort=True)
    grades = films["label"].groupby(patient_of_row).agg(["max", "min", "size"]).to_numpy()
    shuffled = rng.permutation(len(names))
    highest, lowest, count = grades[shuffled].T
    return patient_of_row, shuffled[np.lexsort((count, lowest, highest))]  # lexsort is stable: ties stay shuffled


def _systematic(count: int, fraction: float, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Choose every 1/fraction-th of `count` from a random start."""
    steps: npt.NDArray[np.float64] = np.floor(rng.uniform() + fraction * np.arange(count + 1))
    return steps[1:] > steps[:-1]
