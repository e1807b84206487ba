"""Methods of learning without grades: two views that should be alike, or what was hidden of one.

A method is a module beside the trunk, which holds what is thrown away in the end. Called with the trunk's `Backbone`
and augmented films, float [B, 2, S, S] in 0-1, it gives the loss of a batch.
"""

import copy
import math
from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.network.backbones import Backbone, resize
from legradnet.pretraining.losses import ProjectorSettings, SimMIMSettings


class Method(Protocol):
    """What a method is to `PretrainingModule`."""

    def __call__(self, backbone: Backbone, films: Tensor) -> Tensor:
        """Loss of augmented films, float [B, 2, S, S] in 0-1."""
        ...

    def start(self, backbone: Backbone) -> None:
        """Called once in a run, when the trunk has the weights that it starts from."""
        ...

    def follow(self, backbone: Backbone, progress: float) -> None:
        """Called behind each step; `progress` through the run is 0-1."""
        ...


class TwoViews(nn.Module):
    """A trunk, a projector, and a loss of two views' embeddings, as VICReg and SimCLR have it.

    Args:
        backbone: Of the trunk.
        projector: Shape of the projector.
        loss: Of two views [B, D].
    """

    def __init__(self, backbone: Backbone, projector: ProjectorSettings, loss: nn.Module) -> None:
        super().__init__()
        self.projector = new_projector(backbone.width, projector)
        self.loss = loss

    def forward(self, backbone: Backbone, films: Tensor) -> Tensor:
        """Loss of a batch."""
        embeddings = self.projector(backbone.pool(_one_below_the_other(films)))
        return _in_float32(self.loss, *embeddings.chunk(2))

    def start(self, backbone: Backbone) -> None:
        """Nothing follows the trunk."""

    def follow(self, backbone: Backbone, progress: float) -> None:
        """Nothing follows the trunk."""


