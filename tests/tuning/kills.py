"""Kill the workers of a study at random moments until it is done: `kills.py --kills 100 --storage journal`."""

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


def kill_and_check(storage, kills, n_trials, *, seed=0, workers=2):
    """Run `workers` at once and kill one at a random moment, `kills` times; then let them finish and check all."""
    drawn = random.Random(seed)
    command = [sys.executable, WORKER, storage, str(n_trials), "0.05"]
    finished = {}
    running = [subprocess.Popen(command) for _ in range(workers)]
    done = 0
    while done < kills:
        time.sleep(drawn.uniform(1.5, 4.0))
        victim = drawn.randrange(workers)
        if running[victim].poll() is None:
            running[victim].send_signal(signal.SIGKILL)
            running[victim].wait()
            done += 1
        elif running[victim].returncode:
            raise AssertionError(f"a worker ended with {running[victim].returncode}")
        else:
            break  # the study is done before all kills are
        for trial in trials_of(storage, n_trials):
            if trial.state.is_finished():
                assert finished.setdefault(trial.number, (trial.state, trial.values)) == (trial.state, trial.values)
        running[victim] = subprocess.Popen(command)
    for worker in running:
        assert worker.wait(timeout=300) == 0
    return done, check(storage, n_trials, finished)


def trials_of(storage, n_trials):
    return Search(settings(storage, n_trials), lambda trial: None, known=KNOWN).trials


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
    parser.add_argument("--trials", type=int, default=0, help="default: enough to outlast the kills")
    parser.add_argument("--storage", default="sqlite", help="sqlite, journal, or the URL of a database")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        urls = {"sqlite": f"sqlite:///{folder}/study.db", "journal": f"journal:{folder}/study.log"}
        url = urls.get(arguments.storage, arguments.storage)
        print(*kill_and_check(url, arguments.kills, arguments.trials or 20 * arguments.kills))
