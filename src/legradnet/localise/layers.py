"""Convolutions without torch: what the small networks of this room are made of, and their weights."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

Maps = npt.NDArray[np.float32]


class Layer(NamedTuple):
    """A convolution without padding.

    Attributes:
        weights: [height * width * C, D].
        bias: [D].
        kernel: Its height and width.
        stride: Pixels between two answers, along either side.
    """

    weights: Maps
    bias: Maps
    kernel: tuple[int, int]
    stride: int


@cache
def shipped(file: str, strides: tuple[int, ...], prefix: str = "") -> tuple[Layer, ...]:
    """Load the layers that a weights file of this package has under `prefix`."""
    from safetensors.numpy import load

    return layers_of(load(files("legradnet.localise").joinpath(file).read_bytes()), strides, prefix)


def layers_of(tensors: Mapping[str, npt.NDArray[Any]], strides: Sequence[int], prefix: str = "") -> tuple[Layer, ...]:
    """Layers from torch's weights [D, C, height, width] and biases [D], named `0.weight`, `0.bias`, `1.weight` ..."""
    layers = []
    for number, stride in enumerate(strides):
        weight, bias = (tensors[f"{prefix}{number}.{kind}"].astype(np.float32) for kind in ("weight", "bias"))
        flat = np.ascontiguousarray(weight.transpose(2, 3, 1, 0)).reshape(-1, len(bias))
        layers.append(Layer(flat, bias, (weight.shape[2], weight.shape[3]), stride))
    return tuple(layers)


def answers(layers: Sequence[Layer], picture: Maps) -> Maps:
    """What a network says [D, h, w] of a picture [H, W]; all its layers but the last are rectified."""
    maps = np.ascontiguousarray(picture, np.float32).reshape(*picture.shape, 1)
    for layer in layers[:-1]:
        maps = _convolved(maps, layer)
        np.maximum(maps, 0, out=maps)
    return np.ascontiguousarray(_convolved(maps, layers[-1]).transpose(2, 0, 1))


def _convolved(maps: Maps, layer: Layer) -> Maps:
    """Maps [H, W, C] -> [h, w, D]: what a window sees of one row of pixels lies in one piece, and is soon copied."""
    rows, channels, (down, across), stride = maps.reshape(len(maps), -1), maps.shape[2], layer.kernel, layer.stride
    windows = sliding_window_view(rows, (down, across * channels))[::stride, :: stride * channels]
    height, width = windows.shape[:2]
    out = np.empty((height, width, layer.weights.shape[1]), np.float32)
    most = max(1, 2**20 // (width * len(layer.weights)))  # at a time: little memory, however large the picture
    for start in range(0, height, most):
        part = windows[start : start + most].reshape(-1, len(layer.weights))
        out[start : start + most] = (part @ layer.weights + layer.bias).reshape(-1, width, layer.weights.shape[1])
    return out
