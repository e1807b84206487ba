"""Where the evidence of a film's gradings lies, whatever graded it: maps of a checkpoint, hidden tiles of all else."""

from collections.abc import Sequence

import numpy as np

from legradnet.data.film import Gray
from legradnet.data.sides import Side
from legradnet.explain.film import FUSED, FilmExplanation, Map, explain_films, on_whole_film, over_film, spread
from legradnet.grades import Floats
from legradnet.grading.averaging import answer_views
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Prepared
from legradnet.hospital.graded import GradedFilm, ReadKnee

_TILES = 8  # a side
_AT_ONCE = 16  # changed films


def graded_film(grader: Grader, knees: Sequence[ReadKnee]) -> GradedFilm:
    """A film with the evidence of its gradings; of at least one knee that was graded."""
    whole = next((knee.prepared.whole or knee.prepared.film).gray for knee in knees if _is_graded(knee))  # type: ignore[union-attr]
    evidence = np.zeros(whole.shape, np.float32)
    method = ""
    for prepared, grading in knees:
        if isinstance(prepared, Prepared) and isinstance(grading, Grading):
            found, method = _evidence(grader, prepared, grading)
            evidence = np.maximum(evidence, found)
    return GradedFilm(whole, [knee.grading for knee in knees], [_side(knee) for knee in knees], evidence, method)


def _is_graded(knee: ReadKnee) -> bool:
    return isinstance(knee.prepared, Prepared) and isinstance(knee.grading, Grading)


def _side(knee: ReadKnee) -> Side:
    return knee.prepared.side if isinstance(knee.prepared, Prepared) else knee.prepared.knee.side


def _evidence(grader: Grader, prepared: Prepared, grading: Grading) -> tuple[Map, str]:
    network = grader.networks[0]
    if len(grader.networks) == 1 and isinstance(network, CheckpointNetwork) and FUSED not in network.backbones:
        (explained,) = explain_films(network, [prepared], [grading])
        if isinstance(explained, FilmExplanation):
            return explained.maps[FUSED], "Grad-CAM"
    return on_whole_film(_hidden_tiles(grader, prepared, grading), prepared), "hidden tiles"


def _hidden_tiles(grader: Grader, prepared: Prepared, grading: Grading) -> Map:
    """How much the grade's probability falls when a tile is made gray (Zeiler and Fergus 2013, arXiv:1311.2901)."""
    import torch

    total = np.zeros(prepared.film.gray.shape, np.float32)
    for i, network in enumerate(grader.networks):
        views = prepared.views[i]
        changed = [
            [_hidden(view, tile, is_mirrored=k > 0) for k, view in enumerate(views)] for tile in range(_TILES**2)
        ]
        answers: list[Floats] = [
            answer_views(network, changed[start : start + _AT_ONCE]).probabilities[:, grading.grade]
            for start in range(0, len(changed), _AT_ONCE)
        ]
        before = answer_views(network, [views]).probabilities[0, grading.grade]
        falls = torch.from_numpy((before - np.concatenate(answers)).reshape(_TILES, _TILES).astype(np.float32))
        is_mirrored = network.mirror_left and prepared.side == "L"
        total += over_film(falls, prepared.film.gray.shape, network.fit, is_mirrored)
    return spread(total)


def _hidden(view: Gray, tile: int, *, is_mirrored: bool) -> Gray:
    row, column = divmod(tile, _TILES)
    column = _TILES - 1 - column if is_mirrored else column
    edges = np.linspace(0, len(view), _TILES + 1).round().astype(int)
    across = len(view) - edges[::-1] if is_mirrored else edges
    changed = view.copy()
    changed[edges[row] : edges[row + 1], across[column] : across[column + 1]] = int(view.mean())
    return changed
