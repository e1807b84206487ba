"""Maps of a network laid back over the film they explain, all on one scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from legradnet.data.film import Fit, Gray, ImageError
from legradnet.errors import UserError
from legradnet.explain.methods import Explanation, Target, explain
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.grading import AnswerError, Grading, NotGraded, Prepared
from legradnet.grading.networks import GradingNetwork

Map = npt.NDArray[np.float32]

FUSED = "fused"


@dataclass(frozen=True)
class FilmExplanation:
    """Where the evidence for one film's grade lies.

    Attributes:
        grading: What the film was graded.
        film: The film, uint8 [H, W]; the whole of it, of a knee in a whole film.
        method: How the maps were made.
        target: What they explain.
        maps: {`fused` and each backbone: [H, W]}, evidence for the target as a multiple of an even spread: 3 is three
            times what every place would have if all were alike. All 0 where nothing speaks for the target, and in a
            whole film around the knee's square, which alone the even spread is of.
        native: {backbone: [h, w]}, signed, at the network's own grid, as the network saw the film.
        shares: {backbone: share of the fused map}, gate weight times effect on the score, sum 1 or all 0.
    """

    grading: Grading
    film: Gray
    method: str
    target: Target
    maps: dict[str, Map]
    native: dict[str, Map]
    shares: dict[str, float]


def explain_films(
    network: CheckpointNetwork,
    films: Sequence[Prepared],
    gradings: Sequence[Grading | ImageError],
    *,
    method: str = "gradcam",
    target: Target = "predicted",
) -> list[FilmExplanation | ImageError]:
    """Explain in one batch films that a `Grader` of this one `network` has prepared and graded.

    What could not be graded stays the error that it is; an `AnswerError` stands for maps that are not finite.

    Raises:
        UserError: Unknown method or target, or a backbone that is called as the map of all is.
    """
    if FUSED in network.backbones:
        raise UserError(f"The backbone {FUSED} can't be explained: so is called the map of all backbones together.")
    graded = [(film, grading) for film, grading in zip(films, gradings, strict=True) if isinstance(grading, Grading)]
    explained = iter(_explained(network, graded, method, target) if graded else [])
    return [grading if isinstance(grading, ImageError) else next(explained) for grading in gradings]


def explain_one(
    network: CheckpointNetwork,
    film: Prepared | NotGraded | ImageError,
    grade: Callable[[list[Prepared]], Sequence[Grading | ImageError]],
    *,
    method: str,
    target: Target,
) -> FilmExplanation:
    """Explain one film that a `Grader` has prepared, and grades by `grade`.

    Raises:
        ImageError: It can't be read or has no grade, or what is answered is not finite.
        UserError: As `explain_films`.
    """
    if isinstance(film, NotGraded):
        raise ImageError(f"not explained: {film.reason}")
    if isinstance(film, ImageError):
        raise film
    (explained,) = explain_films(network, [film], grade([film]), method=method, target=target)
    if isinstance(explained, ImageError):
        raise explained
    return explained


def _explained(
    network: CheckpointNetwork, graded: Sequence[tuple[Prepared, Grading]], method: str, target: Target
) -> list[FilmExplanation | ImageError]:
    seen = torch.from_numpy(np.stack([film.views[0][0] for film, _ in graded])[:, None])
    with network.autocast():
        explanation = explain(network.ensemble, network.loss, seen, method=method, target=target)
    explained: list[FilmExplanation | ImageError] = []
    for i, (film, grading) in enumerate(graded):
        maps, shares = laid_maps(network, film, explanation, i)
        if not all(np.isfinite(evidence).all() for evidence in maps.values()):
            explained.append(AnswerError(f"not explained: {method} of {network.path} is not finite"))
            continue
        explained.append(
            FilmExplanation(
                grading=grading,
                film=(film.whole or film.film).gray,
                method=method,
                target=target,
                maps={key: on_whole_film(evidence, film) for key, evidence in maps.items()},
                native={key: native[i].numpy() for key, native in explanation.native.items()},
                shares=shares,
            )
        )
    return explained


def only_checkpoint(networks: Sequence[GradingNetwork]) -> CheckpointNetwork:
    """The one network that a grader has.

    Raises:
        UserError: There are several, or it is an export.
    """
    if len(networks) > 1:
        raise UserError("Only one network can be looked into: explain one checkpoint at a time.")
    (network,) = networks
    if not isinstance(network, CheckpointNetwork):
        raise UserError(f"{network.path} is an export, which has no gradients: explain its checkpoint.")
    return network


def laid_maps(
    network: CheckpointNetwork, film: Prepared, explanation: Explanation, i: int
) -> tuple[dict[str, Map], dict[str, float]]:
    """{`fused` and each backbone: map [H, W]} of film `i` of an explanation, and each backbone's share of the first."""
    mirrored = network.mirror_left and film.side == "L"
    laid = {
        key: spread(over_film(native[i], film.film.gray.shape, network.fit, mirrored))
        for key, native in explanation.native.items()
    }
    fused, shares = fused_map(explanation, i, network.backbones, laid)
    return {FUSED: fused, **laid}, shares


