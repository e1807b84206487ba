"""A film and its gradings on one picture or page: the film, where the evidence lies, and what was graded in words."""

import textwrap
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from legradnet.figures import grade_names
from legradnet.grading.grading import Grading, NotGraded
from legradnet.hospital.graded import GradedFilm
from legradnet.hospital.model import NAME, RESEARCH, Model, own_version, plain_text

_SIZE = 11.0, 7.6  # inches
_DOTS = 100  # an inch
_FAINTEST = 2.0  # the colour scale reaches at least twice an even spread, so that an even map stays pale
_LONGEST_SIDE = 1400  # pixels of the film that are drawn
_LINE = 150  # letters


def drawn(graded: GradedFilm, model: Model) -> npt.NDArray[np.uint8]:
    """The picture, uint8 [H, W, 3]."""
    canvas: Any = FigureCanvasAgg(_figure(graded, model))
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()


def page(graded: GradedFilm, model: Model) -> bytes:
    """The same as a PDF of one page, whose words are text."""
    file = BytesIO()
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure = _figure(graded, model)
        # no date: the object around it has one, and the same film gives the same bytes
        figure.savefig(file, format="pdf", metadata={"CreationDate": None, "Title": f"{NAME}: {RESEARCH}"})
    return file.getvalue()


def _figure(graded: GradedFilm, model: Model) -> Figure:
    lines = words_of(graded, model)
    figure = Figure(_SIZE, dpi=_DOTS, facecolor="black")
    share = 0.05 + 0.028 * len(lines)
    plain, mapped = figure.subplots(1, 2, gridspec_kw={"left": 0.02, "right": 0.98, "top": 0.93, "bottom": share})
    step = max(1, -(-max(graded.gray.shape) // _LONGEST_SIDE))
    gray, evidence = graded.gray[::step, ::step], graded.evidence[::step, ::step]
    for axes, title in ((plain, "film"), (mapped, f"what speaks for the grade ({graded.method})")):
        axes.set_axis_off()
        axes.imshow(gray, cmap="gray", vmin=0, vmax=255)
        axes.set_title(title, fontsize=9, color="white")
    _lay(mapped, evidence)
    for knee in graded.knees:
        if knee.knee and knee.knee.box:
            _frame(plain, graded, knee, step)
    figure.text(0.02, 0.965, f"{NAME} {own_version()}: {RESEARCH.lower()}", fontsize=12, color="#ffd24d", weight="bold")
    for number, line in enumerate(lines):
        place = share - 0.035 - 0.028 * number
        figure.text(0.02, place, line, fontsize=9, color="white", parse_math=False)
    return figure


def _lay(axes: Axes, evidence: npt.NDArray[np.float32]) -> None:
    top = max(_FAINTEST, float(np.quantile(evidence, 0.995)))
    strength = np.clip(evidence / top, 0, 1)
    axes.imshow(evidence, cmap="inferno", vmin=0, vmax=top, alpha=0.75 * np.sqrt(strength))


def _frame(axes: Axes, graded: GradedFilm, knee: Grading | NotGraded, step: int) -> None:
    assert knee.knee is not None and knee.knee.box is not None
    x, y, side = (value / step for value in knee.knee.box)
    colour = "#ffd24d" if isinstance(knee, Grading) else "#999999"
    axes.add_patch(Rectangle((x, y), side, side, fill=False, edgecolor=colour, linewidth=1.2))
    look: dict[str, Any] = {"color": colour, "fontsize": 8, "clip_on": True}
    axes.text(x, y - 4, graded.name_of(knee), **look)


def words_of(graded: GradedFilm, model: Model) -> list[str]:
    """What was graded, in lines: of each knee the grade with probabilities, then why it is referred; then the model."""
    lines: list[str] = []
    for knee in graded.knees:
        lines += textwrap.wrap(_words(knee, graded, model), _LINE, subsequent_indent="    ")
    for words in model.in_words:
        lines += textwrap.wrap(f"Graded by {words}", _LINE, subsequent_indent="    ")
    return [*lines, f"{RESEARCH}. Not verified by a reader."]


def _words(knee: Grading | NotGraded, graded: GradedFilm, model: Model) -> str:
    name = graded.name_of(knee).capitalize()
    if isinstance(knee, NotGraded):
        return plain_text(f"{name}: not graded, referred to a reader: {knee.reason}")
    grades = grade_names(model.classes)
    chances = ", ".join(f"{k}: {p:.2f}" for k, p in enumerate(knee.probabilities))
    words = [f"{name}: {grades[knee.grade]} (probabilities {chances})"]
    if knee.prediction_set:
        words.append(f"plausible {' '.join(map(str, knee.prediction_set))}")
    words.append("referred to a reader" if knee.referred else "not referred")
    return plain_text("; ".join(words) + (f": {knee.reason}" if knee.reason else ""))
