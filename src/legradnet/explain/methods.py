"""Saliency maps of an ensemble: one for each backbone, and how much that backbone counts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from legradnet.errors import UserError
from legradnet.explain.cam import eigencam, gradcam, gradcam_plus_plus, hirescam
from legradnet.explain.features import as_grid, token, token_and_place, undisturbed
from legradnet.explain.pixels import Score, integrated_gradients, occlusion
from legradnet.explain.rollout import attention_rollout
from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import GradingLoss

Target = Literal["predicted", "expected"] | int | Sequence[int]


@dataclass(frozen=True)
class Method:
    """A way to a map.

    Attributes:
        reads: What it makes a map of, and so what it is called with: "activations" of B films and the score's gradients
            with respect to them, both [B, C, h, w], to [B, h, w]; "pixels": a `Score` and one film [1, 1, S, S], to
            [S, S]; "attention": a `Backbone` and films [B, 1, H, W], to [B, h, w], or None where it has none.
        map: The function.
        slow: Whether it takes hundreds of the network's answers a film.
    """

    reads: Literal["activations", "pixels", "attention"]
    map: Callable[..., Tensor | None]
    slow: bool = False


METHODS = {
    "gradcam": Method("activations", gradcam),
    "gradcam++": Method("activations", gradcam_plus_plus),
    "hirescam": Method("activations", hirescam),
    "eigencam": Method("activations", eigencam),
    "integrated_gradients": Method("pixels", integrated_gradients),
    "occlusion": Method("pixels", occlusion, slow=True),
    "attention_rollout": Method("attention", attention_rollout),
}


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
    ensemble: KneeEnsemble, loss: GradingLoss, films: Tensor, *, method: str = "gradcam", target: Target = "predicted"
) -> Explanation:
    """Explain `films` [B, 1, H, W], uint8 or float in 0-1, of any height and width.

    A film's maps don't depend on the films beside it, and the ensemble is never touched: it may grade, train or be
    explained in other threads meanwhile. A map is of one backbone through the gate; integrated gradients and occlusion
    change the film for that backbone only.

    Args:
        ensemble: The network, on any device, in any mode, frozen backbones or not.
        loss: The loss it was trained with.
        films: What to explain.
        method: One of `METHODS`. attention_rollout leaves out backbones without attention between all patches.
        target: A grade, one for each film, the grade that each film gets, or the expected grade, the sum of k * p_k.

    Raises:
        UserError: Unknown method or target, no place for a map in a backbone, or no backbone with attention.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r} is unknown; choose one of {', '.join(METHODS)}.")
    reads, map_of = METHODS[method].reads, METHODS[method].map
    films = films.to(next(ensemble.parameters()).device)
    with undisturbed(ensemble) as ensemble:
        films = films.float() / 255 if films.dtype == torch.uint8 else films.clone()
        backbones = {key: cast(Backbone, module) for key, module in ensemble.backbones.items()}
        places: list[Tensor] = []
        if reads == "activations":
            embedded = [token_and_place(backbone, films) for backbone in backbones.values()]
            tokens, places = torch.stack([own for own, _ in embedded], dim=1), [place for _, place in embedded]
        else:
            with torch.no_grad():
                tokens = torch.stack([token(backbone, films) for backbone in backbones.values()], dim=1)
        probabilities, gate_weights = answer(ensemble, loss, tokens)
        grades = loss.grades(probabilities.detach())
        asked = asked_grades(target, grades, probabilities.shape[1])
        score = _score(probabilities, asked)

        maps: dict[str, Tensor | None]
        if reads == "activations":
            gradients = torch.autograd.grad(score.sum(), places)
            maps = {
                key: map_of(as_grid(backbone.trunk, place.detach()), as_grid(backbone.trunk, gradient))
                for (key, backbone), place, gradient in zip(backbones.items(), places, gradients, strict=True)
            }
        elif reads == "pixels":
            maps = {
                key: _pixel_maps(ensemble, loss, films, tokens, asked, index, map_of)
                for index, key in enumerate(backbones)
            }
        else:
            maps = {key: map_of(backbone, films) for key, backbone in backbones.items()}
        native = {key: _plain(values) for key, values in maps.items() if values is not None}
        if not native:
            named = ", ".join(f"{key} ({backbone.settings.timm_name})" for key, backbone in backbones.items())
            raise UserError(
                f"method={method} needs a backbone whose patches all attend to each other (vit, deit, beit). "
                f"CNNs have no attention and Swin's stays within windows: {named}."
            )
        effect = _effect(ensemble, loss, tokens.detach(), asked, score.detach())
    return Explanation(
        native=native,
        effect=_plain(effect),
        score=_plain(score),
        grades=grades,
        probabilities=_plain(probabilities),
        gate_weights=None if gate_weights is None else _plain(gate_weights),
    )