class BYOL(nn.Module):
    """Foretell of one view what a slower copy of trunk and projector says of the other (Grill et al. 2020).

    arXiv:2006.07733. The copy's weights are a moving average, whose momentum goes from `momentum` to 1 along a cosine.

    Args:
        backbone: Of the trunk.
        projector: Shape of the projector; the predictor is as wide.
        momentum: Of the average in the beginning.
    """

    def __init__(self, backbone: Backbone, projector: ProjectorSettings, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.projector = new_projector(backbone.width, projector)
        self.predictor = nn.Sequential(
            *(nn.Linear(projector.output, projector.width, bias=False), nn.BatchNorm1d(projector.width), nn.ReLU()),
            nn.Linear(projector.width, projector.output),
        )
        self.target = nn.ModuleList([copy.deepcopy(backbone), copy.deepcopy(self.projector)]).requires_grad_(False)

    def forward(self, backbone: Backbone, films: Tensor) -> Tensor:
        """Loss of a batch, 0-8."""
        films = _one_below_the_other(films)
        foretold = self.predictor(self.projector(backbone.pool(films)))
        slower, projector = self.target
        with torch.no_grad():
            wanted = projector(slower.pool(films))  # type: ignore[operator]  # a Backbone
        (first, second), (of_first, of_second) = foretold.chunk(2), wanted.chunk(2)
        return _in_float32(_distance, first, of_second) + _in_float32(_distance, second, of_first)

    def start(self, backbone: Backbone) -> None:
        """Take the weights that the trunk starts from."""
        self.target[0].load_state_dict(backbone.state_dict())

    @torch.no_grad()
    def follow(self, backbone: Backbone, progress: float) -> None:
        """Move a little towards what has been learned."""
        share = (1 - self.momentum) * (math.cos(math.pi * min(1.0, progress)) + 1) / 2
        for slower, ours in zip(self.target, (backbone, self.projector), strict=True):
            for average, current in zip(slower.parameters(), ours.parameters(), strict=True):
                average.lerp_(current.detach(), share)


class SimMIM(nn.Module):
    """Hide squares of a film and draw them again from what the trunk makes of the rest (Xie et al. 2022).

    arXiv:2111.09886, with its linear decoder and its loss, the mean distance of hidden pixels. Hidden squares are
    filled with a mean, here the film's, and not with a token, as Li et al. 2023 (arXiv:2205.13943) do for convolutions.

    Args:
        backbone: Of the trunk.
        settings: Of the squares.

    Raises:
        UserError: The trunk has no map of features, or one square would hide all of a film.
    """

    def __init__(self, backbone: Backbone, settings: SimMIMSettings) -> None:
        super().__init__()
        self.settings = settings
        training, side = backbone.training, backbone.image_size
        if settings.square >= side:
            raise UserError(f"simmim.square={settings.square} would hide whole films, of {side} pixels: take less.")
        features = _feature_map(backbone.eval().trunk, torch.zeros(1, 3, side, side))
        backbone.train(training)
        weights = [weight for weight in backbone.trunk.parameters() if weight.requires_grad]
        for weight, moved in zip(weights, torch.autograd.grad(features.sum(), weights, allow_unused=True), strict=True):
            weight.requires_grad_(moved is not None)  # ddp waits for what a step never reaches: norms behind the map
        self.cell = -(-side // features.shape[-1])  # pixels that a place of the map draws along each side
        self.decoder = nn.Conv2d(features.shape[1], self.cell**2, 1)

    def forward(self, backbone: Backbone, films: Tensor) -> Tensor:
        """Loss of a batch, of which each first film counts."""
        films = resize(films[:, :1], backbone.image_size)
        hidden = self._draw_squares(films)
        seen = torch.where(hidden, films.mean(dim=(1, 2, 3), keepdim=True), films)
        with backbone.autocast(films.device):
            drawn = F.pixel_shuffle(self.decoder(_feature_map(backbone.trunk, backbone.normalise(seen))), self.cell)
        drawn = resize(drawn.float(), backbone.image_size)
        wanted = backbone.normalise(films)[:, :1]
        return ((drawn - wanted).abs() * hidden).sum() / hidden.sum().clamp_min(1)

    def _draw_squares(self, films: Tensor) -> Tensor:
        """Which pixels are hidden, bool [B, 1, S, S]; the same share of squares in each film."""
        along = -(-films.shape[-1] // self.settings.square)
        count = min(max(1, round(self.settings.share * along**2)), along**2 - 1)
        order = torch.rand(len(films), along**2).argsort(dim=1)
        squares = (order < count).view(-1, 1, along, along).to(films.device)
        grown = squares.repeat_interleave(self.settings.square, 2).repeat_interleave(self.settings.square, 3)
        return grown[..., : films.shape[-2], : films.shape[-1]]

    def start(self, backbone: Backbone) -> None:
        """Nothing follows the trunk."""

    def follow(self, backbone: Backbone, progress: float) -> None:
        """Nothing follows the trunk."""


def new_projector(width: int, shape: ProjectorSettings) -> nn.Sequential:
    """Three layers from features [B, `width`] to embeddings [B, `shape.output`]."""
    return nn.Sequential(
        *(nn.Linear(width, shape.width, bias=False), nn.BatchNorm1d(shape.width), nn.ReLU()),
        *(nn.Linear(shape.width, shape.width, bias=False), nn.BatchNorm1d(shape.width), nn.ReLU()),
        nn.Linear(shape.width, shape.output, bias=False),
    )


def _one_below_the_other(films: Tensor) -> Tensor:
    """First and then second views: [B, 2, S, S] as [2 B, 1, S, S]."""
    return films.transpose(0, 1).flatten(0, 1)[:, None]


def _in_float32(loss: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> Tensor:
    with torch.autocast(first.device.type, enabled=False):
        return loss(first.float(), second.float())


def _distance(foretold: Tensor, wanted: Tensor) -> Tensor:
    """Mean squared distance of the directions of [B, D] and [B, D], 0-4."""
    return 2 - 2 * F.cosine_similarity(foretold, wanted).mean()


def _feature_map(trunk: Any, inputs: Tensor) -> Tensor:
    """What a network of timm's makes of `inputs`, before it pools: [B, C, h, w]."""
    features = trunk.forward_features(inputs)
    if isinstance(features, Tensor) and features.ndim == 3:  # tokens
        features = features[:, getattr(trunk, "num_prefix_tokens", 0) :]
        side = math.isqrt(features.shape[1])
        if side * side == features.shape[1]:
            return features.transpose(1, 2).reshape(len(features), -1, side, side)
    if isinstance(features, Tensor) and features.ndim == 4:
        return features.permute(0, 3, 1, 2) if getattr(trunk, "output_fmt", "NCHW") == "NHWC" else features
    name = trunk.pretrained_cfg["architecture"]
    raise UserError(f"method=simmim: {name} has no square map of features; take vicreg, simclr or byol.")
