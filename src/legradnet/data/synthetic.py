"""Made-up knee films whose grade shows in the anatomy alone: for trying LegRadNet without any patient's data."""

from collections.abc import Iterator
from itertools import count as numbers
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from legradnet.claims import filled_whole
from legradnet.data.drawn_knee import check_size, draw_traits, film_of_knee
from legradnet.data.sides import SIDES, Side
from legradnet.errors import UserError
from legradnet.files import write_text
from legradnet.tables import table_text

_TABLE = "knees.csv"


def _grades(num_classes: int, seed: int) -> Iterator[tuple[int, int]]:
    """Left and right grade of one patient after the other, for ever.

    Every `num_classes` patients hold each grade twice, and no patient's knees are more than one grade apart. The first
    `num_classes` knees hold each grade once, so that not even the smallest data set lacks one.
    """
    yield from [(low, min(low + 1, num_classes - 1)) for low in range(0, num_classes, 2)]
    yield from [(low + 1, low) for low in range(0, num_classes - 1, 2)]
    for block in numbers(1):
        rng = np.random.default_rng([seed, block, num_classes])
        pairs: list[tuple[int, int]] = []
        while (low := len(pairs)) < num_classes:
            unequal = low + 1 < num_classes and rng.random() < 0.4
            pairs += [(low, low + 1), (low + 1, low)] if unequal else [(low, low)]
        yield from (pairs[place] for place in rng.permutation(num_classes))


def synthesize(
    count: int, *, size: int = 224, num_classes: int = 5, seed: int = 0
) -> tuple[npt.NDArray[np.uint8], pd.DataFrame]:
    """`count` films, uint8 [count, size, size], and their table, one row a film in the same order.

    Two films a patient, left then right, whose grades are equal or one apart and who share build and exposure; grades
    are equally common. A smaller `count` gives the first films of a larger one.

    Args:
        count: Films, at least 1; from `num_classes` on every grade occurs.
        size: Pixels a side, at least 32.
        num_classes: Grades, at least 2, spread evenly over severity 0-4.
        seed: 0 or more; the same seed gives the same bytes.

    Returns:
        Films, and a table of `filename` ("S00001L.png"), `label` (0 to num_classes - 1), `patient` ("S00001") and
        `side` ("L" or "R").

    Raises:
        UserError: An argument is out of range.
    """
    for name, value, least in (("count", count, 1), ("num_classes", num_classes, 2), ("seed", seed, 0)):
        if value < least:
            raise UserError(f"{name} is at least {least}, not {value}.")
    check_size(size)
    films = np.empty((count, size, size), dtype=np.uint8)
    rows: list[tuple[str, int, str, Side]] = []
    for number, pair in enumerate(_grades(num_classes, seed)):
        if len(rows) == count:
            break
        rng = np.random.default_rng([seed, number])
        traits, patient = draw_traits(rng), f"S{number + 1:05d}"
        for side, grade in zip(SIDES, pair, strict=True):
            severity = 4 * (grade + rng.uniform(-0.3, 0.3)) / (num_classes - 1)
            if len(rows) < count:
                films[len(rows)] = film_of_knee(min(max(severity, 0), 4), side, traits, rng, size)
                rows.append((f"{patient}{side}.png", grade, patient, side))
    return films, pd.DataFrame(rows, columns=["filename", "label", "patient", "side"])


def write_knees(output: Path, count: int, *, size: int = 224, num_classes: int = 5, seed: int = 0) -> Path:
    """Write what `synthesize` makes into the folder `output`: a PNG a film, and their table.

    Returns:
        Path of the table, `knees.csv`.

    Raises:
        UserError: As `synthesize` does; there is something in the folder, or it can't be written.
    """
    films, table = synthesize(count, size=size, num_classes=num_classes, seed=seed)
    with filled_whole(output, last=_TABLE, durable=False) as folder:
        for film, filename in zip(films, table["filename"], strict=True):
            Image.fromarray(film).save(folder / filename)
        write_text(folder / _TABLE, table_text(table), shared=True)
    return output / _TABLE
