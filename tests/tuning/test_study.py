"""A study is searched by many workers, goes on after any of them is gone, and ends with what was asked for."""

import math
import pickle
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from searched import points, searched, settings, states
from worker import KNOWN, suggest

from legradnet.errors import UserError
from legradnet.tuning import trial as trial_module
from legradnet.tuning.best import best_trials
from legradnet.tuning.study import Search
from legradnet.tuning.trial import DEATHS, FAILURE, ORIGIN, GivenUpError, TrialRun, bury

WORKER = Path(__file__).with_name("worker.py")


def test_n_trials_is_the_total_and_resuming_runs_the_rest(storage):
    assert states(searched(storage, 3)) == {"COMPLETE": 3}
    ran = []
    search = searched(storage, 8, lambda run, x: [ran.append(x) or x])
    assert states(search) == {"COMPLETE": 8}
    assert len(ran) == 5
    assert search.why_over() == "8 of 8 trials are finished"
    assert states(searched(storage, 5)) == {"COMPLETE": 8}


def test_several_workers_share_the_trials_and_none_is_doubled(storage):
    commands = [[sys.executable, str(WORKER), storage, "12"] for _ in range(3)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    for worker in workers:
        assert worker.wait(timeout=120) == 0, worker.stderr.read()
    search = Search(settings(storage, 12), suggest, enqueue=KNOWN)
    complete = [trial for trial in search.trials if trial.state is TrialState.COMPLETE]
    assert len(complete) == len({trial.params["x"] for trial in complete}) == 12
    origins = Counter(trial.user_attrs.get(ORIGIN) for trial in complete)
    assert [origins[origin] for origin in KNOWN] == [1, 1, 1]


def test_known_points_come_first_and_once_also_after_a_resume(storage):
    for n_trials in (2, 6):
        search = searched(storage, n_trials, enqueue=KNOWN)
    assert points(search)[:3] == [0, 1 / 8, 2 / 8]
    assert len(points(search)) == 6


def test_a_resumed_search_draws_the_points_of_one_never_stopped(tmp_path):
    whole = searched(f"sqlite:///{tmp_path}/whole.db", 12)
    for n_trials in (4, 11, 12):
        parts = searched(f"sqlite:///{tmp_path}/parts.db", n_trials)
    assert points(parts) == points(whole)
    assert len(set(points(whole))) == 12
    assert points(searched(f"sqlite:///{tmp_path}/other.db", 12, seed=8)) != points(whole)


@pytest.mark.parametrize(
    "sampler",
    [
        *("tpe", "random", "nsgaii"),
        {"name": "gp", "n_startup_trials": 2},
        {"name": "tpe", "multivariate": True},
        {"name": "cmaes", "n_startup_trials": 2, "popsize": 4},
        {"name": "botorch", "n_startup_trials": 2},
    ],
    ids=str,
)
def test_each_sampler_searches_and_a_stopped_search_draws_the_same_points(tmp_path, sampler):
    name = sampler if isinstance(sampler, str) else sampler["name"]
    if name in ("cmaes", "botorch"):
        pytest.importorskip(name)

    def plane(trial):  # cmaes needs two dimensions
        return trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)

    drawn = {}
    for studied, stops in (("whole", (6,)), ("parts", (3, 6))):
        for n_trials in stops:
            search = Search(settings(f"journal:{tmp_path}/{studied}.log", n_trials, sampler=sampler), plane)
            search.optimize(lambda run, point: [-sum((value - 0.3) ** 2 for value in point)])
        assert states(search) == {"COMPLETE": 6}
        drawn[studied] = [trial.params for trial in search.trials]
    assert drawn["parts"] == drawn["whole"]
    assert any("cma:" in key for trial in search.trials for key in trial.system_attrs) == (name == "cmaes")


@pytest.mark.parametrize(
    "pruner",
    [
        {"name": "median", "n_startup_trials": 1},
        {"name": "hyperband", "max_resource": 4},
        {"name": "successive_halving", "min_resource": 1, "reduction_factor": 2},
        {"name": "wilcoxon", "n_startup_steps": 2, "p_threshold": 0.4},
    ],
)
def test_each_pruner_stops_bad_trials_and_they_count_as_finished(url, pruner):
    def objective(run, x):
        value = float(run.number == 0)  # all others are worse
        for step in range(6):
            if run.report(value - step / 10, step):
                break
        return [value]

    search = searched(url, 8, objective, pruner=pruner)
    assert states(search)["PRUNED"] >= 3
    assert states(search).total() == 8
    for trial in search.trials:
        if trial.state is TrialState.PRUNED:
            assert trial.value == trial.intermediate_values[trial.last_step]
            assert FAILURE not in trial.user_attrs


def test_without_a_pruner_nothing_is_pruned(url):
    def objective(run, x):
        assert not any(run.report(-float(run.number), step) for step in range(6))
        return [x]

    assert states(searched(url, 9, objective)) == {"COMPLETE": 9}  # Optuna's own choice would be the median


def test_a_grid_tries_every_point_once_whatever_n_trials_is(storage):
    grid = {f"grid:{number}": {"x": number / 4} for number in range(4)}
    search = searched(storage, 2, enqueue=grid, sampler="grid")
    assert states(search)["COMPLETE"] == 2
    search = searched(storage, 99, enqueue=grid, sampler="grid")
    assert sorted(points(search)) == [0, 0.25, 0.5, 0.75]
    assert search.why_over() == "all 4 points of the grid were tried"


def test_a_failed_trial_is_one_and_the_search_goes_on(url):
    def objective(run, x):
        if run.number == 1:
            raise ZeroDivisionError("by nought")
        return [math.nan if run.number == 2 else math.inf if run.number == 3 else x]

    search = searched(url, 4, objective)
    assert states(search) == {"COMPLETE": 4, "FAIL": 3}
    assert search.failures == [
        "ZeroDivisionError: by nought",
        "the result is not finite: [nan]",
        "the result is not finite: [inf]",
    ]


