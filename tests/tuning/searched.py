"""Searches with an objective of milliseconds, in this process."""

from collections import Counter

from worker import WORKERS_OWN, suggest

from legradnet.settings import checked
from legradnet.tuning.settings import StudySettings
from legradnet.tuning.study import Search


def settings(url, n_trials=6, **more):
    values = {"storage": url, "study_name": "mine", "n_trials": n_trials, **WORKERS_OWN, **more}
    return checked(StudySettings, values, group="hydra.sweeper")


def searched(url, n_trials=6, objective=lambda run, x: [x], *, enqueue=None, record=None, **more):
    search = Search(settings(url, n_trials, **more), suggest, enqueue=enqueue, record=record)
    search.optimize(objective)
    return search


def states(search):
    return Counter(trial.state.name for trial in search.trials)


def points(search):
    return [trial.params["x"] for trial in search.trials if trial.state.is_finished()]
