"""One trial of a study, as the process that runs it sees it: signs of life, reports, and how it ended."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from legradnet.errors import without_passwords
from legradnet.tuning.settings import StudySettings
from legradnet.tuning.storage import open_storage

log = logging.getLogger(__name__)

# user attributes of a trial
HEARTBEAT = "heartbeat"  # time of its last sign of life, seconds since 1970
FAILURE = "failure"  # why it failed, of its own fault
DIED = "died"  # its process died or was stopped
ORIGIN = "origin"  # of a point that was not sampled: "known:3", "grid:3", or "again:3", the trial it repeats
DEATHS = "deaths"  # how often these parameters have died before
PRUNED_AT = "pruned_at"  # step at which the pruner stopped it

_TRIES = 8  # of a call to the storage; the waits between them add up to about two minutes
_Answer = TypeVar("_Answer")


class GivenUpError(Exception):
    """The study has given this trial up: its result is no longer wanted."""


class TrialRun:
    """A running trial; can be sent to other processes, where it opens the study by itself.

    Args:
        settings: Of the study.
        number: Of the trial.
        folder: What a relative path of the storage is relative to; None is the working folder.
    """

    def __init__(self, settings: StudySettings, number: int, folder: Path | None = None) -> None:
        self.settings, self.number = settings, number
        self._folder = folder or Path.cwd()
        self._opened: tuple[optuna.Study, Trial] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}

    @property
    def _trial(self) -> Trial:
        if self._opened is None:
            # the study's own pruner must be named, else Optuna takes the median; what is sampled was sampled before
            study = optuna.load_study(
                study_name=self.settings.study_name,
                storage=open_storage(self.settings.storage, self._folder),
                sampler=RandomSampler(),
                pruner=self.settings.pruner.make(),
            )
            trial_id = study._storage.get_trial_id_from_study_id_trial_number(study._study_id, self.number)
            self._opened = study, Trial(study, trial_id)
        return self._opened[1]

    @property
    def study(self) -> optuna.Study:
        """The study, which never samples here."""
        return self._trial.study

    @property
    def frozen(self) -> FrozenTrial:
        """The trial as the storage knows it."""
        trial = self._trial
        return self.study._storage.get_trial(trial._trial_id)

    @property
    def pruned(self) -> bool:
        """Whether the pruner has stopped it, in whatever process."""
        return PRUNED_AT in self.frozen.user_attrs

    def check_wanted(self) -> None:
        """Raise GivenUpError if the study does not wait for this trial."""
        if (state := self.frozen.state) is not TrialState.RUNNING:
            raise GivenUpError(f"trial {self.number} is {state.name} in the study")

    def report(self, value: float, step: int) -> bool:
        """Report the objective's value after `step` (epoch or fold); whether the pruner stops the trial here.

        Raises:
            GivenUpError: The study does not wait for this trial.
        """
        if self.settings.many:  # Optuna prunes one objective only
            return False

        def tell() -> bool:
            self._trial.report(value, step)
            if not self._trial.should_prune():
                return False
            self._trial.set_user_attr(PRUNED_AT, step)
            return True

        return self._persistently(tell)

    def finish(self, values: Sequence[float]) -> None:
        """Tell how it ended: pruned, complete with `values`, or failed if one of them is no number."""
        if self.pruned:
            self._persistently(lambda: self.study.tell(self.number, state=TrialState.PRUNED))
        elif all(map(math.isfinite, values)):
            self._persistently(lambda: self.study.tell(self.number, list(values)))
        else:
            self.fail(f"the result is not finite: {list(values)}")

    def fail(self, reason: str) -> None:
        """Tell that it failed of its own fault."""
        reason = without_passwords(reason)
        log.error("Trial %d failed: %s", self.number, reason)

        def tell() -> None:
            self._trial.set_user_attr(FAILURE, reason)
            self.study.tell(self.number, state=TrialState.FAIL)

        self._persistently(tell)

    def interrupt(self) -> None:
        """Tell that it was stopped from outside; its parameters are tried again."""
        bury(self.study, self.frozen, interrupted=True)

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Give signs of life while the block runs."""
        with beating(self.study, [self._trial._trial_id], self.settings.heartbeat_interval):
            yield

    def _persistently(self, call: Callable[[], _Answer]) -> _Answer:
        """Answer of `call`, which is repeated while the storage is away: a restarted database must cost no training."""
        for attempt in range(_TRIES):
            try:
                return call()
            except (UpdateFinishedTrialError, ValueError) as error:  # ValueError: what `tell` raises for a finished one
                if self.frozen.state is TrialState.RUNNING:
                    raise
                raise GivenUpError(f"trial {self.number} has been given up by the study") from error
            except (StorageInternalError, OSError) as error:
                if attempt == _TRIES - 1:
                    raise
                log.warning("The study's storage does not answer, trying again: %s", without_passwords(str(error)))
                time.sleep(2**attempt)
        raise AssertionError("unreachable")


@contextmanager
def beating(study: optuna.Study, trial_ids: Sequence[int], interval: float) -> Iterator[None]:
    """Write a sign of life for each trial every `interval` seconds while the block runs.

    A thread: Optuna's own heartbeat works with `Study.optimize` only.
    """
    over = threading.Event()

    def beat() -> None:
        while True:
            for trial_id in trial_ids:
                try:
                    study._storage.set_trial_user_attr(trial_id, HEARTBEAT, time.time())
                except UpdateFinishedTrialError:
                    pass  # finished: it needs no more
                except Exception as error:  # the storage is away: the next beat may find it again
                    log.debug("No heartbeat: %s", without_passwords(str(error)))
            if over.wait(interval):
                return

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def bury(study: optuna.Study, trial: FrozenTrial, *, interrupted: bool = False) -> bool:
    """Fail a trial whose process is gone, and put its parameters back into the queue, once.

    Being stopped by a user does not count as dying. Of several processes that do this at once, one succeeds; a queued
    repetition that turns out to be one too many is recognised by its origin when its turn comes.

    Returns:
        Whether it was still running.
    """
    deaths = trial.user_attrs.get(DEATHS, 0) + (not interrupted)
    params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    origin = f"again:{trial.number}"
    again = deaths <= 1 and bool(params)
    if again and all(other.user_attrs.get(ORIGIN) != origin for other in study.get_trials(deepcopy=False)):
        study.enqueue_trial(params, user_attrs={ORIGIN: origin, DEATHS: deaths})
    try:
        study._storage.set_trial_user_attr(trial._trial_id, DIED, "stopped" if interrupted else "no sign of life")
        if deaths > 1:
            study._storage.set_trial_user_attr(trial._trial_id, FAILURE, "its process died, twice")
        study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False
    return True
