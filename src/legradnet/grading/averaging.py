"""One answer out of several: of the two views of a film whose side is unknown, and of several networks."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Gray
from legradnet.grades import Floats, Ints
from legradnet.grading.networks import Answers, GradingNetwork


def answer_views(network: GradingNetwork, views: Sequence[Sequence[Gray]]) -> Answers:
    """One answer for each of B films' `views` [S, S].

    The answers to a film and its mirror image are averaged; it is as near to the training films as the nearer of them.
    """
    first = [film[0] for film in views]
    mirrored = [i for i, film in enumerate(views) if len(film) > 1]
    answer = network(np.stack([*first, *(views[i][1] for i in mirrored)])[:, None])
    if not mirrored:
        return answer

    def averaged(values: Floats) -> Floats:
        means = values[: len(first)].copy()
        means[mirrored] = (means[mirrored] + values[len(first) :]) / 2
        return means

    gates, distances = answer.gate_weights, answer.distances
    if distances is not None:
        nearer = distances[: len(first)].copy()
        nearer[mirrored] = np.minimum(nearer[mirrored], distances[len(first) :])
        distances = nearer
    return answer._replace(
        logits=averaged(answer.logits),
        probabilities=averaged(answer.probabilities),
        gate_weights=None if gates is None else averaged(gates),
        distances=distances,
    )


def are_finite(answers: Answers) -> npt.NDArray[np.bool_]:
    """Whether all that a network says of a film is finite [B]; nothing else may be compared with anything."""
    said = [answers.logits, answers.probabilities, *([] if answers.gate_weights is None else [answers.gate_weights])]
    said += [] if answers.distances is None else [answers.distances[:, None]]
    return np.all([np.isfinite(values).all(axis=1) for values in said], axis=0)


def distances_of(answers: Sequence[Answers]) -> Floats | None:
    """Median of what networks say of how far B films are from their training films [B]; None if none says anything.

    Each has a limit of its own, in units of which its distances are, so that more than half refer a film beyond 1.
    """
    said = [answer.distances for answer in answers if answer.distances is not None]
    return np.median(said, axis=0) if said else None


def join_sets(sets: Sequence[Ints | None], classes: int) -> Ints | None:
    """Lowest and highest grade [B, 2] among those in at least half of the networks' sets; None if one has no sets."""
    there = [ends for ends in sets if ends is not None]
    if len(there) < len(sets):
        return None
    grades = np.arange(classes)
    votes = np.mean([(ends[:, :1] <= grades) & (grades <= ends[:, 1:]) for ends in there], axis=0)
    inside = votes >= 0.5  # never empty: every set holds the film's grade
    return np.stack([inside.argmax(axis=1), classes - 1 - inside[:, ::-1].argmax(axis=1)], axis=1).astype(np.int64)


def mean_gate_weights(
    networks: Sequence[GradingNetwork], answers: Sequence[Answers], backbones: Sequence[str]
) -> Floats | None:
    """Mean weight of every backbone [B, N], 0 in a network that hasn't got it; None if a gate gives no weights."""
    total = np.zeros((len(answers[0].probabilities), len(backbones)))
    for network, answer in zip(networks, answers, strict=True):
        if answer.gate_weights is None:
            return None
        total[:, [backbones.index(key) for key in network.backbones]] += answer.gate_weights / len(answers)
    return total


def chosen_of(answers: Answers, films: list[int]) -> Answers:
    """The answers for some of the films."""
    return Answers(*(None if said is None else said[films] for said in answers))  # type: ignore[arg-type]
