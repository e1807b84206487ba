"""Augmentation of a whole batch at once, on the batch's own device; for training only."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from legradnet.settings import Settings


class AugmentSettings(Settings):
    """Config group `augment`: the end of a uniform draw each, made for each film by itself; 0 is off."""

    rotation: float = Field(default=7.0, ge=0, le=180, description="largest turn about the centre, degrees either way")
    shift: float = Field(default=0.05, ge=0, le=0.5, description="largest move along each axis, share of that side")
    scale: float = Field(
        default=0.1, ge=0, le=0.5, description="largest change of size, share: 0.1 draws a factor from 0.9 to 1.1"
    )
    mirror: float = Field(
        default=0.5, ge=0, le=1, description="probability of exchanging left and right; exact, without interpolation"
    )
    exposure: float = Field(
        default=0.05, ge=0, le=0.5, description="largest gray added or taken away, share of full scale"
    )
    contrast: float = Field(
        default=0.2, ge=0, le=0.9, description="largest change of the distance to the film's mean gray, share"
    )
    gamma: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="largest logarithm of the exponent: 0.25 draws gray ** 0.78 to gray ** 1.28",
    )
    noise: float = Field(
        default=0.02,
        ge=0,
        le=0.5,
        description="largest standard deviation of white Gaussian noise, share of full scale",
    )
    blur: float = Field(default=0.8, ge=0, le=5, description="largest sigma of a Gaussian blur, pixels")
    cutout: float = Field(
        default=0.2,
        ge=0,
        le=0.5,
        description="largest height and width of a rectangle filled with the film's mean gray, share of the side",
    )
    mixup: float = Field(
        default=0.0, ge=0, le=10, description="each film is mixed with another, by a share from Beta(mixup, mixup)"
    )

    @property
    def changes_nothing(self) -> bool:
        """Whether all is off."""
        return not any(self.model_dump().values())


def mixed(films: Tensor, mixup: float) -> tuple[Tensor, Tensor, float]:
    """Mix each film of a batch with another (Zhang et al. 2018, arXiv:1710.09412).

    Args:
        films: float [B, ...].
        mixup: Both parameters of the beta distribution that one share for the batch is drawn from.

    Returns:
        share * films + (1 - share) * films[partners], `partners` [B], and `share`, of each film itself.
    """
    share = float(torch.distributions.Beta(mixup, mixup).sample())
    partners = torch.randperm(len(films)).to(films.device)
    return torch.lerp(films[partners], films, share), partners, share


class Augmentation(nn.Module):
    """Change each film of a batch at random in ways that leave its grade alone.

    A setting that is 0 leaves the others' draws as they were. The order is mirror, geometry, blur, gamma, contrast,
    exposure, noise, cut-out.

    All randomness comes from torch's global generator (and the noise from that of the batch's device), so
    `torch.manual_seed` before a batch fixes the result.

    Args:
        settings: How much of each.
    """

    def __init__(self, settings: AugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn `images` uint8 [B, 1, H, W] into new films, float32 [B, 1, H, W] in 0-1.

        What comes into view from outside a film is black, as the padding of `data.fit=pad` is.
        Always computed in float32, under autocast too: bfloat16 cannot tell neighbouring pixels apart.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"expected uint8 images [B, 1, H, W], got {images.dtype} {list(images.shape)}")
        own = self.settings
        # Every number is drawn whether it is needed or not, so that a setting does not disturb the others' draws.
        signed = torch.rand(7, len(images)).mul_(2).sub_(1).to(images.device)
        share = torch.rand(7, len(images)).to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            if own.mirror:
                images = torch.where(_per_film(share[0] < own.mirror), images.flip(-1), images)
            films = images.float().div_(255)
            if own.rotation or own.shift or own.scale:
                angle = signed[0] * math.radians(own.rotation)
                films = _move(films, angle, shift=signed[1:3] * own.shift, scale=1 + signed[3] * own.scale)
            if own.blur:
                films = _blur(films, sigma=share[1] * own.blur, radius=math.ceil(3 * own.blur))
            if own.gamma:
                # No convolution of any device may hand a negative rounding error to the power: that would be NaN.
                films.clamp_min_(0).pow_(_per_film(torch.exp(signed[4] * own.gamma)))
            if own.contrast:
                films = torch.lerp(_mean(films), films, _per_film(1 + signed[5] * own.contrast))
            if own.exposure:
                films.add_(_per_film(signed[6] * own.exposure))
            if own.noise:
                films.clamp_(0, 1)  # so that saturated parts are noisy too
                films.add_(torch.randn_like(films).mul_(_per_film(share[2] * own.noise)))
            if own.cutout:
                films = torch.where(_hole(films, share[3:5] * own.cutout, centre=share[5:7]), _mean(films), films)
            return films.clamp_(0, 1)


def _per_film(values: Tensor) -> Tensor:
    return values.view(-1, 1, 1, 1)


def _mean(films: Tensor) -> Tensor:
    return films.mean(dim=(1, 2, 3), keepdim=True)


def _move(films: Tensor, angle: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Rotate, resize and then shift `films` in one bilinear resampling.

    Args:
        films: [B, 1, H, W].
        angle: [B], radians.
        shift: [2, B], along x and y, share of the width and of the height.
        scale: [B], factor.
    """
    height, width = films.shape[-2:]
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # Where each new pixel comes from, in grid_sample's units of half a side (so the sides' ratio enters), by
    # broadcasting: a quarter of affine_grid's time.
    x = _pixel_centres(width, films.device) - 2 * shift[0, :, None]
    y = _pixel_centres(height, films.device) - 2 * shift[1, :, None]
    sin_xy, sin_yx = (sin * height / width)[:, None], (sin * width / height)[:, None]
    of_x = torch.stack([cos[:, None] * x, sin_yx * x], dim=-1)
    of_y = torch.stack([-sin_xy * y, cos[:, None] * y], dim=-1)
    grid = of_x[:, None, :, :] + of_y[:, :, None, :]
    return F.grid_sample(films, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _pixel_centres(size: int, device: torch.device) -> Tensor:
    """Places of `size` pixels on a line that runs from -1 to 1: [1, size]."""
    return ((torch.arange(size, device=device) * 2 + 1) / size - 1)[None]


def _blur(films: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each film with its own Gaussian, `sigma` [B] in pixels; one group of the convolution a film."""
    taps = torch.arange(-radius, radius + 1, device=films.device)
    kernels = torch.softmax(-0.5 * (taps / sigma.clamp_min(1e-3)[:, None]) ** 2, dim=1)[:, None, None, :]
    padded = F.pad(films, [radius] * 4, mode="replicate").transpose(0, 1)
    rows = F.conv2d(padded, kernels, groups=len(films))
    return F.conv2d(rows, kernels.transpose(2, 3), groups=len(films)).transpose(0, 1)


def _hole(films: Tensor, size: Tensor, centre: Tensor) -> Tensor:
    """Mark the pixels of one rectangle a film: `size` and `centre` [2, B] as shares of height and width."""
    inside = [
        ((torch.arange(side, device=films.device) + 0.5) / side - centre[axis, :, None]).abs() < size[axis, :, None] / 2
        for axis, side in enumerate(films.shape[-2:])
    ]
    return inside[0][:, None, :, None] & inside[1][:, None, None, :]
