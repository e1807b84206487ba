"""Grading behind the page: one thread, which takes the rows that wait, and can be paused and stopped."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from legradnet.data.film import ImageError
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.predictions import Record, records
from legradnet.grading.whole_films import FilmKind
from legradnet.viewer.pictures import path_of
from legradnet.viewer.worklist import STAMP, Row, Worklist

log = logging.getLogger(__name__)

State = Literal["grading", "paused", "stopped", "done"]
Action = Literal["pause", "resume", "stop"]
_BATCH = 8  # films at most, so that the first is there soon


class BackgroundGrading:
    """Grades the rows of a list that have no record yet, in their order.

    Args:
        worklist: The list.
        load: Gives the grader: called once, in the thread.
        kept: Called with what a batch became, before anybody sees it.
        batch_size: Films a batch; None: a few.
        kind: Of films, as `Grader.stream_knees` has it.
    """

    def __init__(
        self,
        worklist: Worklist,
        load: Callable[[], Grader],
        kept: Callable[[Sequence[Record]], None] = lambda records: None,
        batch_size: int | None = None,
        kind: FilmKind = "auto",
    ) -> None:
        self.worklist, self._load, self._kept, self._batch_size = worklist, load, kept, batch_size
        self.kind: FilmKind = kind
        self.grader: Grader | None = None
        self.error = ""
        self._waiting: deque[Row] = deque(row for row in worklist.rows if row.record is None)
        self._news = threading.Condition()
        self._is_paused = self._is_stopped = self._is_busy = self._is_over = False
        self._thread = threading.Thread(target=self._run, name="grading", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @property
    def state(self) -> State:
        """What it does now."""
        with self._news:
            if not self._waiting and not self._is_busy:
                return "done"
            if self._is_stopped or self.error:
                return "stopped"
            return "paused" if self._is_paused else "grading"

    def add(self, rows: Sequence[Row]) -> None:
        """Let these be graded too."""
        with self._news:
            self._waiting.extend(rows)
            self._news.notify_all()

    def act(self, action: Action) -> None:
        """Pause, go on, or stop for good; a batch that is being graded is finished."""
        with self._news:
            self._is_paused = action == "pause" or (self._is_paused and action != "resume")
            self._is_stopped = self._is_stopped or action == "stop"
            self._news.notify_all()
        self.worklist.touch("")

    def end(self) -> None:
        """Stop, and wait a moment for the batch that is being graded."""
        with self._news:
            self._is_over = self._is_stopped = True
            self._news.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            self.grader = self._load()
            self.worklist.touch("")
            while self._wait():
                self._grade(self.grader)
                self.worklist.touch("")
        except UserError as mistake:
            self._fail(str(mistake))
        except Exception as error:
            log.exception("Grading has ended")
            self._fail(f"Grading has ended by a fault ({type(error).__name__}): the log of the command has it.")

    def _fail(self, words: str) -> None:
        if not self._is_over:
            log.error("%s", words)
            self.error = words
            self.worklist.touch("")

    def _wait(self) -> bool:
        """Wait for rows; False where there will be no more."""
        with self._news:
            while not self._is_over and (self._is_stopped or self._is_paused or not self._waiting):
                self._news.wait()
            self._is_busy = not self._is_over
            return self._is_busy

    def _grade(self, grader: Grader) -> None:
        try:
            taken: deque[Row] = deque()
            few = min(_BATCH, grader.batch_size) if len(self._waiting) > _BATCH else 1
            grader = Grader(grader.networks, batch_size=self._batch_size or few)
            for batch in grader.stream_knees(self._requests(taken), film=self.kind):
                rows = [taken.popleft() for _ in batch]
                made = [records(row.film, knees) for row, knees in zip(rows, batch, strict=True)]
                kept = zip(rows, made, strict=True)
                self._kept([line | {STAMP: row.stamp} for row, of_film in kept for line in of_film])
                for row, of_film in zip(rows, made, strict=True):
                    self.worklist.set_records(row, of_film)
                if self._is_stopped:
                    break
        finally:
            with self._news:
                self._waiting.extendleft(reversed(taken))
                self._is_busy = False

    def _requests(self, taken: deque[Row]) -> Iterator[Request]:
        while True:
            with self._news:
                while self._is_paused and not self._is_stopped:
                    self._news.wait()
                if self._is_stopped or not self._waiting:
                    return
                row = self._waiting.popleft()
                taken.append(row)
            try:
                yield Request(path_of(row), row.side, row.film.knee)
            except ImageError as error:
                yield Request(error, row.side, row.film.knee)
