"""Kill the workers of a study at random moments: `kills.py --kills 100 --storage journal`."""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import optuna
from worker import KNOWN, settings

from legradnet.tuning.study import Search
from legradnet.tuning.trial import DEATHS, ORIGIN

WORKER = str(Path(__file__).with_name("worker.py"))
TRIALS_A_KILL = 12


def kill_and_check(storage, kills, *, seed=0, workers=2):
    """Run `workers` at once and kill one at a random moment, `kills` times; then let them finish and check all.

    A kill waits until the study has come on since the one before, so its victim, the oldest worker, is at work.
    """
    drawn = random.Random(seed)
    n_trials = TRIALS_A_KILL * (kills + 1)
    command = [sys.executable, WORKER, storage, str(n_trials), "0.05"]
    finished = {}
    running = [subprocess.Popen(command) for _ in range(workers)]
    for kill in range(kills):
        wanted = TRIALS_A_KILL * kill + drawn.randint(2, TRIALS_A_KILL)
        while len(finished) < wanted:
            for trial in trials_of(storage, n_trials):
                if trial.state.is_finished():
                    assert finished.setdefault(trial.number, (trial.state, trial.values)) == (trial.state, trial.values)
            assert not any(worker.poll() for worker in running), "a worker ended with a mistake"
            time.sleep(0.02)
        time.sleep(drawn.uniform(0, 0.15))
        victim = running.pop(0)
        assert victim.poll() is None, "the study was over before all kills were"
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        running.append(subprocess.Popen(command))
    for worker in running:
        assert worker.wait(timeout=300) == 0
    return check(storage, n_trials, finished)


def trials_of(storage, n_trials):
    return Search(settings(storage, n_trials), lambda trial: None, enqueue=KNOWN).trials


def check(storage, n_trials, finished):
    """Nothing is lost, doubled or changed; the numbers of trials by state."""
    trials = trials_of(storage, n_trials)
    counts = Counter(trial.state.name for trial in trials)
    assert counts["COMPLETE"] + counts["PRUNED"] == n_trials, counts
    assert counts["RUNNING"] == 0, counts
    by_number = {trial.number: trial for trial in trials}
    for number, (state, values) in finished.items():
        assert (by_number[number].state, by_number[number].values) == (state, values)
    origins = Counter(trial.user_attrs.get(ORIGIN) for trial in trials if trial.state.name == "COMPLETE")
    assert all(count == 1 for origin, count in origins.items() if origin), origins
    assert all(trial.user_attrs.get(DEATHS, 0) <= 1 for trial in trials)
    sampled = [trial.params["x"] for trial in trials if trial.state.name == "COMPLETE"]
    assert len(set(sampled)) == n_trials, "a point was tried twice"
    return counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--storage", default="sqlite", help="sqlite, journal, or the URL of a database")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/study.db", "journal": f"journal:{folder}/study.log"}
        url = urls.get(arguments.storage, arguments.storage)
        print(kill_and_check(url, arguments.kills))
