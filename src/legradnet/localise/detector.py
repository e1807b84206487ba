"""The small network that knows a knee when it sees one: its weights, and how it looks at a picture, without torch.

It sees windows of `WINDOW` pixels, which a knee that is cut close fills, four pixels apart, and says of each how likely
a knee is there, and where its middle and how large its square are. `learn.py` made the weights.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.ndimage import uniform_filter

from legradnet.localise.layers import Maps, answers, shipped

WINDOW = 40  # pixels: side of a knee that is cut close, where the network is sure of it
STRIDE = 4  # pixels between two windows
MARGIN = WINDOW // 2  # pixels around a picture that are looked at too: a knee may be cut by the film's edge
LAYERS = ((5, 2), (3, 2), (3, 1), (3, 1), (5, 1), (1, 1))  # side and stride of each convolution
_LEAST_CONTRAST = 1.5  # grays


class Seen(NamedTuple):
    """What the network says of a picture's windows, each [h, w].

    Attributes:
        logit: How likely a knee fills the window; 0 is as likely as not.
        x: Middle of that knee's square, pixels of the picture.
        y: Same downwards.
        side: Of the square, pixels.
    """

    logit: Maps
    x: Maps
    y: Maps
    side: Maps


def see(picture: npt.NDArray[Any]) -> Seen:
    """Look at a picture [H, W] whose knees, if there are any, are about `WINDOW` pixels large."""
    layers = shipped("detector.safetensors", tuple(stride for _, stride in LAYERS))
    return located(answers(layers, evened(picture)))


def located(maps: Maps) -> Seen:
    """Give what the last layer [4, h, w] says in pixels of the picture."""
    rows, columns = np.mgrid[0 : maps.shape[1], 0 : maps.shape[2]].astype(np.float32)
    return Seen(
        logit=maps[0],
        x=centre_of(columns) + WINDOW * maps[1],
        y=centre_of(rows) + WINDOW * maps[2],
        side=WINDOW * np.exp(np.clip(maps[3], -1, 1)),
    )


def centre_of(number: Any) -> Any:
    """Pixel of the picture in the middle of its window of this number, along either side."""
    return STRIDE * number + (FIELD - 1) / 2 - MARGIN + 0.5


def evened(picture: npt.NDArray[Any]) -> Maps:
    """`picture` [H, W] without its exposure: each pixel against mean and contrast around it; 0 in a margin around."""
    values = np.pad(np.asarray(picture, np.float32), MARGIN)
    there = np.pad(np.ones(picture.shape, np.float32), MARGIN)
    share = np.maximum(uniform_filter(there, WINDOW + 1, mode="constant"), 1e-3)
    mean = uniform_filter(values, WINDOW + 1, mode="constant") / share
    squares = uniform_filter(values * values, WINDOW + 1, mode="constant") / share
    contrast = np.sqrt(np.maximum(squares - mean * mean, 0)) + _LEAST_CONTRAST
    return np.asarray(there * (values - mean) / contrast, np.float32)


def _field() -> int:
    field, step = 1, 1
    for side, stride in LAYERS:
        field += (side - 1) * step
        step *= stride
    return field


FIELD = _field()  # pixels a side that one answer depends on
