"""One picture of an explained film: the film, the fused map, and a map for each backbone, on one colour scale."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from legradnet.explain.film import FilmExplanation, Map

_PANEL = 2.7  # inches
_FAINTEST = 2.0  # the colour scale reaches at least twice an even spread, so that an even map stays pale


def explanation_figure(explained: FilmExplanation, name: str) -> Figure:
    """The film, its fused map, and each backbone's map with gate weight and share; no pyplot, as in the other figures.

    Args:
        explained: The film and its maps.
        name: The film's name, for the title.
    """
    maps = explained.maps
    top = max(_FAINTEST, *(float(np.quantile(evidence, 0.995)) for evidence in maps.values()))
    columns = min(4, len(maps) + 1)
    rows = -(-(len(maps) + 1) // columns)
    tall = explained.film.shape[0] / explained.film.shape[1]
    figure = Figure((_PANEL * columns + 0.8, _PANEL * min(2.0, tall) * rows + 0.9), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    panels[0].imshow(explained.film, cmap="gray", vmin=0, vmax=255)
    panels[0].set_title(name if len(name) <= 30 else f"...{name[-27:]}", fontsize=9, parse_math=False)
    for axes, (key, evidence) in zip(panels[1:], maps.items(), strict=False):
        _draw(axes, explained, key, evidence, top)
    shown = panels[1].images[-1]
    figure.colorbar(shown, ax=panels, shrink=0.7, label="evidence, times an even spread")
    figure.suptitle(_title(explained), fontsize=11, parse_math=False)
    return figure


def _draw(axes: Axes, explained: FilmExplanation, key: str, evidence: Map, top: float) -> None:
    axes.imshow(explained.film, cmap="gray", vmin=0, vmax=255)
    strength = np.clip(evidence / top, 0, 1)
    axes.imshow(evidence, cmap="inferno", vmin=0, vmax=top, alpha=0.75 * np.sqrt(strength))
    words = "fused" if key == "fused" else f"{key}: {explained.shares[key]:.0%} of fused"
    if (weight := explained.grading.gate_weights.get(key)) is not None:
        words += f", gate {weight:.2f}"
    axes.set_title(words, fontsize=9, parse_math=False)
    if not evidence.any():
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "center"}
        look: dict[str, Any] = {"color": "white", "fontsize": 9, "bbox": {"color": "black", "alpha": 0.6}}
        axes.text(0.5, 0.5, "nothing speaks for it", **place, **look)


def _title(explained: FilmExplanation) -> str:
    grading = explained.grading
    grades = "  ".join(f"{grade}: {p:.2f}" for grade, p in enumerate(grading.probabilities))
    target = f"grade {explained.target}" if isinstance(explained.target, int) else f"{explained.target} grade"
    return f"Graded {grading.grade}   (p {grades})   {explained.method} of the {target}"
