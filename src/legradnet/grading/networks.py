"""What a `Grader` asks of a trained network, whatever runs it: PyTorch, OpenVINO or ONNX Runtime."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Fit
from legradnet.grades import Floats, Rule
from legradnet.grading.calibration import Calibration
from legradnet.grading.distance import Distance
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.metadata import Learned

if TYPE_CHECKING:
    from legradnet.grading.checkpoint_network import HyperParameters


_MOST_PIXELS = 2**26  # of a batch: 1337 films of 224 px, 4 of 4096


class Answers(NamedTuple):
    """What a network says of B films: `logits` [B, outputs], `probabilities` [B, K], `gate_weights` [B, N] or None.

    `distances` [B]: how far they lie from the training films; above 1 a film is unlike them. None where a network has
    not learned that.
    """

    logits: Floats
    probabilities: Floats
    gate_weights: Floats | None
    distances: Floats | None = None


class GradingNetwork(Protocol):
    """A trained network that answers batches of films.

    Attributes:
        path: Where it was read from.
        digest: By which it is known among others, hex digits; "" where an older export has none.
        learned: What training left beside the weights: counts of films, versions.
        classes: Grades K.
        image_size: Side S of the films it takes, pixels.
        fit: How a film becomes square.
        mirror_left: Whether left knees are turned to look like right ones.
        batch_size: Films a batch in training, or as many as memory may be expected for.
        rule: How a grade follows from probabilities.
        calibration: What validation films taught.
        film_check: Limits of a film's look; None if nothing was fitted.
        distance: How far from the training films a film may be; None if nothing was fitted.
        precision: f32, bf16 or int8.
        not_finite: Name of a weight that isn't finite; "" where all are, or can't be looked at.
    """

    path: Path
    digest: str
    learned: Learned
    classes: int
    image_size: int
    fit: Fit
    mirror_left: bool
    batch_size: int
    rule: Rule
    calibration: Calibration
    film_check: FilmCheck | None
    distance: Distance | None
    precision: str
    not_finite: str

    @property
    def settings(self) -> "HyperParameters":
        """What it was built and trained with; needs torch."""

    @property
    def backbones(self) -> tuple[str, ...]:
        """Backbone keys in the order of the gate's weights."""

    @property
    def weighs(self) -> bool:
        """Whether the gate gives each backbone a weight; `concat` gives none."""

    @property
    def parameters(self) -> int:
        """How many parameters it has."""

    @property
    def takes_all_cores(self) -> bool:
        """Whether it works on as many cores as this process has, so that nobody else should meanwhile."""

    def __call__(self, films: npt.NDArray[np.uint8]) -> Answers:
        """Grade `films` uint8 [B, 1, S, S]; the probabilities are not calibrated."""


def batch_of(films: int, *sides: int) -> int:
    """How many of `films` to grade at once if they have these sides, whatever a file says of its training's batches."""
    return min(films, max(1, _MOST_PIXELS // max(sides) ** 2))
