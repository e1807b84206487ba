"""Maps on the film itself, at the side of a backbone's input: captum's methods, one film at a time to bound memory.

Both compare with a film of one gray, the film's own mean: against black, the dark joint space could never count.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]
"""Scores [n] of n films [n, 1, S, S] in 0-1."""

_STEPS = 32  # of the path integral: its sum is within a few percent of the score's difference
_WINDOWS_AT_ONCE = 32


def integrated_gradients(score: Score, film: Tensor) -> Tensor:
    """Path integral of the gradients from mean gray (Sundararajan et al. 2017, arXiv:1703.01365).

    `film` [1, 1, S, S] in 0-1 gives a signed map [S, S] that sums to score(film) - score(mean gray).
    """
    from captum.attr import IntegratedGradients  # a second to import

    method = IntegratedGradients(score, multiply_by_inputs=True)
    return method.attribute(film, baselines=_mean_gray(film), n_steps=_STEPS).detach()[0, 0]


@torch.no_grad()
def occlusion(score: Score, film: Tensor) -> Tensor:
    """How much the score falls under a mean-gray square (Zeiler and Fergus 2013, arXiv:1311.2901).

    The square is 1/8 of the side and moves by half of that: about 256 networks' answers a film. `film` [1, 1, S, S]
    in 0-1 gives a signed map [S, S], the mean over the squares that cover a pixel.
    """
    from captum.attr import Occlusion

    stride = max(film.shape[-1] // 16, 1)
    return Occlusion(score).attribute(
        film,
        sliding_window_shapes=(1, 2 * stride, 2 * stride),
        strides=(1, stride, stride),
        baselines=_mean_gray(film),
        perturbations_per_eval=_WINDOWS_AT_ONCE,
    )[0, 0]


def _mean_gray(film: Tensor) -> Tensor:
    return film.mean().expand_as(film)