def over_film(native: Tensor, shape: tuple[int, ...], fit: Fit, mirrored: bool) -> Map:
    """Lay a map [h, w] of the square that a network saw over the film [H, W] it was made from.

    Undoes `fit_image` and the mirroring of left knees; what `fit="crop"` cut off is 0.
    """
    height, width = shape
    sides = {"stretch": (height, width), "crop": (min(shape),) * 2, "pad": (max(shape),) * 2}[fit]
    square = native.flip(-1) if mirrored else native
    large = F.interpolate(square[None, None], sides, mode="bilinear", align_corners=False)[0, 0].numpy()
    if fit == "crop":
        film = np.zeros((height, width), np.float32)
        top, left = (height - sides[0]) // 2, (width - sides[1]) // 2
        film[top : top + sides[0], left : left + sides[1]] = large
        return film
    top, left = (sides[0] - height) // 2, (sides[1] - width) // 2
    return np.ascontiguousarray(large[top : top + height, left : left + width], dtype=np.float32)


def on_whole_film(evidence: Map, film: Prepared) -> Map:
    """A map of what was graded, laid on the whole film [H, W] if that is a knee's square in one."""
    if film.whole is None or film.knee is None or film.knee.box is None:
        return evidence
    x, y, side = film.knee.box
    height, width = film.whole.gray.shape
    laid = np.zeros((height, width), np.float32)
    rows, columns = slice(max(y, 0), min(y + side, height)), slice(max(x, 0), min(x + side, width))
    laid[rows, columns] = evidence[rows.start - y : rows.stop - y, columns.start - x : columns.stop - x]
    return laid


def spread(evidence: Map) -> Map:
    """The positive part of a map [H, W] as a multiple of an even spread; all 0 if nothing in it is positive."""
    positive = evidence.clip(min=0)
    mean = float(positive.mean())
    if mean <= 1e-6 * float(np.abs(evidence).mean()):
        return np.zeros_like(positive)
    return (positive / mean).astype(np.float32)


def fused_map(
    explanation: Explanation, film: int, backbones: Sequence[str], laid: Mapping[str, Map]
) -> tuple[Map, dict[str, float]]:
    """The sum of the maps `laid` [H, W], each times its share, and these shares: sum 1, or all 0 without evidence.

    A share is gate weight times effect, of those of `backbones` that have a map with evidence.
    """
    weights = explanation.effect[film].abs().double()
    if explanation.gate_weights is not None:
        weights = weights * explanation.gate_weights[film]
    worth = {key: float(weights[backbones.index(key)]) if evidence.any() else 0.0 for key, evidence in laid.items()}
    total = sum(worth.values())
    shares = {key: value / total if total > 0 else 0.0 for key, value in worth.items()}
    return np.sum([shares[key] * evidence for key, evidence in laid.items()], axis=0, dtype=np.float32), shares
