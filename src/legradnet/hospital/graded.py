"""A film with what was graded in it, and where the evidence lies: what reports and pictures are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Gray
from legradnet.data.sides import Side
from legradnet.grading.grading import Grading, NotGraded, Prepared

_WORDS: dict[Side, str] = {"R": "right knee", "L": "left knee", "": "knee, side unknown"}


class ReadKnee(NamedTuple):
    """A knee as it was prepared, and what it was graded."""

    prepared: Prepared | NotGraded
    grading: Grading | NotGraded


@dataclass(frozen=True)
class GradedFilm:
    """One film.

    Attributes:
        gray: The whole of it, uint8 [H, W].
        knees: What each of its knees was graded, or why it was not, the patient's right one first.
        sides: R or L of each, "" where nobody knows.
        evidence: [H, W], what speaks for each knee's grade, as a multiple of an even spread.
        method: How that was found.
    """

    gray: Gray
    knees: Sequence[Grading | NotGraded]
    sides: Sequence[Side]
    evidence: npt.NDArray[np.float32]
    method: str

    def side_of(self, knee: Grading | NotGraded) -> Side:
        """R or L of a knee."""
        return next(side for one, side in zip(self.knees, self.sides, strict=True) if one is knee)

    def name_of(self, knee: Grading | NotGraded) -> str:
        """What a knee is called."""
        return _WORDS[self.side_of(knee)]
