"""A sweep's `logger=` records the study too: a point a trial, once, offline, in the sweep's folder."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from searched import searched
from typed_sweeps import CUSTOM, ONE, RATES, table

from legradnet.tuning.record import StudyRecord


def tensorboard_points(folder):
    """Of each trial that is recorded: its objectives and settings."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    points = {}
    for place in (folder / "tensorboard").iterdir():
        (events,) = place.iterdir()
        read = EventAccumulator(str(events)).Reload()
        values = {tag: read.Scalars(tag)[0].value for tag in read.Tags()["scalars"]}
        started = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        params = HParamsPluginData.FromString(started).session_start_info.hparams
        points[int(place.name.removeprefix("trial_"))] = (
            values,
            {name: value.number_value for name, value in params.items()},
        )
    return points


def mlflow_points(folder):
    pytest.importorskip("mlflow")
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow import MlflowClient

    client = MlflowClient(f"file:{folder / 'mlruns'}")
    runs = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {
        int(run.data.tags["number"]): (run.data.metrics, {key: float(text) for key, text in run.data.params.items()})
        for run in runs
    }


def wandb_records(file):
    """Records of wandb's transaction log: LevelDB's format in blocks of 32 KiB, after a header of 7 bytes."""
    whole, place, record = file.read_bytes(), 7, b""
    while place + 7 <= len(whole):
        if 2**15 - place % 2**15 < 7:  # no header fits into the rest of the block
            place += 2**15 - place % 2**15
            continue
        _, length, kind = struct.unpack("<IHB", whole[place : place + 7])
        record += whole[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def wandb_points(folder):
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    points = {}
    for file in (folder / "wandb").glob("offline-run-*/run-*.wandb"):
        values = {}
        for data in wandb_records(file):
            record = Record.FromString(data)
            values |= {item.key or item.nested_key[0]: float(item.value_json) for item in record.history.item}
        number = int(values.pop("trial_number"))
        assert number not in points
        points[number] = (
            {key: value for key, value in values.items() if key.startswith("val/")},
            {key: value for key, value in values.items() if key == "x"},
        )
    return points


READ = {"tensorboard": tensorboard_points, "mlflow": mlflow_points, "wandb": wandb_points}


def record_of(logger, search, folder):
    return StudyRecord(logger, search.study, search.settings.optimized_metric, folder)


def failing(run, x):
    if run.number == 1:
        raise ZeroDivisionError
    return [x]


@pytest.mark.parametrize("logger", ["tensorboard", "mlflow", pytest.param("wandb", marks=pytest.mark.slow)])
def test_each_trial_is_a_point_with_its_settings_and_a_resumed_search_adds_the_rest(logger, tmp_path, url):
    pytest.importorskip(logger)
    for n_trials in (2, 4):
        search = searched(url, n_trials, failing)
        for _ in range(2):  # adding the same again adds nothing
            record_of(logger, search, tmp_path).add(search.trials)
    points = READ[logger](tmp_path)
    assert sorted(points) == [trial.number for trial in search.trials] == [0, 1, 2, 3, 4]
    for trial in search.trials:
        values, params = points[trial.number]
        assert params == pytest.approx({"x": trial.params["x"]})
        assert {key: value for key, value in values.items() if key == "val/qwk"} == (
            {} if trial.number == 1 else {"val/qwk": pytest.approx(trial.value)}
        )


@pytest.mark.parametrize(
    ("logger", "last"),
    [
        ("tensorboard", "legradnet.tuning.record._move"),
        ("mlflow", "optuna_integration.mlflow.MLflowCallback._set_tags"),
        ("wandb", "legradnet.tuning.record._move"),
    ],
)
def test_a_search_that_is_stopped_while_it_records_leaves_no_half_point(logger, last, tmp_path, url, monkeypatch):
    pytest.importorskip(logger)
    search = searched(url, 2)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(last, stop)
        with pytest.raises(KeyboardInterrupt):
            record_of(logger, search, tmp_path).add(search.trials)
    record_of(logger, search, tmp_path).add(search.trials)
    assert sorted(READ[logger](tmp_path)) == [0, 1]


@pytest.mark.slow
def test_workers_that_record_at_once_record_each_trial_once(tmp_path, url):
    pytest.importorskip("mlflow")  # whose runs have no names that could be taken
    search = searched(url, 8)
    program = (
        "import sys; from pathlib import Path; from searched import settings\n"
        "from legradnet.tuning.record import StudyRecord; from legradnet.tuning.study import Search\n"
        "search = Search(settings(sys.argv[1], 8), lambda trial: None)\n"
        "StudyRecord('mlflow', search.study, ['val/qwk'], Path(sys.argv[2])).add(search.trials)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", program, url, str(tmp_path)]
    workers = [subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}) for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0, 0]
    assert sorted(mlflow_points(tmp_path)) == [trial.number for trial in search.trials]


def test_what_a_logger_cannot_record_costs_no_search_and_is_recorded_later(tmp_path, url, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    search = searched(url, 1)
    record = record_of("tensorboard", search, tmp_path)
    (tmp_path / "tensorboard").touch()  # in the way
    record.add(search.trials)
    assert "logger=tensorboard has not recorded the study" in caplog.text
    (tmp_path / "tensorboard").unlink()
    record.add(search.trials)
    assert sorted(tensorboard_points(tmp_path)) == [0]


def test_a_logger_that_is_not_installed_is_told_before_the_first_trial(search, tmp_path, monkeypatch):
    monkeypatch.setattr("legradnet.tuning.record.find_spec", lambda name: None)
    status, _, err = search(*CUSTOM, RATES, "logger=mlflow")
    assert status == 2
    assert "legradnet: logger=mlflow needs a package that isn't installed: pip install -e '.[loggers]'" in err
    assert not list((tmp_path / "sweep").glob("trial_*"))


@pytest.mark.parametrize(
    ("logger", "own"),
    [
        ("tensorboard", "tensorboard/events.*"),
        pytest.param("mlflow", "mlruns/*/*/meta.yaml", marks=pytest.mark.slow),
        pytest.param("wandb", "wandb/offline-run-*/run-*.wandb", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_records_the_study_and_each_trial_itself(logger, own, run, tmp_path, monkeypatch):
    pytest.importorskip(logger)
    monkeypatch.setenv("WANDB_MODE", "online")  # the record is offline, whatever the environment
    few = ["trainer.max_epochs=1", "hydra.sweeper.n_trials=2", "hydra.sweeper.study_name=mine", f"logger={logger}"]
    dropout = "model.dropout=interval(0,0.5)"
    status, _, err = run("-m", *CUSTOM, *ONE, *few, dropout, f"hydra.sweep.dir={tmp_path}/sweep")
    assert status == 0, err
    assert "has not recorded" not in err and "anonymous" not in err
    assert os.environ["WANDB_MODE"] == "online"
    points = READ[logger](tmp_path / "sweep")
    assert {number: values["val/qwk"] for number, (values, _) in points.items()} == pytest.approx(
        dict(zip(table(tmp_path)["number"], table(tmp_path)["val/qwk"], strict=True))
    )
    for number in (0, 1):
        assert len(list((tmp_path / f"sweep/trial_{number}").glob(own))) == 1
