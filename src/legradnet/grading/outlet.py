"""What else takes the gradings of a run of `legradnet-predict`, beside its tables."""

from collections.abc import Callable, Sequence
from typing import Protocol

from legradnet.data.film import ImageError
from legradnet.data.inputs import InputFilm
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, NotGraded
from legradnet.grading.predictions import Record
from legradnet.grading.settings import PredictSettings
from legradnet.run_folder import RunFolder


class Outlet(Protocol):
    """Takes films as they are graded, each before its line is in the tables: a killed run hands its last ones again."""

    def take(self, film: InputFilm, knees: Sequence[Grading | NotGraded | ImageError], rows: Sequence[Record]) -> None:
        """Take what was graded of a film, and the same as lines of `predictions.jsonl`."""

    def end(self) -> None:
        """All films are there."""


# of settings, run folder, grader, and the names of all films of the run
Outlets = Callable[[PredictSettings, RunFolder, Grader, Sequence[str]], Sequence[Outlet]]
