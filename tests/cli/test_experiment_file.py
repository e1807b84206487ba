"""An experiment file may be somebody else's: what is wrong in it is told once, in words."""

import pytest


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense: 3", ["nonsense is unknown; there are "]),
        ("model: {width: 3}", ["model.width is unknown; there are feature_dim"]),
        ("model: {feature_dim: wide}", ["model.feature_dim=wide must be a whole number"]),
        ("data: {image_size: 8}", ["data.image_size=8 must be a whole number from 32 to 4096"]),
        ("data: 3", ["data"]),
        ("gating: {name: oracle}", ["gating.name=oracle must be one of mha, mlp, concat, mean"]),
        ("gating: {name: mlp, num_heads: 2}", ["gating.num_heads is unknown"]),
        ("seed: -1\nmodel: {dropout: 2}", ["seed=-1 must be", "model.dropout=2 must be"]),
        ("defaults: [{override /gating: oracle}]", ["gating=oracle is unknown; choose one of concat, mean, mha, mlp."]),
        ("- 3", ["best.yaml must hold keys and their values"]),
        ("defaults: 3", ["best.yaml: defaults must be a list"]),
        ("seed: [1", ["best.yaml can't be read as YAML, line 3, column 1: "]),
        ("seed: 1\nseed: 2", ["best.yaml can't be read as YAML, line 3, column 1: found duplicate key seed"]),
        ("seed: " + "[" * 1100, ["best.yaml can't be read as YAML: it is nested too deep"]),
        ("seed: ${oc.env:NOT_THERE}", ["Environment variable 'NOT_THERE' not found"]),
    ],
)
def test_each_mistake_in_an_experiment_file_is_told_in_words(typed, tmp_path, text, words):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text(f"# @package _global_\n{text}\n")
    done = typed("legradnet-train", "--config-dir", tmp_path, "experiment=best", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert not (tmp_path / "run/checkpoints").exists()


@pytest.mark.parametrize(
    "text",
    [
        "hydra: {callbacks: {mine: {_target_: my_module.Callback}}}",
        "hydra: {job: {env_set: {PYTHONSTARTUP: code.py}}}",
        "hydra: {job_logging: {handlers: {file: {(): my_module.function}}}}",
        "hydra: {sweeper: {custom_search_space: my_module.space}}",
        "hydra: \"${oc.create:'{callbacks: {}}'}\"",
        "defaults: [{override /hydra/launcher: submitit_slurm}]",
        "defaults: [{more@hydra.callbacks.mine: one}]",
        "trainer: {profiler: {_target_: my_module.Profiler}}",
    ],
)
def test_a_file_from_elsewhere_that_names_code_is_refused(typed, tmp_path, text):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/best.yaml").write_text(f"# @package _global_\n{text}\n")
    for choice in (["--config-dir", tmp_path, "experiment=best"], [f"experiment=../../../{tmp_path}/experiment/best"]):
        done = typed("legradnet-train", *choice, f"hydra.run.dir={tmp_path}/run")
        assert done.returncode == 2
        assert "best.yaml is refused: " in done.stderr or (
            choice[0] != "--config-dir" and "best is unknown" in done.stderr
        )
    assert not (tmp_path / "run").exists()


def test_a_group_of_hydra_s_own_is_not_taken_from_elsewhere(typed, tmp_path):
    (tmp_path / "hydra/launcher").mkdir(parents=True)
    (tmp_path / "hydra/launcher/mine.yaml").write_text("_target_: hydra._internal.core_plugins.basic_launcher.Basic\n")
    done = typed("legradnet-train", "--config-dir", tmp_path, "hydra/launcher=mine")
    assert (done.returncode, "mine.yaml is refused: a choice of hydra/launcher" in done.stderr) == (2, True)


def test_a_search_of_ones_own_may_say_how_it_searches(typed, tmp_path):
    (tmp_path / "tuning").mkdir()
    text = "defaults: [custom]\nhydra: {sweep: {dir: here}, sweeper: {n_trials: 3, params: {seed: '1,2'}}}"
    (tmp_path / "tuning/mine.yaml").write_text(f"# @package _global_\n{text}\n")
    done = typed("legradnet-train", "--config-dir", tmp_path, "tuning=mine", "--cfg", "hydra")
    assert done.returncode == 0, done.stderr
    assert "n_trials: 3" in done.stdout
