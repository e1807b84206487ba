"""Whose knees those of a film are, and which of them are not to be graded."""

from collections.abc import Sequence
from typing import NamedTuple

from legradnet.data.sides import Side
from legradnet.localise.knees import MOST_OUTSIDE, SURE, Box, FoundKnee

BY_CONVENTION = "R or L by the convention that the patient's right is on the film's left"
NO_KNEE = "no knee seen from the front was found"
UNSURE = "perhaps no knee, or one seen from the side"
CUT_OFF = "the knee is cut off by the film's edge"
_WORDS = {"R": "right", "L": "left"}
_HALF = 0.08  # share of the width around the middle of a film in which a lone knee may be of either side
_WIDE = 0.8  # width by height from which a film is one of both legs


class FilmKnee(NamedTuple):
    """A knee of a whole film.

    Attributes:
        side: R or L of the patient; "" where nobody knows.
        box: Its square.
        score: How sure it is, 0-1.
        left_out: Why it is not to be graded; "" if it is.
        remarks: How its side is known.
    """

    side: Side
    box: Box
    score: float
    left_out: str
    remarks: tuple[str, ...]


def film_knees(found: Sequence[FoundKnee], shape: tuple[int, ...], side: Side) -> list[FilmKnee]:
    """The patient's knees, the right one first, of what was `found` in a film [H, W], and was told of its `side`."""
    return [
        FilmKnee(whose, knee.box, knee.score, _left_out(knee, shape), remarks)
        for knee, (whose, remarks) in zip(found, _sides(found, shape, side), strict=True)
    ]


def none_of(found: Sequence[FoundKnee], asked: Side) -> str:
    """Why there is nothing of a film, where one side's knee may be `asked` for and others may be found."""
    return f"no {_WORDS[asked]} knee was found" if found and asked else NO_KNEE


def _left_out(knee: FoundKnee, shape: tuple[int, ...]) -> str:
    if knee.box.outside(shape) > MOST_OUTSIDE:
        return CUT_OFF
    return UNSURE if knee.score < SURE else ""


def _sides(found: Sequence[FoundKnee], shape: tuple[int, ...], side: Side) -> list[tuple[Side, tuple[str, ...]]]:
    if not found:
        return []
    if len(found) == 2:
        told = (f"two knees, though {side} alone is told",) if side else ()
        return [("R", (*told, BY_CONVENTION)), ("L", (*told, BY_CONVENTION))]
    height, width = shape
    off = found[0].x / width - 0.5
    if side or width < _WIDE * height or abs(off) < _HALF:
        return [(side, ())]
    return [("R" if off < 0 else "L", (BY_CONVENTION,))]
