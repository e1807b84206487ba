"""What a trunk's stages see of a film on the way: the mean of every channel, which tells apart what grades do not.

And, learned by nobody, the film's texture: small trunks of generated knees see nothing new in real ones.

A stage is what timm's own list of features names, so that trunks of any family have some; the pooled features come
last. They are read off by hooks that keep nothing unless they are asked in their own thread.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble

_MOST = 5  # stages of a trunk, spread over its depth, the last among them


_COARSENESSES = 5  # at which a texture is measured, each half of the one before
_LEAST_SIDE = 6  # pixels that the coarsest must have
_LEAST_CHANGE = 1e-3  # between pixels, where white is 1: below, textures are told apart no longer


class StageMeans:
    """Reads the stages of all trunks of `ensemble` while they run.

    Args:
        ensemble: Whose trunks are read.
        film_side: Pixels a side of the films whose texture is read too; 0: it is not.

    Attributes:
        trunks: How many channels each trunk has, in the order of the gate's weights.
    """

    def __init__(self, ensemble: KneeEnsemble, film_side: int = 0) -> None:
        self._seen = local()
        self._film_side = film_side
        self.trunks: list[int] = []
        self._places = 0
        for module in ensemble.backbones.values():
            trunk = cast(Backbone, module).trunk
            stages = [*stages_of(trunk), (trunk, cast(Backbone, module).width)]
            for stage, _ in stages:
                stage.register_forward_hook(self._hook(self._places, getattr(trunk, "output_fmt", "NCHW")))
                self._places += 1
            self.trunks.append(sum(channels for _, channels in stages))

    @property
    def width(self) -> int:
        """Channels W of all stages of all trunks, and of the texture."""
        return sum(self.trunks) + texture_channels(self._film_side)

    def _hook(self, place: int, layout: str) -> Any:
        seen = self._seen  # a twin of the network has the same hooks, and is not asked

        def read(_: nn.Module, __: Any, output: Tensor) -> None:
            if (means := getattr(seen, "means", None)) is not None:
                means[place] = channel_means(output, layout)

        return read

    @contextmanager
    def read(self, films: Tensor) -> Iterator[dict[int, Tensor]]:
        """Collect what is seen of `films` [B, 1, S, S] that this thread runs inside, for `joined`."""
        means: dict[int, Tensor] = {}
        if self._film_side:
            means[self._places] = texture_of(films)
        self._seen.means = means
        try:
            yield means
        finally:
            self._seen.means = None

    def joined(self, means: dict[int, Tensor]) -> Tensor:
        """What was collected, float32 [B, W]: trunk by trunk in the order of the gate's weights, shallow to deep."""
        return torch.cat([means[place] for place in range(self._places + bool(self._film_side))], dim=1)


def stages_of(trunk: Any) -> list[tuple[nn.Module, int]]:
    """Modules and channels of at most five stages of a trunk; none where timm lists none."""
    listed = getattr(trunk, "feature_info", None) or []
    modules = dict(trunk.named_modules())
    known = [(modules[info["module"]], int(info["num_chs"])) for info in listed if info["module"] in modules]
    chosen = np.unique(np.linspace(0, len(known) - 1, min(_MOST, len(known))).round().astype(int))
    return [known[place] for place in chosen.tolist()]


def texture_channels(side: int) -> int:
    """How many channels the texture of films of that side has."""
    return 3 * sum(side >> halved >= _LEAST_SIDE for halved in range(_COARSENESSES))


def texture_of(films: Tensor) -> Tensor:
    """How much neighbouring pixels differ, from fine to coarse, float32 [B, T]: along rows, columns, and as a spot.

    Args:
        films: [B, 1, S, S], uint8 or shades from 0 to 1.
    """
    shades = (films.float() / 255 if films.dtype == torch.uint8 else films.float())[:, 0]
    changes = []
    for _ in range(texture_channels(films.shape[-1]) // 3):
        spots = 4 * shades[:, 1:-1, 1:-1]
        spots = spots - shades[:, 2:, 1:-1] - shades[:, :-2, 1:-1] - shades[:, 1:-1, 2:] - shades[:, 1:-1, :-2]
        changes += [shades[:, :, 1:] - shades[:, :, :-1], shades[:, 1:] - shades[:, :-1], spots]
        even = shades.shape[-1] // 2 * 2
        rows = (shades[:, 0:even:2, :even] + shades[:, 1:even:2, :even]) / 2
        shades = (rows[:, :, 0::2] + rows[:, :, 1::2]) / 2
    return torch.stack([(change.abs().mean(dim=(1, 2)) + _LEAST_CHANGE).log() for change in changes], dim=1)


def channel_means(activations: Tensor, layout: str) -> Tensor:
    """Mean of each channel [B, C], float32.

    Args:
        activations: Maps [B, C, H, W], or [B, H, W, C] where `layout` is NHWC, or tokens [B, T, C], or [B, C] already.
        layout: NCHW or NHWC.
    """
    if activations.ndim == 2:
        return activations.float()
    places = (1,) if activations.ndim == 3 else (1, 2) if layout == "NHWC" else (2, 3)
    return activations.mean(dim=places, dtype=torch.float32)