def _plain(values: Tensor) -> Tensor:
    return values.detach().float().cpu()


def answer(ensemble: KneeEnsemble, loss: GradingLoss, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """Probabilities [B, K] and gate weights of `tokens` [B, N, D].

    Double precision keeps the logarithm of an unlikely grade finite; it is had on the CPU, as not every device has it.
    """
    fused, gate_weights = ensemble.gate(tokens)
    return loss.probabilities(ensemble.head(fused).cpu().double()), gate_weights


def asked_grades(target: Target, grades: Tensor, num_classes: int) -> Tensor | None:
    """The grade [B] to explain for each film of `grades` [B]; None for the expected grade.

    Raises:
        UserError: Another target.
    """
    if target == "predicted":
        return grades
    if target == "expected":
        return None
    asked: Sequence[Any] = (
        target if isinstance(target, Sequence) and not isinstance(target, str) else [target] * len(grades)
    )
    whole = all(isinstance(grade, int) and not isinstance(grade, bool) for grade in asked)
    if len(asked) != len(grades) or not whole or not all(0 <= grade < num_classes for grade in asked):
        raise UserError(f"target={target!r}: choose predicted, expected, or a grade from 0 to {num_classes - 1}.")
    return torch.tensor(asked, device=grades.device)


def _score(probabilities: Tensor, asked: Tensor | None) -> Tensor:
    """Log-probability of the grade asked for, or the expected grade: [B]."""
    if asked is None:
        return probabilities @ torch.arange(probabilities.shape[1], dtype=probabilities.dtype)
    chosen = probabilities.gather(1, asked[:, None]).squeeze(1)
    return chosen.clamp(min=torch.finfo(chosen.dtype).tiny).log()


def _effect(ensemble: KneeEnsemble, loss: GradingLoss, tokens: Tensor, asked: Tensor | None, score: Tensor) -> Tensor:
    """Change of the score [B, N] when each of `tokens` [B, N, D] is zero."""
    films, count = tokens.shape[:2]
    others = 1 - torch.eye(count, device=tokens.device, dtype=tokens.dtype)
    without = (tokens[:, None] * others[..., None]).flatten(0, 1)  # [B * N, N, D]
    with torch.no_grad():
        probabilities, _ = answer(ensemble, loss, without)
        scores = _score(probabilities, None if asked is None else asked.repeat_interleave(count))
    return (score[:, None] - scores.view(films, count)).abs()


def _pixel_maps(
    ensemble: KneeEnsemble,
    loss: GradingLoss,
    films: Tensor,
    tokens: Tensor,
    asked: Tensor | None,
    index: int,
    map_of: Callable[..., Tensor | None],
) -> Tensor:
    """Maps [B, S, S] of the backbone at `index`; the other backbones keep their `tokens` [B, N, D]."""
    image_size = _backbone(ensemble, index).image_size
    side = (image_size, image_size)
    squares = F.interpolate(films, side, mode="bilinear", antialias=True, align_corners=False)  # as `prepare` does

    def score_of(film: int) -> Score:
        def score(changed: Tensor) -> Tensor:
            probabilities = seen_by_one(ensemble, loss, tokens[film], index, changed)
            grade = None if asked is None else asked[film].repeat(len(changed))
            return _score(probabilities, grade).to(changed)

        return score

    return torch.stack([cast(Tensor, map_of(score_of(film), squares[film, None])) for film in range(len(films))])


def seen_by_one(ensemble: KneeEnsemble, loss: GradingLoss, tokens: Tensor, index: int, films: Tensor) -> Tensor:
    """Probabilities [n, K] if the backbone at `index` sees `films` [n, 1, H, W] and the others keep `tokens` [N, D]."""
    mixed = tokens.repeat(len(films), 1, 1)
    mixed[:, index] = token(_backbone(ensemble, index), films)
    return answer(ensemble, loss, mixed)[0]


def _backbone(ensemble: KneeEnsemble, index: int) -> Backbone:
    return cast(Backbone, list(ensemble.backbones.values())[index])
