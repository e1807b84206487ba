"""What a command keeps to itself: warnings of libraries, and what the environment holds."""

import os
import warnings

import pytest
import yaml


def test_a_library_s_warning_is_in_the_log_and_not_before_the_user(typed, tmp_path, monkeypatch):
    def grade(config, run_folder, outlets):
        warnings.warn("checkpoint directory exists", UserWarning, stacklevel=1)
        return True

    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    monkeypatch.setattr("sys.warnoptions", [])
    monkeypatch.setattr("legradnet.grading.run.predict", grade)
    arguments = ["checkpoint=c", "input=films", f"hydra.run.dir={tmp_path}/run"]
    done = typed("legradnet-predict", *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "UserWarning: checkpoint directory exists" in (tmp_path / "run/predict.log").read_text()
    monkeypatch.setenv("PYTHONWARNINGS", "default")  # asked for
    with pytest.warns(UserWarning, match="checkpoint directory exists"):
        typed("legradnet-predict", *arguments)


def test_a_log_line_that_nobody_reads_is_no_fault(typed, tmp_path, monkeypatch):
    def grade(config, run_folder, outlets):
        raise BrokenPipeError

    monkeypatch.setattr("legradnet.grading.run.predict", grade)
    monkeypatch.setattr("os.dup2", lambda *_: None)
    done = typed("legradnet-predict", "checkpoint=c", "input=films", f"hydra.run.dir={tmp_path}/run")
    assert (done.returncode, done.stderr) == (141, "")


def test_what_is_taken_from_the_environment_is_in_no_file(typed, trained, knees, tmp_path, monkeypatch):
    (tmp_path / "s3cret").symlink_to(knees)
    monkeypatch.setenv("FILMS", f"{tmp_path}/s3cret")
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    run = f"hydra.run.dir={tmp_path}/run"
    done = typed("legradnet-predict", best, "input=${oc.env:FILMS}", run)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "run/.hydra/config.yaml").read_text())["input"] == "${oc.env:FILMS}"
    assert not [p for p in (tmp_path / "run").rglob("*") if p.is_file() and b"s3cret" in p.read_bytes()]
    again = typed("legradnet-predict", best, "input=${oc.env:FILMS}", run, "resume=true")
    assert again.returncode == 0, again.stderr
    other = typed("legradnet-predict", best, f"input={knees}", run, "resume=true")
    assert other.returncode == 2 and "input: was ${oc.env:FILMS}, now" in other.stderr


def test_a_value_by_way_of_another_key_is_written_as_a_reference_too(typed, tmp_path, monkeypatch):
    written = {}

    def train(config, run_folder, callbacks):
        from legradnet.run_folder import as_references

        written.update(as_references(config), seen=config["data"]["seed"])

    monkeypatch.setenv("SEED_OF_MINE", "12345")
    monkeypatch.setattr("legradnet.training.run.train", train)
    done = typed("legradnet-train", "seed='${oc.decode:${oc.env:SEED_OF_MINE}}'", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert written["seen"] == 12345
    assert "12345" not in str({**written, "seen": None})


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("=5", "=5 is no setting: a setting is written KEY=VALUE."),
        ("~nothing", "~nothing takes nothing out: there is no nothing."),
        ("--config-name=foo", "--config-name=foo: there is no such config; each command has its own without it."),
        ("data=5", "What a group of configs is set to must be the name of one of its files, as in data=folder."),
        ("backbone=[5]", "What a group of configs is set to must be the name of one of its files, as in data=folder."),
        (
            "backbone=[[vit]]",
            "What a group of configs is set to must be the name of one of its files, as in data=folder.",
        ),
        ("~data=5", "What a group of configs is set to must be the name of one of its files, as in data=folder."),
    ],
)
def test_what_hydra_would_tell_in_its_own_words_is_told_in_one_sentence(typed, argument, words):
    done = typed("legradnet-train", argument)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"legradnet: {words}\n")


@pytest.mark.parametrize(
    ("key", "more"),
    [("hydra.sweeper.storage", ["-m", "tuning=gating"]), ("hydra.run.dir", []), ("hydra.sweep.dir", ["-m"])],
)
def test_an_environment_variable_that_is_not_set_is_told_with_its_key(typed, monkeypatch, recwarn, key, more):
    monkeypatch.delenv("PGURL", raising=False)
    done = typed("legradnet-train", *more, "backbone=tiny", f"{key}=${{oc.env:PGURL}}")
    assert (done.returncode, done.stderr) == (2, f"legradnet: {key}: Environment variable 'PGURL' not found.\n")
    assert not [warned for warned in recwarn if "Callback" in str(warned.message)]


def test_a_name_that_is_not_utf_8_is_told_by_its_bytes(typed, trained):
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    done = typed("legradnet-predict", best, "input=" + os.fsdecode(b"./caf\xe9.png"))
    assert (done.returncode, done.stderr) == (2, "legradnet: input=caf\\xe9.png does not exist.\n")
