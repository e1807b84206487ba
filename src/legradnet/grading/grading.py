"""What goes into a `Grader` and what comes out of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from legradnet.data.film import Film, Gray, ImageError
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grades import Floats
from legradnet.localise.knees import Box

Source = str | Path | Image.Image | npt.NDArray[Any]

SOURCES = (str, Path, Image.Image, np.ndarray)
NO_SOURCE = "A film is a path, a PIL image or an array ([H, W] gray or [H, W, 3] colour), and films are a list of them"
_REQUESTS = "Request objects are taken, as Request(film) or Request(film, 'L')"
NO_CHECKPOINT = "A checkpoint is the path of best.ckpt or of an export's folder, and several are a list of them"


def listed(values: object, kinds: tuple[type, ...], words: str) -> list[Any]:
    """`values` as a list; UserError with what is accepted, `words`, if they are none, or one is not of `kinds`."""
    apart = (bytes, Mapping, *kinds)  # which are not gone through
    several = list(values) if isinstance(values, Iterable) and not isinstance(values, apart) else [values]
    if odd := next(([value] for value in several if not isinstance(value, kinds)), None):
        raise UserError(f"{words}; this is {type(odd[0]).__name__}.")
    return several


def check_count(name: str, count: object, least: int = 1) -> None:
    """Raise UserError if `count` is neither None nor a whole number of at least `least`."""
    if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < least):
        raise UserError(f"{name}={count!r} must be a whole number of at least {least}, or None.")


def sides_of(side: object, films: int) -> list[Any]:
    """A side for each of so many films from one for all, or one for each; UserError if it is neither."""
    several = (
        list(side)
        if isinstance(side, Iterable) and not isinstance(side, str)
        else ["" if side is None else side] * films
    )
    if len(several) != films or any(one not in ("L", "R", "") for one in several):
        raise UserError("side= is L or R, or a list with L, R or an empty string for each film.")
    return several


def check_request(request: object) -> None:
    """Raise UserError if this is no `Request` for a film and its side."""
    if not isinstance(request, Request):
        raise UserError(f"{_REQUESTS}; this is {type(request).__name__}.")
    if not isinstance(request.film, ImageError):
        listed([request.film], SOURCES, NO_SOURCE)
    for name in ("side", "knee"):
        if (side := getattr(request, name)) not in ("L", "R", ""):
            raise UserError(f"{name}={side!r} must be L, R or an empty string.")


def check_stream(requests: object, workers: object) -> None:
    """Raise UserError if these can't be requests, or this is no number of reading threads."""
    first = requests[0] if isinstance(requests, list | tuple) and requests else None
    if isinstance(requests, str | Request) or not isinstance(requests, Iterable):
        raise UserError(f"{_REQUESTS}, a list or another row of them; this is {type(requests).__name__}.")
    if first is not None:
        check_request(first)
    check_count("workers", workers, 0)


class Knee(NamedTuple):
    """Which knee of a whole film: the patient's R or L, "" where nobody knows; and its square, if it has one."""

    side: Side
    box: Box | None


@dataclass(frozen=True)
class NotGraded:
    """A knee of a whole film, or a film without one, and why it has no grade."""

    knee: Knee
    reason: str


@dataclass(frozen=True)
class Grading:
    """What the model says of one film; K grades.

    Attributes:
        grade: Kellgren-Lawrence grade, 0..K-1.
        probabilities: Calibrated probability of each grade [K], sum 1.
        expected_grade: Sum of k * p_k.
        prediction_set: Contiguous grades that hold the true one with the calibrated coverage; () without calibration.
        referred: Whether a reader should grade this film instead.
        reason: Why it is referred, and remarks (side unknown, first of many frames); "" if there are none.
        gate_weights: {backbone: weight}, sum 1; {} under `gating=concat`.
        raw: Uncalibrated probabilities [K], which the grade follows from.
        look: What is wrong with the film, its look or its file, the part of `reason` that refers it whatever its grade.
        logits: The network's outputs; None where several answers were averaged.
        remarks: The part of `reason` that refers no film.
        distance: How far the film lies from the training films; above 1, the limit, it is referred as unlike them. None
            without a network that has learned that.
        knee: Which knee of a whole film this is; None for a film that is one knee cut close.
        measures: Brightness and the like, as `measures_of` gives them.
    """

    grade: int
    probabilities: Floats
    expected_grade: float
    prediction_set: tuple[int, ...]
    referred: bool
    reason: str
    gate_weights: dict[str, float]
    raw: Floats
    look: str = ""
    logits: Floats | None = None
    remarks: tuple[str, ...] = ()
    distance: float | None = None
    knee: Knee | None = None
    measures: Mapping[str, float] = field(default_factory=dict)


class AnswerError(ImageError):
    """Numbers of a network that are not finite: no grade follows from them."""


Answer = TypeVar("Answer")


def readable(gradings: Iterable[Answer | ImageError]) -> list[Answer]:
    """All of a batch's gradings; the `ImageError` of a film that can't be read, or graded, is raised."""
    good = []
    for grading in gradings:
        if isinstance(grading, ImageError):
            raise grading
        good.append(grading)
    return good


class Request(NamedTuple):
    """A film to grade: a path, PIL image or array, or why there is none; its side ("" = look for it); a knee."""

    film: Source | ImageError
    side: Side = ""
    knee: Side = ""


class Prepared(NamedTuple):
    """A film as read, and as each network wants it: [S, S] once, or as it is and mirrored; why to refer it; remarks.

    Of a knee in a whole film `film` is its square; `knee` says where that lies, and `whole` is the film itself.
    """

    film: Film
    side: Side
    views: list[list[Gray]]
    refer: str
    remarks: list[str]
    knee: Knee | None = None
    whole: Film | None = None
    measures: Mapping[str, float] = MappingProxyType({})


def why_unsure(confidence: float, threshold: float) -> str:
    """Why a grade of this probability is referred."""
    if threshold > 1:
        return "unsure: no validation knees reached the wanted error rate"
    return f"unsure: probability {confidence:.2f} of its grade is below {threshold:.2f}"
