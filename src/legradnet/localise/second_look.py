"""A second look at what may be a knee, without torch: whether it is one, and exactly which square is cut of it.

Two networks look at a window of the film around a square and say how far off that square is. `CLOSER` finds its way
from far and knows what is no knee; it learned from composites (`composites.py`). `EXACT` learned from nothing but the
inside of crops, whose place and size are known to the pixel, and so knows nothing of seams; it needs a square that is
nearly right. `learn_second_look.py` makes such weights. That of a knee looked at from several squares is one and the
same; of other things each gives another.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter

from legradnet.data.film import Gray
from legradnet.localise.layers import Maps, answers, shipped

_WEIGHTS = "second_look.safetensors"
_LEAST_CONTRAST = 1.5  # grays
_AROUND = 1.5  # sides around a square's middle that may be looked at
_FURTHEST = 0.5  # sides, in one step
_BESIDE = [(1, 1, 1), (-1, 1, -1), (1, -1, -1), (-1, -1, 1)]  # where four squares lie around one: right, down, larger


class Square(NamedTuple):
    """A square, pixels: its middle and its side."""

    x: float
    y: float
    side: float


class SecondLook(NamedTuple):
    """What is seen.

    Attributes:
        square: Of the knee.
        logit: How likely it is one; 0 is as likely as not.
        spread: How far the squares are from each other that are found from several ones, share of a side.
    """

    square: Square
    logit: float
    spread: float


class Glance(NamedTuple):
    """How one of the networks looks.

    Attributes:
        name: Of its weights.
        width: Of its window, pixels.
        height: Same.
        span: Width of the window by the side of the square.
        even: Pixels around each by which it is evened.
        side: Of the square on the film that it learned from, pixels.
        kernels: Height, width and stride of each convolution.
    """

    name: str
    width: int
    height: int
    span: float
    even: int
    side: int
    kernels: tuple[tuple[int, int, int], ...]

    @property
    def strides(self) -> tuple[int, ...]:
        """Of its convolutions."""
        return tuple(stride for _, _, stride in self.kernels)


CLOSER = Glance("closer", 64, 64, 1.2, 33, 100, ((5, 5, 2), (3, 3, 2), (3, 3, 1), (3, 3, 2), (5, 5, 1), (1, 1, 1)))
EXACT = Glance("exact", 64, 48, 1.12, 25, 112, ((5, 5, 2), (3, 3, 2), (3, 3, 1), (3, 3, 2), (3, 5, 1), (1, 1, 1)))


def look_closer(gray: Gray, square: Square) -> SecondLook:
    """Find the way from a square that may be far off, and then once more from four around it, on a film [H, W]."""
    return _looked(gray, square, CLOSER, steps=3, off=0.06)


def look_exactly(gray: Gray, square: Square) -> Square:
    """The square as crops are cut, of a knee whose square is nearly right, on a film [H, W]."""
    return _looked(gray, square, EXACT, steps=2, off=0.03).square


def _looked(gray: Gray, square: Square, glance: Glance, steps: int, off: float) -> SecondLook:
    part = _Part(gray, square, glance)
    for _ in range(steps):
        square, _ = part.step(square)
    squares, logits = [], []
    for right, down, larger in _BESIDE:
        seen = Square(
            square.x + off * right * square.side, square.y + off * down * square.side, square.side * (1 + off * larger)
        )
        for _ in range(2):
            seen, logit = part.step(seen)
        squares.append((seen.x, seen.y, np.log(seen.side)))
        logits.append(logit)
    middle = np.median(squares, axis=0)
    side = float(np.exp(middle[2]))
    apart = (np.asarray(squares) - middle) / (side, side, 1)
    return SecondLook(
        Square(float(middle[0]), float(middle[1]), side), float(np.mean(logits)), float(np.sqrt(np.mean(apart**2)))
    )


def evened(windows: npt.NDArray[np.generic], even: int) -> Maps:
    """`windows` [N, H, W] without their exposure: each pixel against mean and contrast around it."""
    values = np.asarray(windows, np.float32)
    mean = uniform_filter(values, (0, even, even), mode="reflect")
    squares = uniform_filter(values * values, (0, even, even), mode="reflect")
    return np.asarray((values - mean) / (np.sqrt(np.maximum(squares - mean * mean, 0)) + _LEAST_CONTRAST), np.float32)


def window(film: Image.Image, square: Square, glance: Glance, turn: float = 0.0, is_mirrored: bool = False) -> Gray:
    """What is looked at [height, width] of a film around a square, turned by radians; black beyond its edge."""
    pixel = square.side * glance.span / glance.width
    cosine, sine = np.cos(turn) * pixel, np.sin(turn) * pixel
    way = -1 if is_mirrored else 1
    x, y = glance.width / 2, glance.height / 2
    matrix = (
        *(way * cosine, -sine, square.x - way * cosine * x + sine * y),
        *(way * sine, cosine, square.y - way * sine * x - cosine * y),
    )
    size = glance.width, glance.height
    return np.asarray(film.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


class _Part:
    """The part of a film [H, W] around a square, as large as a glance wants it."""

    def __init__(self, gray: Gray, square: Square, glance: Glance) -> None:
        around = _AROUND * square.side
        height, width = gray.shape
        left, top = (
            int(np.clip(middle - around, 0, side - 1)) for middle, side in ((square.x, width), (square.y, height))
        )
        right, bottom = (
            int(np.clip(middle + around, start + 1, side))
            for middle, start, side in ((square.x, left, width), (square.y, top, height))
        )
        self._glance, self._left, self._top = glance, left, top
        part = Image.fromarray(gray[top:bottom, left:right])
        scale = min(1.0, glance.side / square.side)
        size = max(1, round(part.width * scale)), max(1, round(part.height * scale))
        self._scale = size[0] / part.width, size[1] / part.height
        self._film = part.resize(size, Image.Resampling.BOX)
        self._layers = shipped(_WEIGHTS, glance.strides, f"{glance.name}.")

    def step(self, square: Square) -> tuple[Square, float]:
        """The square that is seen from one, and the logit (of `CLOSER`)."""
        there = Square(
            (square.x - self._left) * self._scale[0],
            (square.y - self._top) * self._scale[1],
            square.side * self._scale[0],
        )
        plain = window(self._film, there, self._glance)
        both = evened(np.stack([plain, plain[:, ::-1]]), self._glance.even)
        said, mirrored = (answers(self._layers, one)[:, 0, 0] for one in both)
        x, y, log_side = np.clip((said[:3] + mirrored[:3] * (-1, 1, 1)) / 2, -_FURTHEST, _FURTHEST).tolist()
        seen = Square(square.x + x * square.side, square.y + y * square.side, square.side * float(np.exp(log_side)))
        return seen, float(said[-1] + mirrored[-1]) / 2
