"""What the checks of faithfulness say, in words and in a figure."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from legradnet.evaluation.shortcut import JOINT_BAND
from legradnet.explain.faithfulness import CASCADE_FILMS, Faithfulness
from legradnet.explain.perturbation import BASELINES
from legradnet.explain.randomise import LEVELS
from legradnet.figures import BLUE, COLOURS, INK, MARKERS, ORANGE, SOFT, plain_axes

_ALIKE = 0.5  # structural similarity from which a map under random weights still resembles the trained network's
_TELLING = 0.01  # a smaller change of what is explained, though the whole film is gone, tells nothing about a map
_RULE = (
    "A method passes for a backbone if the explained probability falls faster when the film is deleted by its map, and "
    "rises faster when the film is inserted by it, than by a random map and by a centred one (95 % intervals of the "
    f"gains above 0), and if under all random weights its map no longer resembles itself (SSIM below {_ALIKE:g}, first "
    f"{CASCADE_FILMS} films)."
)


def failures(row: Mapping[Any, Any]) -> list[str]:
    """Why a row of the table doesn't pass; [] if it does."""
    reasons = []
    for kind in ("deletion", "insertion"):
        for name, words in BASELINES.items():
            gain, low, high = (row[f"{kind}_over_{name}{end}"] for end in ("", "_low", "_high"))
            if not low > 0:  # nan too
                reasons.append(f"{kind} no better than by {words} ({gain:+.3f}, {low:+.3f} to {high:+.3f})")
    if row.get(f"ssim_{LEVELS[-1]}", 0) >= _ALIKE:
        reasons.append(f"it looks the same under random weights (SSIM {row[f'ssim_{LEVELS[-1]}']:.2f})")
    return reasons


def verdict(measured: Faithfulness, films: int, patients: int) -> str:
    """The rule, and for each method and backbone whether it passes it."""
    lines = [f"{films} films of {patients} patients. {_RULE}", ""]
    for row in _maps_of(measured.table).to_dict("records"):
        which = f"{row['method']} of {row['backbone']}"
        if not row["change"] >= _TELLING:
            lines.append(f"{which} can't be judged: without the whole film the answer changes by {row['change']:.4f}.")
            continue
        reasons = failures(row)
        untried = pd.isna(row.get(f"ssim_{LEVELS[-1]}"))
        if reasons:
            lines.append(f"{which} fails: {'; '.join(reasons)}.")
        else:
            lines.append(f"{which} passes{' (random weights not tried: too slow)' if untried else ''}.")
        if row["empty"] > 0:
            lines.append(f"  On {row['empty']:.0%} of the films its map has no evidence for the target.")
    lines += measured.notes
    return "\n".join(lines) + "\n"


def faithfulness_figure(table: pd.DataFrame) -> Figure:
    """For each backbone: gains of deletion and insertion, the cascade of random weights, joint band and mirroring."""
    maps = _maps_of(table)
    keys, methods = list(maps["backbone"].unique()), list(maps["method"].unique())
    height = 0.34 * len(methods) + 1.1
    figure = Figure((15, height * len(keys) + 0.6), layout="constrained")
    grid = figure.subplots(len(keys), 4, squeeze=False, sharex="col", width_ratios=(1.2, 1.2, 1, 1))
    for axes, key in zip(grid, keys, strict=True):
        rows = maps[maps["backbone"] == key].set_index("method").reindex(methods)
        _gains(axes[0], rows, "deletion")
        _gains(axes[1], rows, "insertion")
        _cascade(axes[2], rows)
        _places(axes[3], rows)
        axes[0].set_ylabel(key, size=11, color=INK, weight="bold", parse_math=False)
        for panel in (axes[0], axes[1], axes[3]):
            panel.set_yticks(range(len(methods)), methods if panel is axes[0] else [""] * len(methods))
            panel.set_ylim(len(methods) - 0.4, -0.6)
        for panel in axes:
            panel.tick_params(labelbottom=True)
    drawn: dict[str, Any] = {}
    for axes in grid.T.flat:
        drawn |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
    figure.legend(drawn.values(), drawn, loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _maps_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[~table["method"].isin(list(BASELINES))]


def _gains(axes: Axes, rows: pd.DataFrame, kind: str) -> None:
    plain_axes(axes, f"{kind}: gain over a baseline", "")
    axes.axvline(0, color=SOFT, linewidth=1)
    for offset, (name, colour) in zip((-0.14, 0.14), zip(BASELINES, (BLUE, ORANGE), strict=True), strict=True):
        value = f"{kind}_over_{name}"
        y = np.arange(len(rows)) + offset
        axes.hlines(y, rows[f"{value}_low"], rows[f"{value}_high"], color=colour, linewidth=1.6)
        axes.plot(rows[value], y, "o", color=colour, markersize=5, label=f"over {BASELINES[name]}")


def _cascade(axes: Axes, rows: pd.DataFrame) -> None:
    plain_axes(axes, "% of layers random", "SSIM with the map")
    axes.axhline(_ALIKE, color=SOFT, linestyle=(0, (2, 3)), linewidth=1)
    columns = [f"ssim_{share}" for share in LEVELS]
    for index, (method, row) in enumerate(rows.reindex(columns=columns).iterrows()):
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        if row.notna().any():
            axes.plot(LEVELS, row.to_numpy(np.float64), label=str(method), linewidth=1.4, markersize=5, **style)
    axes.set_ylim(-0.05, 1.05)


def _places(axes: Axes, rows: pd.DataFrame) -> None:
    plain_axes(axes, "joint share, SSIM when mirrored", "")
    axes.axvline(JOINT_BAND[1] - JOINT_BAND[0], color=BLUE, linestyle=(0, (2, 3)), linewidth=1)
    y = range(len(rows))
    axes.plot(rows["joint_share"], y, "o", color=BLUE, markersize=6, label="in the joint's band")
    axes.plot(rows["mirrored_ssim"], y, "D", color=ORANGE, markersize=5, label="mirrored")
    axes.set_xlim(0, 1)
