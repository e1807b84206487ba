"""Saliency maps of an ensemble: one for each backbone, and how much that backbone counts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from legradnet.backbones import Backbone
from legradnet.ensemble import KneeEnsemble
from legradnet.errors import UserError
from legradnet.explain.cam import CAMS
from legradnet.explain.features import token, token_and_place, undisturbed, as_grid
from legradnet.explain.pixels import PIXEL_METHODS, Score
from legradnet.explain.rollout import attention_rollout
from legradnet.losses import GradingLoss

METHODS = (*CAMS, *PIXEL_METHODS, "attention_rollout")
Target = Literal["predicted", "expected"] | int


@dataclass(frozen=True)
class Explanation:
    """Why B films got their grades from N backbones; all float32 and on the CPU.

    Args:
        native: {backbone: map [B, h, w]} at the network's own grid, or at its input's side for integrated gradients
            and occlusion. It covers the whole film, stretched to a square. Positive speaks for the target, negative
            against; eigencam and attention_rollout know no target and are at least 0.
        effect: [B, N], how much the score changes, up or down, when a backbone's token is replaced by zeros, the
            centre of the layer norm that makes tokens.
        score: [B], what is explained: log-probability of a grade, or the expected grade.
        grades: [B], the grade that the loss derives from `probabilities`; int64.
        probabilities: [B, K], not calibrated.
        gate_weights: [B, N], or None under concat.
    """

    native: dict[str, Tensor]
    effect: Tensor
    score: Tensor
    grades: Tensor
    probabilities: Tensor
    gate_weights: Tensor | None


def explain(
    ensemble: KneeEnsemble,
    loss: GradingLoss,
    films: Tensor,
    *,
    method: str = "gradcam",
    target: Target = "predicted",
) -> Explanation:
    """Explain `films` [B, 1, H, W], uint8 or float in 0-1, of any height and width.

    A film's maps don't depend on the films beside it, and the ensemble is left as it was found: modes, gradients,
    hooks. A map is of one backbone through the gate; integrated gradients and occlusion change the film for that
    backbone only.

    Args:
        ensemble: The network, on any device, in any mode, frozen backbones or not.
        loss: The loss it was trained with.
        films: What to explain.
        method: One of `METHODS`. attention_rollout leaves out backbones without attention between all patches.
        target: A grade, the grade that each film gets, or the expected grade, the sum of k * p_k.

    Raises:
        UserError: Unknown method or target, no place for a map in a backbone, or no backbone with attention.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    films = films.to(next(ensemble.parameters()).device)
    with undisturbed(ensemble):
        films = films.float() / 255 if films.dtype == torch.uint8 else films.clone()
        backbones = {key: cast(Backbone, module) for key, module in ensemble.backbones.items()}
        if method in CAMS:
            parts = [token_and_place(backbone, films) for backbone in backbones.values()]
            tokens, places = torch.stack([part[0] for part in parts], dim=1), [part[1] for part in parts]
        else:
            with torch.no_grad():
                tokens = torch.stack([token(backbone, films) for backbone in backbones.values()], dim=1)
        fused, gate_weights = ensemble.gate(tokens)
        probabilities = _probabilities(loss, ensemble.head(fused))
        grades = loss.grades(probabilities.detach())
        classes = _classes(target, grades, probabilities.shape[1])
        score = _score(probabilities, classes)

        maps: dict[str, Tensor] = {}
        if method in CAMS:
            for key, place, gradient in zip(backbones, places, torch.autograd.grad(score.sum(), places), strict=True):
                trunk = backbones[key].trunk
                maps[key] = CAMS[method](as_grid(trunk, place.detach()), as_grid(trunk, gradient))
        elif method in PIXEL_METHODS:
            for n, (key, backbone) in enumerate(backbones.items()):
                squares = _resize(films, backbone.image_size)
                maps[key] = torch.stack(
                    [
                        PIXEL_METHODS[method](_score_through(ensemble, loss, tokens[b], n, classes[b]), squares[b, None])
                        for b in range(len(films))
                    ]
                )
        else:
            rollouts = {key: attention_rollout(backbone, films) for key, backbone in backbones.items()}
            maps = {key: rollout for key, rollout in rollouts.items() if rollout is not None}
            if not maps:
                raise UserError(
                    f"method=attention_rollout needs a backbone whose patches all attend to each other (ViT, DeiT, "
                    f"BEiT); {', '.join(backbones)} "
                )
        effect = _effect(ensemble, loss, tokens.detach(), classes, score.detach())
    ...
