"""A study that many workers search together and that goes on after any of them is killed."""

import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from legradnet.errors import UserError
from legradnet.tuning.settings import StudySettings
from legradnet.tuning.storage import open_storage
from legradnet.tuning.trial import DEATHS, FAILURE, HEARTBEAT, ORIGIN, GivenUpError, TrialRun, beating, bury

log = logging.getLogger(__name__)

SURPLUS = "surplus"  # user attribute of a trial that was drawn while another worker drew the last one
_RECORD = "legradnet"  # user attribute of the study: its search space and fixed settings
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_LIVE = (*_DONE, TrialState.RUNNING)

Points = Mapping[str, Mapping[str, Any]]


class Search:
    """One worker's view of a study; any number of workers on one storage share the trials.

    Args:
        settings: The study and how it is searched.
        suggest: Draws the parameters of a trial with its `suggest_*` methods; whatever it returns goes with the trial.
        record: What must be the same for all trials, as text by name: search space, fixed settings.
        enqueue: Points to try before anything is sampled, as parameters by origin; origins beginning with `grid:` are
            a whole grid, besides which nothing is sampled.
        folder: What a relative path of the storage is relative to; None is the working folder.

    Raises:
        UserError: The storage can't be opened, or the study in it has another space, settings or objective.
    """

    def __init__(
        self,
        settings: StudySettings,
        suggest: Callable[[Trial], Any],
        *,
        record: Mapping[str, str] | None = None,
        enqueue: Points | None = None,
        folder: Path | None = None,
    ) -> None:
        self.settings, self.suggest, self.folder = settings, suggest, folder
        self.points = dict(enqueue or {})
        self.grid = settings.sampler.name == "grid"
        self.study = optuna.create_study(
            storage=open_storage(settings.storage, folder),
            study_name=settings.study_name,
            directions=[StudyDirection[direction.upper()] for direction in settings.direction],
            sampler=settings.sampler.make(settings.seed),
            pruner=settings.pruner.make(),
            load_if_exists=True,
        )
        self._check_record({"direction": ", ".join(settings.direction), **(record or {})})
        self._enqueue_points()
        self._started = time.monotonic()
        self._beats: dict[int, tuple[Any, float]] = {}

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials but those drawn in vain."""
        return [trial for trial in self.study.get_trials(deepcopy=False) if SURPLUS not in trial.user_attrs]

    @property
    def failures(self) -> list[str]:
        """Why trials failed of their own fault, in the order of their numbers."""
        return [trial.user_attrs[FAILURE] for trial in self.trials if FAILURE in trial.user_attrs]

    def next_batch(self) -> list[tuple[Trial, Any]]:
        """Up to `n_jobs` trials to run, each with what `suggest` said of it; empty when the search is over.

        Waits while all that is left runs elsewhere, and gives up on what has died there.
        """
        while not self.why_over():
            self._bury_dead()
            batch: list[tuple[Trial, Any]] = []
            while len(batch) < self.settings.n_jobs and (drawn := self._draw()):
                batch.append(drawn)
            if batch:
                return batch
            time.sleep(min(1.0, self.settings.heartbeat_interval) * random.uniform(0.5, 1))
        return []

    def beating(self, batch: Sequence[tuple[Trial, Any]]) -> AbstractContextManager[None]:
        """Give signs of life for trials that may wait for their processes to start."""
        return beating(self.study, [trial._trial_id for trial, _ in batch], self.settings.heartbeat_interval)

    def optimize(self, objective: Callable[[TrialRun, Any], Sequence[float]]) -> None:
        """Search in this process: `objective` gets a trial to report to and what `suggest` said, and gives values."""
        while batch := self.next_batch():
            for trial, suggested in batch:
                run = TrialRun(self.settings, trial.number, self.folder)
                with run.beating():
                    try:
                        values = objective(run, suggested)
                        run.finish(values)
                    except GivenUpError as reason:
                        log.warning("Nothing is told of this trial: %s.", reason)
                    except Exception as error:
                        run.fail(f"{type(error).__name__}: {error}")
                    except BaseException:
                        run.interrupt()
                        raise

    def why_over(self) -> str | None:
        """Why no more trials are to be started, or None."""
        trials = self.trials
        done = sum(trial.state in _DONE for trial in trials)
        if self.settings.n_trials is not None and done >= self.settings.n_trials:
            return f"{done} of {self.settings.n_trials} trials are finished"
        if self.too_many_failures:
            failures = self.failures
            return f"{len(failures)} trials failed (max_failures), the last one: {failures[-1]}"
        if self.settings.timeout is not None and time.monotonic() - self._started >= self.settings.timeout:
            return f"{self.settings.timeout:g} seconds are over (timeout)"
        if self.grid and not any(trial.state in (TrialState.WAITING, TrialState.RUNNING) for trial in trials):
            return f"all {len(self.points)} points of the grid were tried"
        return None

    @property
    def too_many_failures(self) -> bool:
        """Whether `max_failures` is reached."""
        return self.settings.max_failures is not None and len(self.failures) >= self.settings.max_failures

    def _draw(self) -> tuple[Trial, Any] | None:
        trials = self.trials
        if self._full([trial for trial in trials if trial.state in _LIVE]):
            return None
        if self.grid and not any(trial.state is TrialState.WAITING for trial in trials):
            return None
        trial = self.study.ask()
        # nothing locks a study between counting its trials and adding one: whoever came second stands back
        if self._is_surplus(trial):
            self.study._storage.set_trial_user_attr(trial._trial_id, SURPLUS, True)
            self.study.tell(trial, state=TrialState.FAIL)
            return None
        try:
            suggested = self.suggest(trial)
        except Exception as error:
            trial.set_user_attr(FAILURE, f"{type(error).__name__}: {error}")
            self.study.tell(trial, state=TrialState.FAIL)
            log.error("Trial %d failed: %s", trial.number, error)
            return None
        return trial, suggested

    def _full(self, live: Sequence[FrozenTrial]) -> bool:
        return self.settings.n_trials is not None and len(live) >= self.settings.n_trials

    def _is_surplus(self, trial: Trial) -> bool:
        others = [other for other in self.trials if other.number != trial.number]
        origin = trial.user_attrs.get(ORIGIN)
        if origin is None:
            if self.grid:
                return True
            return self._full([other for other in others if other.state in _LIVE and other.number < trial.number])
        if any(other.user_attrs.get(ORIGIN) == origin and other.number < trial.number for other in others):
            return True
        kind, _, name = origin.partition(":")
        if kind == "again" and any(o.number == int(name) and o.state is not TrialState.FAIL for o in others):
            return True
        if self._full([other for other in others if other.state in _LIVE]):
            fixed = self.study._storage.get_trial(trial._trial_id).system_attrs["fixed_params"]
            self._enqueue(origin, fixed, deaths=trial.user_attrs.get(DEATHS, 0))
            return True
        return False

    def _enqueue_points(self) -> None:
        points = list(self.points.items())
        if self.grid and self.settings.n_trials is not None:
            points = points[: self.settings.n_trials]  # more are added when the study is resumed for more
        origins = {trial.user_attrs.get(ORIGIN) for trial in self.trials}
        for origin, params in points:
            if origin not in origins:
                self._enqueue(origin, params)

    def _enqueue(self, origin: str, params: Mapping[str, Any], deaths: int = 0) -> None:
        self.study.enqueue_trial(dict(params), user_attrs={ORIGIN: origin, DEATHS: deaths})

    def _bury_dead(self) -> None:
        """Give up on running trials whose sign of life has not changed for `grace_period` seconds of our own clock."""
        now = time.monotonic()
        for trial in self.trials:
            if trial.state is not TrialState.RUNNING:
                continue
            beat = trial.user_attrs.get(HEARTBEAT)
            last, since = self._beats.setdefault(trial.number, (beat, now))
            if last != beat:
                self._beats[trial.number] = (beat, now)
            elif now - since >= self.settings.grace_period and bury(self.study, trial):
                log.warning("Trial %d has given no sign of life: it counts as dead.", trial.number)

    def _check_record(self, record: dict[str, str]) -> None:
        directions = tuple(direction.name.lower() for direction in self.study.directions)
        before = self.study.user_attrs.get(_RECORD)
        if before is None and directions == self.settings.direction:
            self.study.set_user_attr(_RECORD, record)
            return
        before = before or {"direction": ", ".join(directions)}
        if changed := sorted(key for key in before.keys() | record.keys() if before.get(key) != record.get(key)):
            differences = "\n".join(f"  {key}: was {before.get(key)}, now {record.get(key)}" for key in changed)
            raise UserError(
                f"The study {self.settings.study_name!r} was begun otherwise, and its trials would not compare; choose "
                f"another hydra.sweeper.study_name= (and hydra.sweep.dir=) or undo this:\n{differences}"
            )
