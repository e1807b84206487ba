"""Augmentation of a whole batch at once, on the batch's own device; for training only."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legradnet.errors import UserError

# The largest value of each setting that still makes sense, and its unit.
_LIMITS = {
    "rotation": (180.0, "degrees"),
    "shift": (0.5, "share of the film's side"),
    "scale": (0.5, "share"),
    "mirror": (1.0, "probability"),
    "exposure": (0.5, "share of full scale"),
    "contrast": (0.9, "share"),
    "gamma": (1.0, "logarithm of the exponent"),
    "noise": (0.5, "standard deviation, share of full scale"),
    "blur": (5.0, "sigma in pixels"),
    "cutout": (0.5, "share of the film's side"),
}


class Augmentation(nn.Module):
    """Change each film of a batch at random in ways that leave its grade alone.

    Every setting is the end of a uniform draw, made for each film by itself; 0 turns it off and leaves the
    others' draws as they were. The order is mirror, geometry, blur, gamma, contrast, exposure, noise, cut-out.

    All randomness comes from torch's global generator (and the noise from that of the batch's device), so
    `torch.manual_seed` before a batch fixes the result.

    Args:
        rotation: Largest turn about the centre, degrees either way.
        shift: Largest move along each axis, as a share of that side.
        scale: Largest change of size: 0.1 draws a factor from 0.9 to 1.1.
        mirror: Probability of exchanging left and right; exact, without interpolation.
        exposure: Largest gray added or taken away, as a share of full scale.
        contrast: Largest change of the distance to the film's mean gray: 0.2 draws a factor from 0.8 to 1.2.
        gamma: Largest logarithm of the exponent: 0.25 draws gray ** 0.78 to gray ** 1.28.
        noise: Largest standard deviation of white Gaussian noise, as a share of full scale.
        blur: Largest sigma of a Gaussian blur, in pixels.
        cutout: Largest height and width of a rectangle filled with the film's mean gray, as a share of the side.

    Raises:
        UserError: Settings out of range; all of them in one message.
    """

    def __init__(
        self,
        *,
        rotation: float = 0.0,
        shift: float = 0.0,
        scale: float = 0.0,
        mirror: float = 0.0,
        exposure: float = 0.0,
        contrast: float = 0.0,
        gamma: float = 0.0,
        noise: float = 0.0,
        blur: float = 0.0,
        cutout: float = 0.0,
    ) -> None:
        super().__init__()
        self.rotation = rotation
        self.shift = shift
        self.scale = scale
        self.mirror = mirror
        self.exposure = exposure
        self.contrast = contrast
        self.gamma = gamma
        self.noise = noise
        self.blur = blur
        self.cutout = cutout
        problems = [
            f"augment.{key} is {value!r}, but must be a number from 0 to {limit:g} ({unit})"
            for key, (limit, unit) in _LIMITS.items()
            if not _is_number_up_to(limit, value := getattr(self, key))
        ]
        if problems:
            raise UserError("\n".join(problems))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Turn `images` uint8 [B, 1, H, W] into new films, float32 [B, 1, H, W] in 0-1.

        What comes into view from outside a film is black, as the padding of `data.fit=pad` is.
        Always computed in float32, under autocast too: bfloat16 cannot tell neighbouring pixels apart.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 1:
            raise ValueError(f"expected uint8 images [B, 1, H, W], got {images.dtype} {list(images.shape)}")
        # Every number is drawn whether it is needed or not, so that a setting does not disturb the others' draws.
        signed = torch.rand(7, len(images)).mul_(2).sub_(1).to(images.device)
        share = torch.rand(7, len(images)).to(images.device)
        with torch.autocast(images.device.type, enabled=False):
            if self.mirror:
                images = torch.where(_per_film(share[0] < self.mirror), images.flip(-1), images)
            films = images.float().div_(255)
            if self.rotation or self.shift or self.scale:
                angle = signed[0] * math.radians(self.rotation)
                films = _move(films, angle, shift=signed[1:3] * self.shift, scale=1 + signed[3] * self.scale)
            if self.blur:
                films = _blur(films, sigma=share[1] * self.blur, radius=math.ceil(3 * self.blur))
            if self.gamma:
                # No convolution of any device may hand a negative rounding error to the power: that would be NaN.
                films.clamp_min_(0).pow_(_per_film(torch.exp(signed[4] * self.gamma)))
            if self.contrast:
                films = torch.lerp(_mean(films), films, _per_film(1 + signed[5] * self.contrast))
            if self.exposure:
                films.add_(_per_film(signed[6] * self.exposure))
            if self.noise:
                films.clamp_(0, 1)  # so that saturated parts are noisy too
                films.add_(torch.randn_like(films).mul_(_per_film(share[2] * self.noise)))
            if self.cutout:
                films = torch.where(_hole(films, share[3:5] * self.cutout, centre=share[5:7]), _mean(films), films)
            return films.clamp_(0, 1)


def _is_number_up_to(limit: float, value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= limit


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
