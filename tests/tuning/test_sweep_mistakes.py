"""A search that cannot be begun, or not gone on with, says why before it does anything."""

import pytest
from typed_sweeps import CUSTOM, RATES, table


def test_too_many_failures_end_the_search_with_the_reason(search, tmp_path):
    status, out, _ = search(*CUSTOM, RATES, "+trainer.pretend.mistake=0", "hydra.sweeper.max_failures=2")
    assert status == 1
    assert len(table(tmp_path)) == 2
    assert "2 trials failed (max_failures), the last one: a mistake of this trial" in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["tuning=gating", "data=csv"], "data.dataset_path"),
        (["tuning=gating", "data=folder", "data.dataset_path=/nowhere"], "/nowhere"),
        (["tuning=gating", "data.batchsize=4"], "batchsize"),
        (["tuning=gating", "data.batchsize=choice(4,8)"], "batchsize"),
        (["tuning=gating", "optimizer.learning_rate=0"], "optimizer.learning_rate=0"),
        (["tuning=custom"], "Nothing is searched"),
        (["tuning=gating", "hydra.sweeper.n_trials=many"], "hydra.sweeper.n_trials=many"),
        (["tuning=gating", "hydra.sweeper.sampler.name=guess"], "tpe, gp, cmaes, botorch, random, grid, nsgaii"),
        (["tuning=gating", "hydra.sweeper.pruner.name=axe"], "hyperband"),
        (["tuning=gating", "hydra.sweeper.pruner.name=median", "+hydra.sweeper.pruner.colour=1"], "colour"),
        (["tuning=gating", "hydra.sweeper.direction=up"], "maximize, minimize"),
        (["tuning=gating", "hydra.sweeper.direction=[maximize,minimize]"], "as many"),
        (["tuning=gating", "hydra.sweeper.sampler.name=grid"], "range()"),
        (["tuning=gating", "hydra.sweeper.trials=3"], "trials"),
        (["tuning=gating", "hydra.sweeper.storage=nowhere"], "sqlite:///"),
        (["tuning=gating", "hydra.sweeper.custom_search_space=no_such_module.space"], "no_such_module"),
        (["tuning=gating", "hydra.sweeper.enqueue=[{seed: 3}]"], "seed is not searched"),
        (["tuning=gating", "trainer.fast_dev_run=true"], "fast_dev_run"),
        (["tuning=gating", "tuning.folds=true"], "data.num_folds="),
        (["tuning=gating", "tuning.keep_checkpoints=-1"], "tuning.keep_checkpoints=-1"),
    ],
)
def test_a_mistake_is_told_before_anything_is_begun(arguments, words, search, tmp_path):
    status, out, err = search(*arguments)
    assert status in (1, 2) if "batchsize=4" in str(arguments) or "trials=3" in str(arguments) else status == 2
    assert words in err
    assert "Traceback" not in err + out
    assert not list(tmp_path.iterdir())


def test_a_password_on_the_command_line_is_refused_and_not_repeated(search, tmp_path):
    for url in ("postgresql://me:s3cret@127.0.0.1:1/knees", "postgresql://127.0.0.1:1/knees?password=s3cret"):
        status, out, err = search("tuning=gating", f"hydra.sweeper.storage='{url}'")
        assert status == 2 and "${oc.env:NAME}" in err
        assert "s3cret" not in out + err
        assert not list(tmp_path.iterdir())


def test_a_password_in_the_environment_is_in_no_file_and_no_output(search, tmp_path, monkeypatch):
    monkeypatch.setattr("legradnet.tuning.storage._OPENINGS", 1)
    monkeypatch.setenv("LEGRADNET_STORAGE", "postgresql://me:s3cret@127.0.0.1:1/knees")
    status, out, err = search("tuning=gating", "hydra.sweeper.storage='${oc.env:LEGRADNET_STORAGE}'")
    assert status == 2 and "cannot be opened" in err and "Traceback" not in err
    assert "s3cret" not in out + err
    monkeypatch.setenv("LEGRADNET_STORAGE", f"journal:{tmp_path}/s3cret.log")
    quiet = ["hydra.sweeper.n_trials=1", "hydra.sweeper.storage='${oc.env:LEGRADNET_STORAGE}'"]
    status, _, err = search(*CUSTOM, RATES, *quiet)
    assert status == 0, err
    files = [path for path in (tmp_path / "sweep").rglob("*") if path.is_file()]
    assert len(files) > 6
    assert not [path for path in files if b"s3cret" in path.read_bytes()]


def test_another_study_is_refused_with_the_difference(search, tmp_path):
    assert search(*CUSTOM, RATES, "hydra.sweeper.n_trials=1")[0] == 0
    written = (tmp_path / "sweep/trials.csv").read_bytes()
    for change, words in {
        "gating=mlp": "gating.name: was mha, now mlp",
        "optimizer.learning_rate=interval(1e-5,1e-2)": "search of optimizer.learning_rate: was numbers from",
        "hydra.sweeper.direction=minimize": "direction: was maximize, now minimize",
        "hydra.sweeper.study_name=other": "holds trials of another study",
    }.items():
        status, _, err = search(*CUSTOM, RATES, "hydra.sweeper.n_trials=3", change)
        assert status == 2 and words in err, err
        assert (tmp_path / "sweep/trials.csv").read_bytes() == written


def test_a_search_without_m_is_told(run):
    status, _, err = run("tuning=gating")
    assert (status, err.strip()) == (2, "legradnet: tuning= searches with -m: legradnet-train -m tuning=...")
