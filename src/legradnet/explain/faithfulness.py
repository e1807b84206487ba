"""Does a map mean anything? Checks that a map must pass before anybody reads a disease into it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from legradnet.errors import UserError
from legradnet.evaluation.shortcut import JOINT_BAND
from legradnet.explain.features import undisturbed
from legradnet.explain.film import FUSED, fused_map, laid_maps, spread
from legradnet.explain.methods import METHODS, Explanation, Target, answer, asked_grades, explain
from legradnet.explain.perturbation import BASELINES, TILES, baseline_order, curves, tile_order
from legradnet.explain.randomise import LEVELS, randomise
from legradnet.grades import Floats, Ints
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.grading import Prepared
from legradnet.network.ensemble import KneeEnsemble
from legradnet.statistics.bootstrap import bootstrap, patient_numbers, percentile_interval

CASCADE_FILMS = 20
_SIDE = 64  # of the maps whose structure is compared

Row = dict[str, Any]


@dataclass(frozen=True)
class Faithfulness:
    """What `measure_faithfulness` found.

    Attributes:
        table: A row for each method and backbone (and "fused" where there are several), and for the two baselines.
        notes: Methods that the network has no map of, and why.
    """

    table: pd.DataFrame
    notes: list[str]


def measure_faithfulness(
    network: CheckpointNetwork,
    films: Sequence[Prepared],
    patients: Sequence[str],
    *,
    methods: Sequence[str],
    target: Target = "predicted",
    steps: int = 20,
    seed: int = 0,
    resamples: int = 2000,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
) -> Faithfulness:
    """Put maps of films to the test, each backbone by itself (the others see the film unchanged) and all fused.

    Args:
        network: Whose maps.
        films: As `Grader.prepare` gives them.
        patients: The patient of each film, "" if unknown.
        methods: Names of `METHODS`.
        target: What is explained; `predicted` stays the grade of the unchanged film.
        steps: In which the film is deleted and inserted.
        seed: Of the random map, the random weights and the bootstrap.
        resamples: Of the patients, for 95 % intervals.
        progress: Wraps the methods, two baselines among them.

    Returns:
        Columns: `method`, `backbone`, `films`; `deletion` and `insertion`, the mean of the explained probability (or
        expected grade / (K - 1)) over the steps of deleting and inserting (low and high are good); `change`, by how
        much it is altered in the end, the larger of the two; `deletion_over_random`, `..._low`, `..._high` and so on,
        how much better than a baseline that is, with 95 % interval; `ssim_<share>`, structural similarity (Wang et al.
        2004, doi:10.1109/TIP.2003.819861) with the map when that share of each trunk's layers is random, last layers
        first, gate and head before them (Adebayo et al. 2018, arXiv:1810.03292; low is good; the first 20 films);
        `mirrored_ssim` with the map of the mirrored film (high is good); `joint_share` of the map inside the band of
        the joint, which is 0.3 of the film; `empty`, share of films whose map has no evidence.

    Raises:
        UserError: Unknown method or target, or no method that the network has a map of.
    """
    if unknown := [method for method in methods if method not in METHODS]:
        raise UserError(f"methods: {', '.join(unknown)} unknown; choose from {', '.join(METHODS)}.")
    asked_grades(target, torch.empty(0), network.classes)  # a wrong one is told before the work
    squares = torch.from_numpy(np.stack([film.views[0][0] for film in films])[:, None])
    with undisturbed(network.ensemble) as ensemble, torch.no_grad(), network.autocast():
        batches = torch.split(squares, network.batch_size)
        tokens = torch.cat([ensemble.tokens(some.to(network.device)) for some in batches])
        probabilities = answer(ensemble, network.loss, tokens)[0]
    grades = asked_grades(target, network.loss.grades(probabilities), network.classes)
    asked = None if grades is None else [int(grade) for grade in grades]
    keys = [*network.backbones, *([FUSED] if len(network.backbones) > 1 else [])]
    numbers = patient_numbers(patients)
    random = np.random.default_rng(seed)

    def changed(key: str, order: Ints) -> Floats:
        return curves(network, squares, tokens, asked, key=key, order=order, steps=steps)

    rows: list[Row] = []
    notes: list[str] = []
    base: dict[tuple[str, str], Row] = {}
    for method in progress([*BASELINES, *methods]):
        if method in BASELINES:
            order = baseline_order(method, len(films), random)
            for key in keys:
                base[method, key] = _areas(changed(key, order))
                rows.append(_row(method, key, base[method, key]))
            continue
        try:
            explanation = _explained(network, network.ensemble, squares, method, asked)
        except UserError as error:
            notes.append(f"{method}: {error}")
            continue
        tiles = _maps(explanation, network.backbones, TILES)
        others = _compared(network, films, squares, explanation, method, asked, seed)
        for key in (key for key in keys if key in tiles):
            areas = _areas(changed(key, tile_order(tiles[key].double().numpy(), random)))
            row = _row(method, key, areas)
            for name in BASELINES:
                gains = {
                    "deletion": base[name, key]["deletion"] - areas["deletion"],
                    "insertion": areas["insertion"] - base[name, key]["insertion"],
                }
                for kind, gain in gains.items():
                    row |= _interval(f"{kind}_over_{name}", gain, numbers, resamples, seed)
            rows.append(row | others[key])
    if len(rows) == len(base):
        raise UserError("\n".join(["No method has a map of this network:", *notes]))
    return Faithfulness(pd.DataFrame(rows), notes)


def _areas(values: Floats) -> dict[str, Floats]:
    """Areas under the curves [F, 2, steps + 1] of each film, and by how much they alter what is explained: [F] each."""
    deletion, insertion = np.trapezoid(values, axis=2).T / (values.shape[2] - 1)
    change = np.abs(values[:, :, -1] - values[:, :, 0]).max(axis=1)
    return {"deletion": deletion, "insertion": insertion, "change": change}


def _row(method: str, key: str, areas: dict[str, Floats]) -> Row:
    means = {name: float(values.mean()) for name, values in areas.items()}
    return {"method": method, "backbone": key, "films": len(areas["deletion"]), **means}


def _interval(name: str, gains: Floats, patients: Ints, resamples: int, seed: int) -> dict[str, float]:
    samples = bootstrap(
        lambda weights: {"gain": weights @ gains / weights.sum(axis=1)}, patients, resamples=resamples, seed=seed
    )
    low, high = percentile_interval(samples["gain"], 0.95)
    return {name: float(gains.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}


def _explained(
    network: CheckpointNetwork, ensemble: KneeEnsemble, squares: Tensor, method: str, asked: list[int] | None
) -> Explanation:
    """Explain `squares` [F, 1, S, S] in batches."""
    parts = []
    for start in range(0, len(squares), network.batch_size):
        some = slice(start, start + network.batch_size)
        target: Target = "expected" if asked is None else asked[some]
        with network.autocast():
            parts.append(explain(ensemble, network.loss, squares[some], method=method, target=target))
    weights = [part.gate_weights for part in parts if part.gate_weights is not None]
    return Explanation(
        native={key: torch.cat([part.native[key] for part in parts]) for key in parts[0].native},
        effect=torch.cat([part.effect for part in parts]),
        score=torch.cat([part.score for part in parts]),
        grades=torch.cat([part.grades for part in parts]),
        probabilities=torch.cat([part.probabilities for part in parts]),
        gate_weights=torch.cat(weights) if weights else None,
    )


def _maps(explanation: Explanation, backbones: Sequence[str], side: int) -> dict[str, Tensor]:
    """{backbone: signed map [F, side, side]}, and the fused map of their positive parts where there are several."""
    maps = {
        key: F.interpolate(native[:, None], (side, side), mode="bilinear", antialias=True, align_corners=False)[:, 0]
        for key, native in explanation.native.items()
    }
    if spoilt := [key for key, signed in maps.items() if not signed.isfinite().all()]:
        raise UserError(f"The maps of {spoilt[0]} are not finite, and can't be judged.")
    if len(backbones) > 1:
        films = range(len(explanation.effect))
        laid = [{key: spread(maps_of_key[i].numpy()) for key, maps_of_key in maps.items()} for i in films]
        maps[FUSED] = torch.from_numpy(np.stack([fused_map(explanation, i, backbones, laid[i])[0] for i in films]))
    return maps


def _compared(
    network: CheckpointNetwork,
    films: Sequence[Prepared],
    squares: Tensor,
    explanation: Explanation,
    method: str,
    asked: list[int] | None,
    seed: int,
) -> dict[str, Row]:
    """What a map is without its film being changed: under random weights, mirrored, inside the joint's band."""
    maps = _maps(explanation, network.backbones, _SIDE)
    rows: dict[str, Row] = {key: {} for key in maps}
    first = slice(0, CASCADE_FILMS)
    for share in () if METHODS[method].slow else LEVELS:
        ensemble = randomise(network.ensemble, share / 100, seed)
        explained = _explained(network, ensemble, squares[first], method, asked and asked[first])
        others = _maps(explained, network.backbones, _SIDE)
        for key, row in rows.items():
            row[f"ssim_{share}"] = _ssim(maps[key][first], others[key])
    mirrored = _explained(network, network.ensemble, squares.flip(-1), method, asked)
    for key, others_of_key in _maps(mirrored, network.backbones, _SIDE).items():
        rows[key]["mirrored_ssim"] = _ssim(maps[key], others_of_key.flip(-1))
    shares = [_joint_shares(network, film, explanation, i) for i, film in enumerate(films)]
    for key, row in rows.items():
        inside = [film_shares[key] for film_shares in shares]
        row["joint_share"] = float(np.nanmean(inside)) if not np.isnan(inside).all() else float("nan")
        row["empty"] = float(np.isnan(inside).mean())
    return rows


def _ssim(maps: Tensor, others: Tensor) -> float:
    """Mean structural similarity of the positive parts of two maps [F, side, side], each brought to 0-1."""
    ours, theirs = (
        (signed.clamp(min=0) / signed.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12))[:, None]
        for signed in (maps, others)
    )
    return float(cast(Tensor, structural_similarity_index_measure(ours, theirs, data_range=1.0)))


def _joint_shares(network: CheckpointNetwork, film: Prepared, explanation: Explanation, i: int) -> dict[str, float]:
    """Share of each map of film `i` that lies in the joint's band of the film; nan where there is no evidence."""
    laid, _ = laid_maps(network, film, explanation, i)
    top, bottom = (round(end * film.film.gray.shape[0]) for end in JOINT_BAND)
    return {
        key: float(evidence[top:bottom].sum() / evidence.sum()) if evidence.any() else float("nan")
        for key, evidence in laid.items()
    }
