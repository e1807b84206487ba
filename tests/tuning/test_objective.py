"""What a trial reports, and what it leaves when it is pruned."""

import math

import optuna
import pandas as pd
import pytest
from searched import searched, settings
from typed_sweeps import CUSTOM, ONE, RATES, table
from worker import suggest

from legradnet.run_folder import RunFolder
from legradnet.tuning.best import best_trials
from legradnet.tuning.study import Search
from legradnet.tuning.trial import TrialRun


def test_the_last_epochs_row_is_written_before_a_trial_is_pruned(run, tmp_path, monkeypatch):
    written = []

    def prune(self, study, trial):
        written.append(pd.read_csv(tmp_path / "sweep/trial_0/metrics.csv")["epoch"].tolist())
        return trial.last_step == 1

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", prune)
    arguments = [*CUSTOM, *ONE, RATES, "trainer.max_epochs=4", "hydra.sweeper.pruner.name=median"]
    status, _, err = run("-m", *arguments, "hydra.sweeper.n_trials=1", f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 0, err
    assert written == [[0], [0, 1]]
    assert pd.read_csv(tmp_path / "sweep/trial_0/metrics.csv")["epoch"].tolist() == [0, 1]
    assert table(tmp_path)[["state", "pruned_at"]].to_numpy().tolist() == [["pruned", 1]]


def test_an_undefined_value_is_kept_by_every_storage(storage):
    ((asked, _),) = Search(settings(storage, 1), suggest).next_batch()
    run = TrialRun(settings(storage, 1), asked.number)
    assert not run.report(math.nan, 0)
    assert math.isnan(run.frozen.intermediate_values[0])


@pytest.mark.parametrize(
    "pruner",
    [
        "none",
        {"name": "median", "n_startup_trials": 1},
        {"name": "hyperband", "max_resource": 4},
        {"name": "successive_halving", "min_resource": 1, "reduction_factor": 2},
        {"name": "wilcoxon", "n_startup_steps": 2},
    ],
    ids=str,
)
def test_an_undefined_value_is_the_worst_to_every_pruner_and_never_the_best(url, pruner):
    def objective(run, x):
        value = math.nan if run.number in (0, 3) else float(run.number)
        for step in range(6):
            if run.report(value, step):
                break
        return [value]

    search = searched(url, 4, objective, pruner=pruner)
    undefined = [trial for trial in search.trials if trial.number in (0, 3)]
    assert {trial.state.name for trial in undefined} <= {"PRUNED", "FAIL"}
    assert [trial.number for trial in best_trials(search.study)] == [
        max(trial.number for trial in search.trials if trial.state.name == "COMPLETE")
    ]


def test_an_epoch_with_an_undefined_value_is_not_the_best(tmp_path):
    folder = RunFolder(tmp_path)
    pd.DataFrame({"epoch": range(4), "val/qwk": [math.nan, 0.1, -0.2, math.nan]}).to_csv(folder.metrics, index=False)
    assert folder.best_epoch() == {"epoch": 1, "val/qwk": 0.1}
    pd.DataFrame({"epoch": [0], "val/qwk": [math.nan]}).to_csv(folder.metrics, index=False)
    assert math.isnan(folder.best_epoch()["val/qwk"])  # there is no other
