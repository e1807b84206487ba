"""One figure of drift: each number of the films, sample by sample, over what it is in the reference."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from legradnet.evaluation.drift import Compared, Drift, is_share
from legradnet.figures import BLUE, FAINT, INK, ORANGE, SOFT, plain_axes

_COLUMNS = 4
_MOST_NAMES = 8  # below a panel


def drift_figure(drifts: Sequence[Drift], title: str) -> Figure:
    """A panel a number: median and 90 % of the films, or a share with its interval; orange where it is an alarm."""
    names = list(dict.fromkeys(one.name for drift in drifts for one in drift.compared))
    rows = math.ceil(len(names) / _COLUMNS)
    figure = Figure(figsize=(3.1 * _COLUMNS, 2.5 * rows + 0.5), layout="constrained")
    figure.suptitle(title, size=11, color=INK)
    for place, name in enumerate(names):
        axes = figure.add_subplot(rows, _COLUMNS, place + 1)
        found = [next((one for one in drift.compared if one.name == name), None) for drift in drifts]
        _draw(axes, name, found, [drift.name for drift in drifts])
    return figure


def _draw(axes: Axes, name: str, found: Sequence[Compared | None], samples: Sequence[str]) -> None:
    plain_axes(axes, "", "")
    axes.set_title(name, size=10, color=INK, loc="left")
    for place, one in enumerate(found):
        if one is None:
            continue
        low, middle, high = _ends(one, one.here)
        if place == next(i for i, other in enumerate(found) if other is not None):
            there = _ends(one, one.there)
            axes.axhspan(there[0], there[2], color=FAINT, alpha=0.6, linewidth=0)
            axes.axhline(there[1], color=SOFT, linewidth=1, linestyle=(0, (2, 3)))
        colour = ORANGE if one.alarm else BLUE
        axes.plot([place, place], [low, high], color=colour, linewidth=2)
        axes.plot(
            [place], [middle], color=colour, marker="X" if one.alarm else "o", markersize=7, markeredgecolor="white"
        )
    axes.set_xlim(-0.6, len(found) - 0.4)
    step = math.ceil(len(samples) / _MOST_NAMES)
    shown = range(0, len(samples), step)
    axes.set_xticks(list(shown), [samples[i][-12:] for i in shown], rotation=30 if len(samples) > 2 else 0, size=8)


def _ends(one: Compared, values: tuple[float, float, float]) -> tuple[float, float, float]:
    """Low end, middle and high end."""
    return (values[1], values[0], values[2]) if is_share(one.name) else values
