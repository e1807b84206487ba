"""`legradnet-train -m tuning=...` as it is typed, where many trials are needed with a training of milliseconds."""

import math
import subprocess
import sys

import optuna
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf, open_dict
from PIL import Image
from typed_sweeps import CUSTOM, GRID, ONE, RATES, composed, config_of, table

from legradnet.data.datamodule import KneeDataModule
from legradnet.settings import checked
from legradnet.training.settings import TrainSettings


@pytest.mark.parametrize(
    "name", ["learning_rate", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gating", "full"))]
)
def test_a_named_search_runs_and_its_first_trial_is_the_known_point(name, search, tmp_path):
    status, out, err = search(f"tuning={name}", "hydra.sweeper.n_trials=2", "trainer.max_epochs=1")
    assert status == 0, err
    assert (table(tmp_path)["state"] == "complete").all() and len(table(tmp_path)) == 2
    sweeper = composed(f"tuning={name}").hydra.sweeper
    first = table(tmp_path).iloc[0]
    assert first["origin"] == "known:0"
    assert {key: type(value)(first[key]) for key, value in sweeper.enqueue[0].items()} == dict(sweeper.enqueue[0])
    assert "Stopped: 2 of 2 trials are finished." in out
    assert set(sweeper.params) >= set(table(tmp_path).columns[6:-3])


def test_every_choice_of_the_full_search_is_a_config():
    params = composed("tuning=full").hydra.sweeper.params
    groups = {group: params[group].split(",") for group in ("backbone", "loss", "augment", "gating")}
    for index in range(max(map(len, groups.values()))):  # one choice of each group at a time
        plain = composed(*(f"{group}={choices[index % len(choices)]}" for group, choices in groups.items()))
        with open_dict(plain):
            del plain["hydra"]
        checked(TrainSettings, OmegaConf.to_container(plain, resolve=True))
    every = composed("backbone=all")
    for key in params:
        if key.startswith("backbone."):
            assert OmegaConf.select(every, key) is False


@pytest.mark.slow
def test_a_key_of_the_command_line_fixes_what_was_searched_and_joins_the_search(search, tmp_path):
    status, _, err = search(
        "tuning=learning_rate",
        "optimizer.learning_rate=1e-4",
        "optimizer.weight_decay=choice(0.1,0.2)",
        "hydra.sweeper.enqueue=[]",
        "gating=mha,mlp",
        GRID,
    )
    assert status == 0, err
    found = table(tmp_path)
    assert "optimizer.learning_rate" not in found
    configs = [config_of(tmp_path, number) for number in found["number"]]
    assert {config["optimizer"]["learning_rate"] for config in configs} == {1e-4}
    pairs = [(config["gating"]["name"], config["optimizer"]["weight_decay"]) for config in configs]
    assert sorted(pairs) == [("mha", 0.1), ("mha", 0.2), ("mlp", 0.1), ("mlp", 0.2)]


@pytest.mark.slow
def test_values_arrive_in_the_job_with_their_types(search, tmp_path):
    values = "'a,b','null',null,{a:1,b:[x]},[1,2],1.5,2,true,'3'"
    status, _, err = search(*CUSTOM, f"+trainer.note={values}", "++model.num_classes=choice(5)", GRID)
    assert status == 0, err
    notes = [config_of(tmp_path, number)["trainer"]["note"] for number in table(tmp_path)["number"]]
    wanted = ["a,b", "null", None, {"a": 1, "b": ["x"]}, [1, 2], 1.5, 2, True, "3"]
    assert sorted(map(repr, notes)) == sorted(map(repr, wanted))
    again = composed("experiment=best", f"hydra.searchpath=[{tmp_path}/sweep]")
    assert again.trainer.note == config_of(tmp_path, table(tmp_path).query("best")["number"].item())["trainer"]["note"]


def test_backbones_are_searched_as_lists(search, tmp_path):
    status, _, err = search(*CUSTOM, "backbone=choice([lite0],[lite0,lite1])", GRID)
    assert status == 0, err
    found = [list(config_of(tmp_path, number)["backbone"]) for number in (0, 1)]
    assert sorted(found) == [["lite0"], ["lite0", "lite1"]]


def test_best_is_the_best_trial_whatever_was_chosen(run, search, tmp_path, monkeypatch):
    monkeypatch.setenv("FILMS", "films")
    chosen = [
        "experiment=quickstart",
        "backbone=[lite0,tiny]",
        "gating=mlp",
        "+trainer.note='a, b: c'",
        "tuning.folds=false",
    ]
    status, out, err = search(*CUSTOM, RATES, *chosen, "data.cache_dir=${oc.env:FILMS}", "hydra.sweeper.n_trials=2")
    assert status == 0, err
    best = table(tmp_path).query("best")
    assert f"--config-dir {tmp_path}/sweep experiment=best" in out
    written = (tmp_path / "sweep/experiment/best.yaml").read_text()
    assert "${oc.env:FILMS}" in written
    status, shown, err = run("--config-dir", f"{tmp_path}/sweep", "experiment=best", "--cfg", "job", "--resolve")
    assert status == 0, err
    ours, of_trial = yaml.safe_load(shown), config_of(tmp_path, best["number"].item())
    assert of_trial["data"]["cache_dir"] == "${oc.env:FILMS}"  # what the environment holds may be a secret
    theirs = OmegaConf.to_container(OmegaConf.create(of_trial), resolve=True)
    assert ours["test"] is True and ours["calibration"]["name"] == "conformal"
    assert theirs["test"] is False and theirs["calibration"]["name"] is None
    for config in (ours, theirs):
        del config["test"], config["calibration"], config["tuning"]
    assert ours == theirs
    assert list(ours["backbone"]) == list(theirs["backbone"])


def test_a_pruned_trial_is_pruned_and_keeps_its_folder_with_the_last_epoch(search, tmp_path):
    prune = ["hydra.sweeper.pruner.name=median", "+hydra.sweeper.pruner.n_startup_trials=1", "trainer.max_epochs=5"]
    known = "hydra.sweeper.enqueue=[{optimizer.learning_rate: 1e-3},{optimizer.learning_rate: 1e-5}]"
    status, out, err = search(*CUSTOM, *prune, RATES, known, "hydra.sweeper.n_trials=2")
    assert status == 0, err
    assert out.count("Stopped after epoch 0: pruned.") == 1
    found = table(tmp_path)
    assert found["state"].tolist() == ["complete", "pruned"]
    rows = pd.read_csv(tmp_path / "sweep/trial_1/metrics.csv")
    assert rows["epoch"].tolist() == [0] and found["pruned_at"].tolist()[1] == 0
    assert not (tmp_path / "sweep/trial_1/checkpoints").exists()
    (study,) = optuna.get_all_study_names(f"sqlite:///{tmp_path}/sweep/study.db")
    states = [
        trial.state.name
        for trial in optuna.load_study(study_name=study, storage=f"sqlite:///{tmp_path}/sweep/study.db").trials
    ]
    assert states == ["COMPLETE", "PRUNED"]


def test_failing_trials_do_not_end_the_search_and_say_why(search, tmp_path):
    known = ",".join(f"{{optimizer.learning_rate: {rate}}}" for rate in ("1e-2", "1e-3", "1e-4", "1e-5"))
    wrong = ["+trainer.pretend.mistake=5e-3", "+trainer.pretend.error=5e-4", "+trainer.pretend.nan=5e-5"]
    status, _, err = search(*CUSTOM, RATES, *wrong, f"hydra.sweeper.enqueue=[{known}]", "hydra.sweeper.n_trials=1")
    assert status == 0, err
    found = table(tmp_path).set_index("optimizer.learning_rate")
    assert found["state"].to_dict() == {1e-2: "fail", 1e-3: "fail", 1e-4: "fail", 1e-5: "complete"}
    reasons = {1e-2: "a mistake of this trial", 1e-3: "RuntimeError: an error of this trial", 1e-4: "not finite"}
    assert all(reason in found.loc[rate, "reason"] for rate, reason in reasons.items())


@pytest.mark.slow
def test_the_same_command_goes_on_and_touches_nothing_that_is_finished(search, tmp_path):
    assert search(*CUSTOM, RATES, "hydra.sweeper.n_trials=2")[0] == 0
    files = [path for path in (tmp_path / "sweep").glob("trial_*/**/*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    status, out, err = search(*CUSTOM, RATES, "hydra.sweeper.n_trials=4", "tuning.keep_checkpoints=null")
    assert status == 0, err
    assert "4 of 4" in out
    assert {path: path.stat().st_mtime_ns for path in files} == before
    found = table(tmp_path)
    assert found["number"].tolist() == [0, 1, 2, 3]
    assert found["optimizer.learning_rate"].nunique() == 4
    assert search(*CUSTOM, RATES, "hydra.sweeper.n_trials=4")[0] == 0
    assert len(table(tmp_path)) == 4


@pytest.mark.parametrize(
    "key", ["optimized_metric", pytest.param("hydra.sweeper.optimized_metric", marks=pytest.mark.slow)]
)
def test_two_objectives_give_a_front(key, search_with_figures, tmp_path):
    two = [f"{key}=[val/qwk,val/ece]", "hydra.sweeper.direction=[maximize,minimize]"]
    rates = "optimizer.learning_rate=choice(1e-5,1e-3)"
    status, out, err = search_with_figures(*CUSTOM, *two, rates, "model.dropout=0.4", GRID)
    assert status == 0, err
    found = table(tmp_path)
    # the value of the first is measured at the epoch that is best by it
    assert found.query("best")["optimizer.learning_rate"].tolist() == [1e-3] and len(found) == 2
    assert "Pareto front" in out
    assert {path.stem for path in (tmp_path / "sweep/figures").iterdir()} >= {"pareto_front", "history_val_qwk"}


@pytest.mark.slow
def test_a_front_of_many_has_a_file_each_and_no_others(search, tmp_path):
    two = ["optimized_metric=[val/qwk,val/ece]", "hydra.sweeper.direction=[maximize,maximize]"]
    dropouts = "model.dropout=choice(0.1,0.2,0.3)"
    status, _, err = search(*CUSTOM, *two, dropouts, RATES, "hydra.sweeper.n_trials=6")
    assert status == 0, err
    found = table(tmp_path)
    front = {f"pareto_{number}" for number in found.query("best")["number"]}
    assert len(front) > 1
    assert {path.stem for path in (tmp_path / "sweep/experiment").iterdir()} == {"best", *front}


def test_folds_are_averaged_and_pruned_between(search, tmp_path):
    folds = ["tuning.folds=true", "data.num_folds=3"]
    prune = ["hydra.sweeper.pruner.name=median", "+hydra.sweeper.pruner.n_startup_trials=1"]
    known = "hydra.sweeper.enqueue=[{optimizer.learning_rate: 1e-3},{optimizer.learning_rate: 1e-5}]"
    status, _, err = search(*CUSTOM, *folds, *prune, RATES, known, "hydra.sweeper.n_trials=2")
    assert status == 0, err
    found = table(tmp_path)
    assert found["state"].tolist() == ["complete", "pruned"]
    each = [pd.read_csv(tmp_path / f"sweep/trial_0/fold_{fold}/metrics.csv")["val/qwk"].max() for fold in range(3)]
    assert len(set(each)) == 3
    assert found["val/qwk"][0] == pytest.approx(sum(each) / 3)
    assert [path.name for path in (tmp_path / "sweep/trial_1").glob("fold_*")] == ["fold_0"]


@pytest.mark.parametrize(
    ("keep", "left"), [("1", 1), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("0", 0), ("null", 3)))]
)
def test_only_the_best_keep_their_checkpoints_and_none_its_optimiser(keep, left, search, tmp_path):
    status, _, err = search(*CUSTOM, RATES, "hydra.sweeper.n_trials=3", f"tuning.keep_checkpoints={keep}")
    assert status == 0, err
    best = table(tmp_path).sort_values("val/qwk", ascending=False)["folder"][:left]
    kept = [path.parents[1].name for path in (tmp_path / "sweep").rglob("best.ckpt")]
    assert sorted(kept) == sorted(best)
    assert not list((tmp_path / "sweep").rglob("last.ckpt"))


@pytest.mark.slow
def test_what_comes_out_is_a_table_and_figures(search_with_figures, tmp_path):
    status, _, err = search_with_figures(*CUSTOM, RATES, "model.dropout=interval(0,0.5)", "hydra.sweeper.n_trials=4")
    assert status == 0, err
    columns = "number state val/qwk best seconds folder optimizer.learning_rate model.dropout pruned_at origin reason"
    assert list(table(tmp_path).columns) == columns.split()
    for name in ("history", "importance", "parallel_coordinates", "intermediate_values"):
        with Image.open(tmp_path / f"sweep/figures/{name}.png") as figure:
            assert figure.format == "PNG" and min(figure.size) > 300


@pytest.mark.slow
def test_a_search_space_of_the_users_own(search, tmp_path, monkeypatch):
    (tmp_path / "my_space.py").write_text(
        "def space(config, trial):\n"
        "    high = 0.2 if config.gating.name == 'mlp' else 0.1\n"
        "    trial.suggest_float('model.dropout', high, high)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = "hydra.sweeper.custom_search_space=my_space.space"
    status, _, err = search(*CUSTOM, own, "gating=mha,mlp", "hydra.sweeper.n_trials=5")
    assert status == 0, err
    for number in range(5):
        config = config_of(tmp_path, number)
        assert config["model"]["dropout"] == (0.2 if config["gating"]["name"] == "mlp" else 0.1)
    best = composed("experiment=best", f"hydra.searchpath=[{tmp_path}/sweep]")
    assert best.model.dropout in (0.1, 0.2)


def test_a_sweep_never_asks_for_the_test_films_and_one_bad_trial_is_told(run, tmp_path, monkeypatch):
    def forbidden(_):
        raise AssertionError("the test films were asked for")

    monkeypatch.setattr(KneeDataModule, "test_dataloader", forbidden)
    heads = "gating.num_heads=choice(3,4)"
    status, _, err = run("-m", *CUSTOM, *ONE, heads, "test=true", GRID, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 0, err
    found = table(tmp_path).set_index("gating.num_heads")
    assert found["state"].to_dict() == {3: "fail", 4: "complete"}
    assert "num_heads" in found.loc[3, "reason"]
    rows = pd.read_csv(tmp_path / f"sweep/{found.loc[4, 'folder']}/metrics.csv")
    assert math.isclose(rows["val/qwk"].max(), found.loc[4, "val/qwk"])
    assert not list(tmp_path.rglob("test_metrics.json")) and not list(tmp_path.rglob("last.ckpt"))
    assert len(list(tmp_path.rglob("best.ckpt"))) == 1


def test_without_tuning_the_sweeper_is_hydras_own(run):
    status, shown, err = run("--cfg", "hydra", "--package", "hydra.sweeper")
    assert status == 0, err
    assert "BasicSweeper" in shown


def test_the_plugin_costs_other_hydra_apps_nothing(tmp_path):
    program = (
        "import sys, hydra\nfrom hydra.core.plugins import Plugins\nfrom hydra.plugins.sweeper import Sweeper\n"
        "names = {one.__name__ for one in Plugins.instance().discover(Sweeper)}\n"
        "assert 'OptunaSweeper' in names, names\n"
        "slow = {'optuna', 'torch', 'numpy', 'lightning', 'legradnet'} & set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
