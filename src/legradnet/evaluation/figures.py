"""The figures of an evaluation, drawn from its numbers alone; pyplot's state is neither read nor changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from legradnet.figures import BLUE, INK, ORANGE, SOFT, draw_weights, grade_names, plain_axes
from legradnet.grades import Floats

Numbers = Mapping[str, Any]


def draw_figures(numbers: Numbers) -> dict[str, Figure]:
    """All figures that `numbers` (of `measure`) have something for.

    Returns:
        `confusion` and `reliability`; `roc`, `referral`, `coverage`, `gate` where they are defined.
    """
    figures = {"confusion": _confusion_figure(numbers), "reliability": _reliability_figure(numbers)}
    if numbers["roc"]:
        figures["roc"] = _roc_figure(numbers)
    if any(point["error"] is not None for point in numbers["referral_curve"]):
        figures["referral"] = _referral_figure(numbers)
    if numbers["coverage_by_grade"]:
        figures["coverage"] = _coverage_figure(numbers)
    if len(numbers["gate_by_grade"] or ()) > 1:  # one backbone always weighs 1
        figures["gate"] = gate_figure(numbers)
    return figures


def _confusion_figure(numbers: Numbers) -> Figure:
    """Films by true grade (rows) and given grade: their number, and their share of the row as colour and in words."""
    counts = np.asarray(numbers["confusion"])
    films = counts.sum(axis=1)
    shares = counts / films.clip(min=1)[:, None]
    names = grade_names(len(counts))
    figure, axes = _chart(5.0, 4.7, "Grade given", "True grade")
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.1)
    axes.grid(False)
    axes.spines[:].set_visible(False)
    size = 10.0 if len(counts) <= 5 else 7.5
    for row, column in np.ndindex(counts.shape):
        colour = "white" if shares[row, column] > 0.55 else INK if counts[row, column] else "#9aa5b1"
        weight = "bold" if row == column else "normal"
        text = "n/a" if not films[row] else f"{shares[row, column]:.0%}" if counts[row, column] else ""
        axes.text(column, row - 0.1, str(counts[row, column]), ha="center", color=colour, size=size + 2, weight=weight)
        axes.text(column, row + 0.25, text, ha="center", color=colour, size=size - 2)
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), [f"{name}\n({count})" for name, count in zip(names, films, strict=True)])
    axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
    axes.grid(True, which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    return figure


def _roc_figure(numbers: Numbers) -> Figure:
    """ROC curve of P(KL >= 2), with the operating point and its two intervals."""
    roc, metrics = numbers["roc"], numbers["metrics"]
    figure, axes = _chart(
        5.0, 4.7, "1 - specificity (share of KL 0-1 called KL ≥ 2)", "Sensitivity (share of KL ≥ 2 found)"
    )
    axes.plot([0, 1], [0, 1], color=SOFT, linestyle=(0, (2, 3)), linewidth=1)
    axes.plot(roc["false_positive_rate"], roc["true_positive_rate"], color=BLUE, linewidth=2)
    sensitivity, specificity = metrics.get("sensitivity_kl2") or {}, metrics.get("specificity_kl2") or {}
    if sensitivity.get("value") is not None and specificity.get("value") is not None:
        x, y = 1 - specificity["value"], sensitivity["value"]
        mirrored = {"value": x, "low": _minus(specificity["high"]), "high": _minus(specificity["low"])}
        style: dict[str, Any] = {"color": ORANGE, "linewidth": 1.4, "zorder": 3}
        axes.errorbar([x], [y], xerr=_arms([mirrored]), yerr=_arms([sensitivity]), fmt="o", markersize=7, **style)
        words = f"at P(KL ≥ 2) = {numbers['threshold']:g}:\nsensitivity {y:.2f}, specificity {1 - x:.2f}"
        axes.annotate(words, (x, y), (14, -14), textcoords="offset points", va="top", color=ORANGE, size=9)
    area = metrics.get("auroc_kl2") or {}
    if area.get("value") is not None:
        axes.text(0.97, 0.05, f"area {area['value']:.3f}", ha="right", color=BLUE, size=11, weight="bold")
    axes.set(xlim=(-0.015, 1.015), ylim=(-0.015, 1.015), aspect="equal")
    return figure


def _reliability_figure(numbers: Numbers) -> Figure:
    """How often the likeliest grade is right against how sure it was, before and after calibration; films below.

    One of the two alone where `numbers` has no other.
    """
    looks = {"uncalibrated": ("Before calibration", ORANGE), "calibrated": ("After calibration", BLUE)}
    kinds = [kind for kind in looks if kind in numbers["reliability"]]
    figure = Figure((4.6 * len(kinds), 4.9), layout="constrained")
    grid = figure.subplots(2, len(kinds), sharex=True, sharey="row", height_ratios=(3.2, 1), squeeze=False)
    for column, kind in enumerate(kinds):
        words, colour = looks[kind]
        bins = [level for level in numbers["reliability"][kind] if level["films"] and level["accuracy"] is not None]
        above, below = grid[0, column], grid[1, column]
        error = numbers["metrics"].get("ece" if kind == "calibrated" else "ece_uncalibrated") or {}
        plain_axes(above, "", "Share that is right" if not column else "")
        plain_axes(below, "Probability of the likeliest grade", "Films" if not column else "")
        remark = "" if error.get("value") is None else f" (calibration error {error['value']:.3f})"
        above.set_title(words + remark, size=10.5, color=INK, loc="left")
        above.plot([0, 1], [0, 1], color=SOFT, linestyle=(0, (2, 3)), linewidth=1)
        x = np.array([level["confidence"] for level in bins], np.float64)
        y = np.array([level["accuracy"] for level in bins], np.float64)
        films = np.array([level["films"] for level in bins], np.float64)
        above.vlines(x, np.minimum(x, y), np.maximum(x, y), color=colour, alpha=0.35, linewidth=5)
        above.plot(x, y, color=colour, linewidth=1.2)
        above.scatter(x, y, 18 + 130 * films / max(films.max(initial=1), 1), color=colour, edgecolor="white", zorder=3)
        width = 1 / max(len(numbers["reliability"][kind]), 1)
        below.bar([level["low"] for level in bins], films, width * 0.9, align="edge", color=colour, alpha=0.75)
        for level in bins:
            middle = (level["low"] + level["high"]) / 2
            style = {"ha": "center", "size": 7, "color": SOFT}
            below.annotate(str(level["films"]), (middle, level["films"]), (0, 2), textcoords="offset points", **style)
        below.margins(y=0.3)
        above.set(xlim=(0, 1), ylim=(-0.02, 1.02))
    return figure


def _referral_figure(numbers: Numbers) -> Figure:
    """Share of wrong grades among the films kept, against the share referred, least sure first."""
    points = [point for point in numbers["referral_curve"] if point["error"] is not None]
    metrics = numbers["metrics"]
    figure, axes = _chart(
        6.4, 3.8, "Share of films referred, the least sure first", "Share of wrong grades among the rest"
    )
    x = [point["referral_rate"] for point in points]
    axes.fill_between(x, _floats(points, "low"), _floats(points, "high"), color=BLUE, alpha=0.18, linewidth=0)
    axes.plot(x, _floats(points, "error"), color=BLUE, linewidth=2)
    rate, error = metrics.get("referral_rate") or {}, metrics.get("accepted_error") or {}
    if rate.get("value") is not None and error.get("value") is not None:
        words = f"as referred here: {rate['value']:.0%} of films, {error['value']:.0%} of the rest wrong"
        style: dict[str, Any] = {"color": ORANGE, "markersize": 8, "markeredgecolor": "white", "zorder": 3}
        axes.plot([rate["value"]], [error["value"]], "D", label=words, **style)
        axes.legend(loc="upper right", frameon=False, fontsize=9, labelcolor=ORANGE, handletextpad=0)
    axes.set(xlim=(0, 1))
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes.yaxis.set_major_formatter(PercentFormatter(1, 0))
    return figure


def gate_figure(numbers: Numbers) -> Figure:
    """Mean weight of each backbone at the gate, by true grade; dotted: what equal weights would be."""
    return weights_figure(numbers["gate_by_grade"], grade_names(len(numbers["confusion"])), "True grade")


def weights_figure(weights: Mapping[str, Sequence[float | None]], groups: Sequence[str], x: str) -> Figure:
    """Mean weight of each backbone, {key: one a group}, by groups of films named at the axis `x`; dotted: if equal."""
    figure, axes = _chart(6.4, 3.8, x, "Mean gate weight")
    draw_weights(axes, weights, groups)
    axes.set_ylim(bottom=0)
    legend = figure.legend(loc="outside right center", frameon=False, fontsize=9.5, labelcolor=INK)
    for text in legend.get_texts():
        text.set_parse_math(False)  # a key is a name, not a formula
    return figure


def _coverage_figure(numbers: Numbers) -> Figure:
    """Share of prediction sets that hold the true grade, for each grade; dotted: for all films."""
    rows = numbers["coverage_by_grade"]
    names = grade_names(len(numbers["confusion"]))
    shown = [row for row in rows if row["value"] is not None]
    figure, axes = _chart(6.4, 3.6, "True grade", "Share of sets with the true grade")
    overall = numbers["metrics"].get("coverage") or {}
    if overall.get("value") is not None:
        axes.axhline(overall["value"], color=SOFT, linestyle=(0, (2, 3)), linewidth=1)
        words = f"all films\n{overall['value']:.3f}"
        axes.text(len(names) - 0.45, overall["value"], words, color=SOFT, size=9, va="center")
    x, y = [row["grade"] for row in shown], _floats(shown, "value")
    axes.errorbar(x, y, yerr=_arms(shown), fmt="o", color=BLUE, markersize=8, linewidth=1.8, capsize=4)
    for row in shown:
        label = axes.annotate(f"{row['value']:.3f}", (row["grade"], row["value"]), (9, -3), textcoords="offset points")
        label.set(size=9, color=INK, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    axes.set_xticks([row["grade"] for row in rows], [f"{names[row['grade']]}\n({row['films']})" for row in rows])
    axes.set(xlim=(-0.5, len(names) - 0.5), ylim=(min([*_floats(shown, "low"), 0.75], default=0.75) - 0.05, 1.02))
    return figure


def _chart(width: float, height: float, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure((width, height), layout="constrained")
    axes = figure.subplots()
    plain_axes(axes, x, y)
    return figure, axes


def _floats(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    """One column of `rows`; a bound that is not defined falls on the value itself."""
    return [row[name] if row[name] is not None else row.get("value", row.get("error")) for row in rows]


def _arms(rows: Sequence[Mapping[str, Any]]) -> Floats:
    """Lengths of the error bars below and above [2, rows], not negative."""
    values, low, high = (np.array(_floats(rows, name)) for name in ("value", "low", "high"))
    return np.array([values - low, high - values]).clip(min=0).reshape(2, -1)


def _minus(value: float | None) -> float | None:
    return None if value is None else 1 - value
