"""What a trunk's stages see of a film on the way: the mean of every channel, which tells apart what grades do not.

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


class StageMeans:
    """Reads the stages of all trunks of `ensemble` while they run.

    Attributes:
        trunks: How many channels each trunk has, in the order of the gate's weights.
    """

    def __init__(self, ensemble: KneeEnsemble) -> None:
        self._seen = local()
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
        """Channels W of all stages of all trunks."""
        return sum(self.trunks)

    def _hook(self, place: int, layout: str) -> Any:
        seen = self._seen  # a twin of the network has the same hooks, and is not asked

        def read(_: nn.Module, __: Any, output: Tensor) -> None:
            if (means := getattr(seen, "means", None)) is not None:
                means[place] = channel_means(output, layout)

        return read

    @contextmanager
    def read(self) -> Iterator[dict[int, Tensor]]:
        """Collect the means of what this thread runs inside, for `joined`."""
        means: dict[int, Tensor] = {}
        self._seen.means = means
        try:
            yield means
        finally:
            self._seen.means = None

    def joined(self, means: dict[int, Tensor]) -> Tensor:
        """What was collected, float32 [B, W]: trunk by trunk in the order of the gate's weights, shallow to deep."""
        return torch.cat([means[place] for place in range(self._places)], dim=1)


def stages_of(trunk: Any) -> list[tuple[nn.Module, int]]:
    """Modules and channels of at most five stages of a trunk; none where timm lists none."""
    listed = getattr(trunk, "feature_info", None) or []
    modules = dict(trunk.named_modules())
    known = [(modules[info["module"]], int(info["num_chs"])) for info in listed if info["module"] in modules]
    chosen = np.unique(np.linspace(0, len(known) - 1, min(_MOST, len(known))).round().astype(int))
    return [known[place] for place in chosen.tolist()]


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