def test_too_many_failures_end_the_search_with_the_last_reason(url):
    search = searched(url, 4, lambda run, x: 1 / 0, max_failures=3)
    assert states(search) == {"FAIL": 3}
    assert search.too_many_failures
    assert search.why_over() == "3 trials failed (max_failures), the last one: ZeroDivisionError: division by zero"


def test_after_timeout_no_trial_is_begun(url):
    search = searched(url, None, lambda run, x: [time.sleep(1.1) or x], timeout=2)
    assert 1 <= states(search)["COMPLETE"] <= 2
    assert "timeout" in search.why_over()


def test_several_objectives_leave_a_pareto_front(url):
    several = {"direction": ["maximize", "minimize"], "optimized_metric": ["val/qwk", "val/ece"]}

    def objective(run, x):
        assert not run.report(x, 0)  # Optuna prunes one objective only
        return [x, x**2 if run.number else 2.0]  # the first is dominated unless it has the highest x

    search = searched(url, 8, objective, **several)
    front = best_trials(search.study)
    assert len(front) >= 7
    assert [trial.values[0] for trial in front] == sorted((trial.values[0] for trial in front), reverse=True)


def test_what_a_dead_worker_was_trying_is_tried_once_more(storage):
    first = Search(settings(storage, 3), suggest)
    ((lost, _),) = first.next_batch()  # and never heard of again
    search = searched(storage, 3)
    trials = {trial.number: trial for trial in search.trials}
    assert trials[lost.number].state is TrialState.FAIL
    (again,) = [trial for trial in trials.values() if trial.user_attrs.get(ORIGIN) == f"again:{lost.number}"]
    assert again.state is TrialState.COMPLETE
    assert again.params == lost.params
    assert states(search) == {"COMPLETE": 3, "FAIL": 1}
    assert search.failures == []  # dying is not the parameters' fault, once


def test_parameters_that_have_died_twice_are_given_up(url):
    for _ in range(2):
        Search(settings(url, 1), suggest).next_batch()  # the second one gets what the first one was trying
    search = searched(url, 1)
    assert search.failures == ["its process died, twice"]
    assert [trial.params["x"] for trial in search.trials[:2]] == [search.trials[0].params["x"]] * 2
    assert states(search) == {"FAIL": 2, "COMPLETE": 1}


def test_a_trial_that_was_stopped_by_hand_is_tried_again_as_often_as_that(url):
    for _ in range(3):

        def stop(run, x):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            searched(url, 2, stop)
    search = searched(url, 2)
    assert states(search) == {"COMPLETE": 2, "FAIL": 3}
    assert len({trial.params["x"] for trial in search.trials if trial.number < 4}) == 1
    assert all(trial.user_attrs.get(DEATHS, 0) == 0 for trial in search.trials)


def test_a_trial_that_was_given_up_and_comes_back_changes_nothing(url):
    search = Search(settings(url, 2), suggest)
    ((asked, _),) = search.next_batch()
    run = TrialRun(settings(url, 2), asked.number)
    assert bury(search.study, run.frozen)
    for tell in (lambda: run.report(1.0, 0), lambda: run.finish([1.0]), lambda: run.fail("x"), run.check_wanted):
        with pytest.raises(GivenUpError):
            tell()
    assert run.frozen.state is TrialState.FAIL
    assert run.frozen.intermediate_values == {}


def test_two_that_bury_one_trial_at_once_try_it_once_more(storage):
    ((lost, _),) = Search(settings(storage, 2), suggest).next_batch()
    searches = [Search(settings(storage, 2), suggest) for _ in range(2)]
    together = threading.Barrier(2)

    def do(search):
        frozen = next(trial for trial in search.study.get_trials() if trial.number == lost.number)
        together.wait()
        return bury(search.study, frozen)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(do, searches)) == [False, True]
    search = searched(storage, 2)
    assert sum(trial.params == lost.params for trial in search.trials if trial.state is TrialState.COMPLETE) == 1
    assert states(search)["COMPLETE"] == 2


def test_another_space_setting_or_objective_is_refused_with_the_difference(storage):
    searched(storage, 1, record={"space of x": "0 to 1", "seed": "0"})
    with pytest.raises(UserError, match=r"(?s)begun otherwise.*\n  seed: was 0, now 1\n  width: was None, now 5"):
        searched(storage, 1, record={"space of x": "0 to 1", "seed": "1", "width": "5"})
    with pytest.raises(UserError, match="direction: was maximize, now minimize"):
        searched(storage, 1, record={"space of x": "0 to 1", "seed": "0"}, direction="minimize")


def test_a_storage_that_is_away_for_a_moment_costs_no_result(url, monkeypatch):
    waits = []
    monkeypatch.setattr(trial_module.time, "sleep", waits.append)

    def objective(run, x):
        away = iter([StorageInternalError("gone"), OSError("gone"), None])
        tell = run.study.tell

        def sometimes(*args, **more):
            if error := next(away):
                raise error
            return tell(*args, **more)

        run.study.tell = sometimes
        return [x]

    assert states(searched(url, 2, objective)) == {"COMPLETE": 2}
    assert waits == [1, 2, 1, 2]


def test_a_running_trial_can_be_sent_to_another_process(url):
    ((asked, _),) = Search(settings(url, 1), suggest).next_batch()
    run = TrialRun(settings(url, 1), asked.number)
    run.report(0.5, 0)
    sent = pickle.loads(pickle.dumps(run))
    assert sent.frozen.intermediate_values == {0: 0.5}
