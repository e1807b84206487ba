"""What two views of a knee should have in common: self-supervised losses of two batches of embeddings.

Our own, as the library that has them all (lightly) brings a second Lightning along.
"""

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from legradnet.settings import Settings

_Weight = Annotated[float, Field(ge=0, le=1e6)]


class VICReg(nn.Module):
    """Invariance, variance and covariance (Bardes, Ponce and LeCun 2022, arXiv:2105.04906).

    Args:
        invariance: Weight of the squared distance of the two views.
        variance: Weight of how far each dimension's standard deviation is below 1.
        covariance: Weight of squared covariances between dimensions.
    """

    def __init__(self, invariance: float, variance: float, covariance: float) -> None:
        super().__init__()
        self.weights = invariance, variance, covariance

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views [B, D] of the same B films."""
        alike, spread, apart = self.weights
        return (
            alike * F.mse_loss(first, second)
            + spread * (_too_narrow(first) + _too_narrow(second)) / 2
            + apart * (_covariances(first) + _covariances(second))
        )


def _too_narrow(embeddings: Tensor) -> Tensor:
    return F.relu(1 - torch.sqrt(embeddings.var(dim=0) + 1e-4)).mean()


def _covariances(embeddings: Tensor) -> Tensor:
    centred = embeddings - embeddings.mean(dim=0)
    covariance = centred.T @ centred / (len(embeddings) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / embeddings.shape[1]


class SimCLR(nn.Module):
    """Normalised temperature-scaled cross-entropy (Chen et al. 2020, arXiv:2002.05709).

    Args:
        temperature: Cosines are divided by it.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Loss of two views [B, D] of the same B films: each is to be told from 2 B - 2 views of others."""
        views = F.normalize(torch.cat([first, second]), dim=1)
        cosines = views @ views.T / self.temperature
        cosines.fill_diagonal_(-torch.inf)
        partners = torch.arange(len(views), device=views.device).roll(len(first))
        return F.cross_entropy(cosines, partners)


class ProjectorSettings(Settings):
    """Config group `projector`: the network between trunk and loss, which is thrown away."""

    width: int = Field(default=1024, ge=2, le=65536, description="of its hidden layers; byol: of the predictor's too")
    output: int = Field(default=1024, ge=2, le=65536, description="of what the loss compares")


class VICRegSettings(Settings):
    """Config group `vicreg`."""

    invariance: _Weight = Field(default=25.0, description="weight of how unlike two views of a knee are")
    variance: _Weight = Field(default=25.0, description="weight of dimensions that say the same of all")
    covariance: _Weight = Field(default=1.0, description="weight of dimensions that say what others say")

    def build(self) -> VICReg:
        """The loss."""
        return VICReg(self.invariance, self.variance, self.covariance)


class SimCLRSettings(Settings):
    """Config group `simclr`."""

    temperature: float = Field(default=0.2, ge=0.001, le=10, description="lower looks more at near misses")

    def build(self) -> SimCLR:
        """The loss."""
        return SimCLR(self.temperature)


class BYOLSettings(Settings):
    """Config group `byol`."""

    momentum: float = Field(
        default=0.99, ge=0, le=1, description="of the slower copy in the beginning; grows to 1. Long runs: 0.996"
    )


class SimMIMSettings(Settings):
    """Config group `simmim`."""

    share: float = Field(default=0.6, gt=0, lt=1, description="of a film's squares that are hidden")
    square: int = Field(default=32, ge=2, le=4096, description="side of a hidden square, pixels of the network's input")
