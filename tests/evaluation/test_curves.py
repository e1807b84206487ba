import pandas as pd
import pytest

from legradnet.errors import UserError
from legradnet.evaluation.curves import SHOWN, best_epochs, curves_figure, find_runs, read_curves, varied_settings
from legradnet.run_folder import RunFolder


def leave_run(folder, qwk, **config):
    """A run folder with a row an epoch and a config."""
    epochs = len(qwk)
    columns = {f"val/{metric}": [0.5] * epochs for metric in SHOWN} | {"val/qwk": qwk, "train/loss": [0.8] * epochs}
    folder.mkdir(parents=True)
    pd.DataFrame({"epoch": range(epochs), **columns}).to_csv(folder / "metrics.csv", index=False)
    RunFolder(folder).write_config(config)
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two runs of three epochs; the second is better, in its second epoch."""
    return find_runs([leave_run(tmp_path / "a", [0.1, 0.2, 0.3]), leave_run(tmp_path / "b", [0.4, 0.8, 0.6])])


def test_the_best_epoch_of_each_run_is_told_the_best_run_first(runs):
    best = best_epochs(read_curves(runs))
    assert best["run"].tolist() == ["b", "a"]
    assert best["epoch"].tolist() == [1, 2]


def test_curves_have_a_line_a_run_and_a_mark_at_the_best_epoch(runs):
    loss, qwk, *_ = curves_figure(read_curves(runs)).axes
    assert [line.get_ydata().tolist() for line in qwk.lines] == [[0.1, 0.2, 0.3], [0.4, 0.8, 0.6]]
    assert [line.get_markevery() for line in qwk.lines] == [[2], [1]]
    assert len(loss.lines) == 4
    assert qwk.get_xlabel() == "Epoch"
    assert qwk.get_ylabel() == "val/qwk"


def test_a_run_without_any_kappa_is_drawn_without_a_best_epoch(tmp_path):
    found = find_runs([leave_run(tmp_path / "a", [float("nan")] * 2), leave_run(tmp_path / "b", [0.1, 0.2])])
    curves = read_curves(found)
    assert best_epochs(curves)["run"].tolist() == ["b"]
    assert [line.get_markevery() for line in curves_figure(curves).axes[1].lines] == [[], [1]]


def test_runs_of_the_same_name_stay_apart(tmp_path):
    places = [leave_run(tmp_path / sweep / "0", [0.1]) for sweep in ("first", "second")]
    assert list(find_runs(places)) == ["first/0", "second/0"]
    assert list(find_runs([places[0], places[0]])) == ["0"]


def test_a_pattern_finds_the_finished_jobs_of_a_multirun_in_their_order(tmp_path):
    for job in (10, 2, 0):
        leave_run(tmp_path / f"sweep/{job}", [0.1])
    (tmp_path / "sweep/3").mkdir()
    (tmp_path / "sweep/multirun.yaml").touch()
    assert list(find_runs([tmp_path / "sweep/*"])) == ["0", "2", "10"]


def test_a_folder_whose_name_looks_like_a_pattern_is_itself(tmp_path):
    assert list(find_runs([leave_run(tmp_path / "backbone=[vit]", [0.1])])) == ["backbone=[vit]"]


def test_only_settings_in_which_runs_differ_are_told(tmp_path):
    for name, gate in {"a": "mha", "b": "mean"}.items():
        leave_run(tmp_path / name, [0.1], gating={"name": gate}, optimizer={"betas": [0.9, 0.999]}, seed=0)
    settings = varied_settings(find_runs([tmp_path / "a", tmp_path / "b"]))
    assert settings.to_dict("index") == {"a": {"gating.name": "mha"}, "b": {"gating.name": "mean"}}
    assert varied_settings(find_runs([tmp_path / "a"])).empty


def test_runs_without_a_config_have_curves_all_the_same(runs):
    for path in runs.values():
        RunFolder(path).config.unlink()
    assert varied_settings(runs).empty
    assert best_epochs(read_curves(runs)).join(varied_settings(runs), on="run")["run"].tolist() == ["b", "a"]


@pytest.mark.parametrize("place", [".", "run", "*"])
def test_a_place_without_metrics_is_told_with_the_command_that_makes_them(tmp_path, place):
    with pytest.raises(UserError, match=r"no .*metrics\.csv: legradnet-train experiment=quickstart"):
        find_runs([tmp_path / place])


def test_no_place_is_told():
    with pytest.raises(UserError, match="No run folder"):
        find_runs([])
