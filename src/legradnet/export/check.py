"""Does an export grade like its checkpoint?"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.data.synthetic import synthesize
from legradnet.errors import UserError
from legradnet.evaluation.films import LabelledFilms, load_films
from legradnet.evaluation.grading import answers_of
from legradnet.export.settings import ExportSettings
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading
from legradnet.statistics.metrics import grading_metrics

TOLERANCE = 1e-4  # of a float32 probability
_BATCHES = (1, 2, 7)


@dataclass(frozen=True)
class Quality:
    """What an export costs on labelled films.

    Attributes:
        films: How many.
        split: Which of them.
        own: Whether they are those of the checkpoint's training run.
        qwk: Cohen's kappa with quadratic weights, of the checkpoint in float32 and of the export.
        accuracy: The same for the share of right grades.
        changed_grades: Films that the export grades otherwise.
        largest_probability_change: Of all calibrated probabilities.
        measured_in: The precision that this machine's CPU ran the export in.
        unlike: Films that are referred as unlike the training films, by the checkpoint and by the export.
        limit_grows: How many times wider the export's limit has to be to refer no more of them than the checkpoint: it
            sees films through rounding.
    """

    films: int
    split: str
    own: bool
    qwk: tuple[float, float]
    accuracy: tuple[float, float]
    changed_grades: int
    largest_probability_change: float
    measured_in: str
    unlike: tuple[int, int] = (0, 0)
    limit_grows: float = 1.0

    @property
    def qwk_drop(self) -> float:
        """By how much QWK falls; below 0 if it rises, nan where all films have one grade."""
        return self.qwk[0] - self.qwk[1]

    def to_plain(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        plain = asdict(self)
        for name in ("qwk", "accuracy", "unlike"):
            before, after = plain.pop(name)
            both = {f"{name}_checkpoint": before, f"{name}_export": after}
            plain |= {key: None if math.isnan(value) else value for key, value in both.items()}  # JSON has no nan
        return plain


def check_parity(checkpoint: CheckpointNetwork, exported: ExportedNetwork) -> float:
    """As `largest_difference`.

    Raises:
        UserError: It is more than `TOLERANCE`.
    """
    largest = largest_difference(checkpoint, exported)
    if not largest <= TOLERANCE:
        raise UserError(
            f"Nothing was written: on generated knees the export's probabilities differ from the checkpoint's by "
            f"{largest:.2g}, more than {TOLERANCE:g}. Is one of the networks numerically unstable? Please report it."
        )
    return largest


def largest_difference(checkpoint: CheckpointNetwork, exported: ExportedNetwork | CheckpointNetwork) -> float:
    """How far probabilities and gate weights of generated knees, in batches of 1, 2 and 7, are apart at most."""
    size = checkpoint.image_size
    films, _ = synthesize(sum(_BATCHES), size=max(size, 32), seed=0)
    largest, begin = 0.0, 0
    for batch in _BATCHES:
        some = np.ascontiguousarray(films[begin : begin + batch, None, :size, :size])
        begin += batch
        expected, found = _outputs(checkpoint, some), _outputs(exported, some)
        for name, values in expected.items():
            difference = float(np.abs(values - found[name]).max())
            largest = max(largest, difference if np.isfinite(difference) else np.inf)
    return largest


def _outputs(
    network: ExportedNetwork | CheckpointNetwork, films: npt.NDArray[np.uint8]
) -> Mapping[str, npt.NDArray[Any]]:
    """`raw`, `probabilities` and, where the gate gives any, `gate_weights`, by the names that a graph has for them."""
    if isinstance(network, ExportedNetwork):
        return network.outputs(films)
    answers = network(films)
    said = {"raw": answers.probabilities, "probabilities": network.calibration.probabilities(answers.probabilities)}
    return said if answers.gate_weights is None else said | {"gate_weights": answers.gate_weights}


def films_of(settings: ExportSettings, checkpoint: CheckpointNetwork) -> LabelledFilms:
    """The films that `settings` name, as `checkpoint` grades them; UserError where there are none."""
    return load_films(
        settings.data,
        checkpoint.path,
        split=settings.split,
        num_classes=checkpoint.classes,
        image_size=checkpoint.image_size,
        film=settings.film,
    )


def measure_quality(
    checkpoint: CheckpointNetwork,
    exported: ExportedNetwork | CheckpointNetwork,
    films: LabelledFilms,
    *,
    workers: int | None = None,
) -> Quality:
    """Grade labelled films with the checkpoint and with its export.

    Raises:
        ImageError: A film that can't be read.
        UserError: None has a grade.
    """
    answers = [answers_of(Grader([network]), films, workers) for network in (checkpoint, exported)]
    pairs = [(a, b) for a, b in zip(*answers, strict=True) if isinstance(a, Grading) and isinstance(b, Grading)]
    if not pairs:
        raise UserError("Nothing was written: none of these films has a grade to compare (film=, data=).")
    before, after = ([pair[which] for pair in pairs] for which in (0, 1))
    both = [isinstance(a, Grading) and isinstance(b, Grading) for a, b in zip(*answers, strict=True)]
    labels = films.table["label"].to_numpy()[both]
    metrics = []
    for gradings in (before, after):
        probabilities = np.stack([grading.probabilities for grading in gradings])
        metrics.append(grading_metrics(probabilities, np.array([grading.grade for grading in gradings]), labels))
    distances = [np.array([film.distance or 0.0 for film in gradings]) for gradings in (before, after)]
    unlike = [int((of_network > 1).sum()) for of_network in distances]
    changes = [np.abs(old.probabilities - new.probabilities).max() for old, new in zip(before, after, strict=True)]
    return Quality(
        films=len(pairs),
        split=films.split,
        own=films.own is not None,
        qwk=(metrics[0]["qwk"], metrics[1]["qwk"]),
        accuracy=(metrics[0]["accuracy"], metrics[1]["accuracy"]),
        changed_grades=sum(old.grade != new.grade for old, new in zip(before, after, strict=True)),
        largest_probability_change=float(max(changes)),
        measured_in=exported.runs_in if isinstance(exported, ExportedNetwork) else exported.precision,
        unlike=(unlike[0], unlike[1]),
        limit_grows=max(1.0, float(np.sort(distances[1])[::-1][min(unlike[0], len(before) - 1)]) * (1 + 1e-9)),
    )
