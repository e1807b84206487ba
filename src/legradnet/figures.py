"""What all figures share: colours, axes, and how they become files; pyplot's state is neither read nor changed."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

INK, SOFT, FAINT = "#1f2933", "#52606d", "#d9dee4"
BLUE, ORANGE = "#0072b2", "#d55e00"
# Okabe and Ito's colours, apart for colour-blind eyes too; each comes with a marker of its own
COLOURS = (BLUE, "#e69f00", "#009e73", ORANGE, "#cc79a7", "#56b4e9", "#1f2933", "#8c6d31")
MARKERS = "osD^vPX*"


def picture(figure: Figure, kind: Literal["svg", "png"]) -> bytes:
    """The figure as an SVG (text as paths) or as a PNG of 160 dots an inch."""
    file = BytesIO()
    for text in figure.findobj(Text):
        text.set_text(_drawable(text))
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "legradnet"}):  # same look, same bytes
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=160, facecolor="white", metadata=metadata)
    return file.getvalue()


def _drawable(text: Text) -> str:
    """What a figure says, with a sign in place of each letter that the font lacks: matplotlib warns or fails."""
    font = get_font(findfont(text.get_fontproperties()))
    lacked = {sign for sign in text.get_text() if sign != "\n" and not font.get_char_index(ord(sign))}
    return text.get_text().translate({ord(sign): "\N{REPLACEMENT CHARACTER}" for sign in lacked})


def draw_weights(axes: Axes, weights: Mapping[str, Sequence[float | None]], groups: Sequence[str]) -> None:
    """The lines and dots of `weights_figure`."""
    axes.axhline(1 / len(weights), color=SOFT, linestyle=(0, (2, 3)), linewidth=1)
    for index, (backbone, values) in enumerate(weights.items()):
        style: dict[str, Any] = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        style |= {"linewidth": 1.8, "markersize": 7, "markeredgecolor": "white"}
        means = [np.nan if value is None else value for value in values]
        axes.plot(range(len(groups)), means, label=backbone, **style)
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.3, len(groups) - 0.7)


def grade_names(classes: int) -> list[str]:
    """ "KL 0" to "KL 4" where there are five grades, else "grade 0" and so on."""
    return [f"KL {grade}" if classes == 5 else f"grade {grade}" for grade in range(classes)]


def plain_axes(axes: Axes, x: str, y: str) -> None:
    """Name the axes, and draw them as all figures here have them."""
    axes.set_xlabel(x, size=10, color=INK)
    axes.set_ylabel(y, size=10, color=INK)
    axes.tick_params(labelsize=9, labelcolor=INK, color=FAINT, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["bottom", "left"]].set_color(FAINT)
    axes.grid(True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
