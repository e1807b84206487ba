"""Deletion and insertion: what a network still says when a film is taken away, or given, in the order of a map.

Films are changed tile by tile, in 16 x 16 tiles for every method: a map is compared by what it says, not by how fine it
is drawn. Two maps that know nothing of the film are the yardstick: a random one, and one that falls off from the centre
(a Gaussian of any width: only the order of the tiles counts), where knee films have their joint.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor

from legradnet.explain.features import undisturbed
from legradnet.explain.film import FUSED
from legradnet.explain.methods import answer, seen_by_one
from legradnet.grades import Floats, Ints
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.network.ensemble import KneeEnsemble

TILES = 16  # a side
BASELINES = {"random": "a random map", "centred": "a centred map"}
_AT_ONCE = 64  # changed films


def baseline_order(name: str, films: int, random: np.random.Generator) -> Ints:
    """The order of the tiles for each film by one of `BASELINES`: [F, tiles], most important first."""
    rows, columns = np.indices((TILES, TILES)) - (TILES - 1) / 2
    away = np.hypot(rows, columns) if name == "centred" else np.zeros((TILES, TILES))
    return tile_order(np.broadcast_to(-away, (films, TILES, TILES)), random)


def tile_order(maps: Floats, random: np.random.Generator) -> Ints:
    """The order of the tiles of `maps` [F, TILES, TILES]: [F, tiles], highest first, equal ones in random order."""
    values = maps.reshape(len(maps), -1)
    return np.lexsort((random.random(values.shape), -values)).astype(np.int64)


def curves(
    network: CheckpointNetwork,
    films: Tensor,
    tokens: Tensor,
    asked: Sequence[int] | None,
    *,
    key: str,
    order: Ints,
    steps: int,
) -> Floats:
    """What is explained while each film is deleted and inserted: [F, 2, steps + 1], in 0-1.

    Deletion replaces tiles by the film's mean gray; insertion starts from a blurred film, which has no edges that the
    network could take for something (Petsiuk et al. 2018, arXiv:1806.07421).

    Args:
        network: That says it.
        films: uint8 [F, 1, S, S], as the network sees them.
        tokens: Of the unchanged films [F, N, D].
        asked: The grade of each film whose probability is followed, or None for the expected grade / (K - 1).
        key: The backbone that sees the changed films while the others don't, or "fused" for all.
        order: Of the tiles [F, tiles].
        steps: In equal parts of the tiles.
    """
    values = []
    with undisturbed(network.ensemble) as ensemble, torch.no_grad():
        for i, film in enumerate(films):
            grade = None if asked is None else asked[i]
            seen = film.to(network.device)
            values.append(_curves_of_one(network, ensemble, seen, tokens[i], grade, key, order[i], steps))
    return np.stack(values)


def _curves_of_one(
    network: CheckpointNetwork,
    ensemble: KneeEnsemble,
    film: Tensor,
    tokens: Tensor,
    grade: int | None,
    key: str,
    order: Ints,
    steps: int,
) -> Floats:
    rank = torch.empty(TILES * TILES, dtype=torch.long)
    rank[torch.from_numpy(order)] = torch.arange(TILES * TILES)
    changed = torch.linspace(0, TILES * TILES, steps + 1).round()
    masks = (rank < changed[:, None]).view(-1, 1, TILES, TILES).float().to(film.device)  # 1 where deleted or inserted
    size = film.shape[-1]
    masks = F.interpolate(masks, (size, size), mode="nearest")
    whole = film[None].float() / 255
    blurred = torch.from_numpy(gaussian_filter(whole.cpu().numpy(), (0, 0, size / 32, size / 32))).to(whole)
    deleted, inserted = torch.lerp(whole, whole.mean(), masks), torch.lerp(blurred, whole, masks)
    scores = []
    for some in torch.split(torch.cat([deleted, inserted]), _AT_ONCE):
        with network.autocast():
            if key == FUSED:
                probabilities = answer(ensemble, network.loss, ensemble.tokens(some))[0]
            else:
                index = network.backbones.index(key)
                probabilities = seen_by_one(ensemble, network.loss, tokens, index, some)
        scores.append(_followed(probabilities, grade))
    return torch.cat(scores).view(2, steps + 1).numpy()


def _followed(probabilities: Tensor, grade: int | None) -> Tensor:
    if grade is not None:
        return probabilities[:, grade]
    highest = probabilities.shape[1] - 1
    return probabilities @ torch.linspace(0, 1, highest + 1, dtype=probabilities.dtype)
