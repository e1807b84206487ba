"""The node's hands: films of the queue are graded one by one, and leave objects to be sent."""

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from legradnet.data.film import ImageError
from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Grading, NotGraded, Prepared, Request
from legradnet.grading.whole_films import FilmKind, prepare_knees
from legradnet.hospital.graded import ReadKnee
from legradnet.hospital.identity import NoIdentityError, read_identity
from legradnet.hospital.knee_films import why_left_alone
from legradnet.hospital.model import model_of
from legradnet.hospital.objects import objects_of
from legradnet.hospital.queue import Queue, WaitingFilm

log = logging.getLogger(__name__)

_PAUSE = 10.0  # seconds before a full disk is tried again
_LOOK = 60.0  # seconds after which the queue is looked at though nothing was told
_MOST_ERRORS = 3  # of the program over a film before it is given up


class Worker:
    """Grades what waits.

    Args:
        queue: Where films wait.
        grader: That grades them.
        kind: What films are taken for.
        pdf: Whether there is a page too.
        wake: Called when there are objects to be sent.
    """

    def __init__(self, queue: Queue, grader: Grader, kind: FilmKind, *, pdf: bool, wake: Callable[[], None]) -> None:
        self.queue, self.grader, self.kind, self.pdf, self.wake = queue, grader, kind, pdf, wake
        self.model = model_of(grader)
        self.come = threading.Event()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Grade until it is stopped."""
        while not self.stopped.is_set():
            self.come.clear()
            try:
                if film := self.queue.next_film():
                    self._try(film)
                else:
                    self.come.wait(_LOOK)
            except UserError as error:  # of the queue
                log.error("Films wait: %s", error)
                self.stopped.wait(_PAUSE)

    def _try(self, film: WaitingFilm) -> None:
        """Grade one film, whatever comes of it; raises UserError where the queue can't be read or written."""
        try:
            self.work(film)
        except NotWrittenError:
            with suppress(NotWrittenError):
                self.queue.put_back(film)
            raise
        except UserError:
            raise
        except Exception as error:  # the next film is another one; its words might quote this one's header
            log.error("%s is not graded: %s", film.uid, type(error).__name__)
            if film.tries + 1 < _MOST_ERRORS:  # it may have been the machine's fault: it is tried again, after others
                self.stopped.wait(_PAUSE if film.tries else 0)
            else:
                self.queue.give_up(film, "failed", f"an error of the program, {type(error).__name__}")

    def stop(self) -> None:
        """End after the film that is being graded."""
        self.stopped.set()
        self.come.set()

    def work(self, film: WaitingFilm) -> None:
        """Grade one film."""
        if not self.queue.begin(film):
            return
        try:
            identity = read_identity(film.path)
        except NoIdentityError as error:
            self._left(film, str(error))
            return
        reason = "its header has another UID" if identity.film != film.uid else why_left_alone(identity)
        if reason:
            self._left(film, reason)
            return
        knees: list[ReadKnee] = []
        for prepared in prepare_knees(self.grader.networks, Request(film.path), self.kind):
            grading: Prepared | Grading | NotGraded | ImageError = prepared
            if isinstance(prepared, Prepared):
                (grading,) = self.grader.grade_prepared([prepared])
            if isinstance(grading, ImageError) or isinstance(prepared, ImageError):
                words = str(grading).removeprefix(f"{film.path}: ")
                log.warning("%s is not graded: %s", film.uid, words)
                self.queue.give_up(film, "failed", words)
                return
            assert isinstance(grading, Grading | NotGraded)
            knees.append(ReadKnee(prepared, grading))
        when = datetime.fromtimestamp(film.received)
        made = objects_of(self.grader, knees, identity, self.model, when, pdf=self.pdf)
        if not made:
            self._left(film, "; ".join(dict.fromkeys(knee.grading.reason for knee in knees)))
            return
        self.queue.finish(film, made)
        log.info("%s is graded: %s", film.uid, ", ".join(f"{one.kind} {one.uid}" for one in made))
        self.wake()

    def _left(self, film: WaitingFilm, reason: str) -> None:
        log.info("%s is left alone: %s", film.uid, reason)
        self.queue.give_up(film, "left", reason)
