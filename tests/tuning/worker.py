"""One worker of a study with an objective of milliseconds, as a process: `worker.py STORAGE N_TRIALS [SLEEP]`."""

import sys
import time

from legradnet.tuning.settings import StudySettings
from legradnet.tuning.study import Search

WORKERS_OWN = {"heartbeat_interval": 0.1, "grace_period": 1.0, "max_failures": None, "seed": 7}


def settings(storage, n_trials):
    return StudySettings(storage=storage, study_name="mine", n_trials=n_trials, **WORKERS_OWN)


def suggest(trial):
    return trial.suggest_float("x", 0, 1)


KNOWN = {f"known:{number}": {"x": number / 8} for number in range(3)}


def main(storage, n_trials, pause=0.01):
    def objective(run, x):
        for step in range(3):
            time.sleep(pause)
            run.report(-abs(x - 0.3), step)
        return [-abs(x - 0.3)]

    Search(settings(storage, n_trials), suggest, enqueue=KNOWN).optimize(objective)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *(float(one) for one in sys.argv[3:]))
