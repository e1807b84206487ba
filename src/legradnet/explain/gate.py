"""What the gate does over many films: how much each backbone weighs, and how much it is worth."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from threading import get_ident

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.errors import UserError
from legradnet.explain.film import only_checkpoint
from legradnet.explain.methods import answer
from legradnet.figures import COLOURS, INK, SOFT, draw_weights, grade_names, plain_axes
from legradnet.grades import Floats, Ints
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, Prepared
from legradnet.network.gating import MultiHeadAttentionGate
from legradnet.statistics.bootstrap import bootstrap, patient_numbers, percentile_interval
from legradnet.statistics.metrics import confusions, quadratic_weighted_kappa

_HEAD_MEAN = "mean"


@dataclass(frozen=True)
class GatedFilms:
    """What came to the gate for F films, some of them seen twice (as they are and mirrored), in V views.

    Attributes:
        network: Whose gate.
        films: The films.
        grades: Grade given to each [F].
        tokens: [V, N, D], in the precision that the gate got them in: at most 20 KB a view for five of width 1024.
        film: Film of each view [V].
    """

    network: CheckpointNetwork
    films: list[InputFilm]
    grades: Ints
    tokens: Tensor
    film: Ints

    @property
    def labelled(self) -> npt.NDArray[np.bool_]:
        """Which films have a true grade that the network knows [F]."""
        return np.array([f.label is not None and f.label < self.network.classes for f in self.films], bool)

    @property
    def labels(self) -> Ints:
        """True grades [F], -1 where there is none."""
        return np.array([-1 if film.label is None else film.label for film in self.films], np.int64)


def pass_gate(
    grader: Grader, batches: Iterable[Sequence[tuple[InputFilm, Prepared]]]
) -> tuple[GatedFilms, list[Grading | ImageError]]:
    """Grade films, and keep what came to the gate of those that got a grade.

    Raises:
        UserError: A grader of several networks or of an export, or no film.
    """
    network = only_checkpoint(grader.networks)
    films: list[InputFilm] = []
    gradings: list[Grading | ImageError] = []
    tokens: list[Tensor] = []
    film_of: list[int] = []
    here = get_ident()

    def keep(gate: nn.Module, inputs: tuple[Tensor]) -> None:
        if get_ident() == here:  # other threads may grade with the same network
            tokens.append(inputs[0].cpu())

    hook = network.ensemble.gate.register_forward_pre_hook(keep)
    try:
        for batch in batches:
            prepared = [film for _, film in batch]
            answers = grader.grade_prepared(prepared)
            gradings += answers
            graded = [i for i, answer in enumerate(answers) if isinstance(answer, Grading)]
            number = {i: first for first, i in enumerate(graded, start=len(films))}
            films += [batch[i][0] for i in graded]
            mirrored = (i for i, film in enumerate(prepared) if len(film.views[0]) > 1)
            seen = list(enumerate([*range(len(batch)), *mirrored]))  # each view, mirrored ones at the end, and its film
            tokens[-1] = tokens[-1][[view for view, i in seen if i in number]]
            film_of += [number[i] for _, i in seen if i in number]
    finally:
        hook.remove()
    if not films:
        why = f" ({gradings[0]})" if gradings else ""
        raise UserError(f"method=gate: there is no film that can be graded{why}.")
    grades = np.array([grading.grade for grading in gradings if isinstance(grading, Grading)], np.int64)
    return GatedFilms(network, films, grades, torch.cat(tokens), np.array(film_of, np.int64)), gradings


def gate_table(gated: GatedFilms) -> pd.DataFrame | None:
    """Mean weight of each backbone by groups of films; None under concat, which gives no weights.

    Returns:
        `group` (all, label, grade, right), `value` (a grade; right or wrong), `head` ("mean", or 0.. where the gate is
        attention of several heads), `films`, and a column of mean weights for each backbone.
    """
    weights = _weights(gated)
    if weights is None:
        return None
    labels, grades, labelled = gated.labels, gated.grades, gated.labelled
    groups = [("all", "", np.ones(len(grades), bool))]
    known = range(gated.network.classes if labelled.any() else 0)
    groups += [("label", str(k), labelled & (labels == k)) for k in known]
    groups += [("grade", str(k), grades == k) for k in range(gated.network.classes)]
    groups += [("right", "right", labelled & (labels == grades)), ("right", "wrong", labelled & (labels != grades))]
    rows = [
        {"group": group, "value": value, "head": head, "films": int(chosen.sum())}
        | dict(zip(gated.network.backbones, of_head[chosen].mean(axis=0), strict=True))
        for group, value, chosen in groups
        if chosen.any()
        for head, of_head in weights.items()
    ]
    return pd.DataFrame(rows)


def _weights(gated: GatedFilms) -> dict[str, Floats] | None:
    """{head: weights [F, N]}, their mean first."""
    gate = gated.network.ensemble.gate
    by_head: dict[str, list[Tensor]] = {}
    for tokens in _batches(gated):
        with torch.inference_mode(), gated.network.autocast():
            weights = gate(tokens)[1]
            if weights is None:
                return None
            by_head.setdefault(_HEAD_MEAN, []).append(weights)
            if isinstance(gate, MultiHeadAttentionGate) and gate.num_heads > 1:
                for head, of_head in enumerate(gate.head_weights(tokens).unbind(dim=1)):
                    by_head.setdefault(str(head), []).append(of_head)
    return {head: _by_film(gated, torch.cat(batches).double().cpu().numpy()) for head, batches in by_head.items()}


def ablation_table(gated: GatedFilms, *, resamples: int, seed: int) -> pd.DataFrame:
    """What is lost when a backbone tells nothing of the film: its token is replaced by its mean over the films.

    Weight says what the gate listens to, this what it gains by it. The 95 % interval is from resampled patients.

    Returns:
        A row for each backbone: `backbone`; `grades_changed`, the share of films that get another grade; and where true
        grades are known `films` (with one), `qwk` as it is, `qwk_without`, `change` (below 0: the backbone is worth
        something), `low`, `high`.
    """
    network, labelled = gated.network, gated.labelled
    mean = gated.tokens.mean(dim=0)
    as_it_is = _regraded(gated, None, mean)
    labels = gated.labels[labelled]
    patients = patient_numbers([film.patient for film, counts in zip(gated.films, labelled, strict=True) if counts])

    def kappa(weights: Floats, grades: Ints) -> Floats:
        return quadratic_weighted_kappa(confusions(weights, labels, grades[labelled], network.classes))

    rows = []
    for index, key in enumerate(network.backbones):
        without = _regraded(gated, index, mean)
        row = {"backbone": key, "grades_changed": float((without != as_it_is).mean())}
        if labelled.any():
            ones = np.ones((1, len(labels)))
            before, after = float(kappa(ones, as_it_is)[0]), float(kappa(ones, without)[0])
            samples = bootstrap(
                lambda weights, without=without: {"change": kappa(weights, without) - kappa(weights, as_it_is)},  # type: ignore[misc]
                patients,
                resamples=resamples,
                seed=seed,
            )
            low, high = percentile_interval(samples["change"], 0.95)
            row |= {"films": int(labelled.sum()), "qwk": before, "qwk_without": after, "change": after - before}
            row |= {"low": float(low), "high": float(high)}
        rows.append(row)
    return pd.DataFrame(rows)


def _regraded(gated: GatedFilms, index: int | None, mean: Tensor) -> Ints:
    """Grades [F] when the backbone at `index` gives `mean` [N, D] for every film."""
    network = gated.network
    probabilities = []
    for tokens in _batches(gated):
        if index is not None:
            tokens = tokens.clone()
            tokens[:, index] = mean[index]
        with torch.inference_mode(), network.autocast():
            probabilities.append(answer(network.ensemble, network.loss, tokens)[0])
    return network.calibration.grades(_by_film(gated, torch.cat(probabilities).numpy()))


def _batches(gated: GatedFilms) -> Iterable[Tensor]:
    return (tokens.to(gated.network.device) for tokens in torch.split(gated.tokens, 256))


def _by_film(gated: GatedFilms, values: Floats) -> Floats:
    """Mean over the views of each film: [V, M] to [F, M]."""
    sums = np.zeros((len(gated.films), values.shape[1]))
    np.add.at(sums, gated.film, values)
    return sums / np.bincount(gated.film)[:, None]


def gate_figure(weights: pd.DataFrame | None, ablation: pd.DataFrame, classes: int) -> Figure:
    """Weights by true grade, grade given, right or wrong, and head; and the worth of each backbone."""
    keys = list(ablation["backbone"])
    panels = [] if weights is None else _weight_panels(weights, classes)
    columns = min(3, len(panels) + 1)
    rows = -(-(len(panels) + 1) // columns)
    figure = Figure((4.3 * columns + (1.3 if panels else 0), 3.4 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[len(panels) + 1 :]:
        unused.set_axis_off()
    top = max((float(table[keys].to_numpy().max()) for table, _, _ in panels), default=1.0)
    for panel, (table, names, title) in zip(axes, panels, strict=False):
        plain_axes(panel, title, "Mean gate weight")
        draw_weights(panel, {key: list(table[key]) for key in keys}, names)
        panel.set_ylim(0, 1.1 * top)
    if panels:
        legend = figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    _draw_ablation(axes[len(panels)], ablation)
    return figure


def _weight_panels(weights: pd.DataFrame, classes: int) -> list[tuple[pd.DataFrame, list[str], str]]:
    """For each panel its rows of the table, their names on the axis, and the axis' title."""
    mean, names = weights[weights["head"] == _HEAD_MEAN], grade_names(classes)
    panels = []
    for group, title in (("label", "True grade"), ("grade", "Grade given")):
        if len(rows := mean[mean["group"] == group]):
            panels.append((rows, [names[int(value)] for value in rows["value"]], title))
    if len(rows := mean[mean["group"] == "right"]):
        panels.append((rows, list(rows["value"]), "Grade given is"))
    heads = weights[(weights["group"] == "all") & (weights["head"] != _HEAD_MEAN)]
    if len(heads):
        panels.append((heads, list(heads["head"]), "Attention head"))
    return panels


def _draw_ablation(axes: Axes, ablation: pd.DataFrame) -> None:
    keys = list(ablation["backbone"])
    measured = "change" in ablation
    plain_axes(axes, "Change of QWK without it" if measured else "Share of grades that change without it", "")
    values = ablation["change" if measured else "grades_changed"].to_numpy(np.float64)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(keys))]
    axes.barh(range(len(keys)), values, color=colours, height=0.6)
    if measured:
        ends = ablation[["low", "high"]].to_numpy(np.float64)
        axes.hlines(range(len(keys)), ends[:, 0], ends[:, 1], color=INK, linewidth=1.6)
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_yticks(range(len(keys)), keys)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.invert_yaxis()
