import json
import os
import shlex
from pathlib import Path

import hydra
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from legradnet.benchmark import run as benchmark_run
from legradnet.benchmark import speed as benchmark_speed
from legradnet.benchmark.advice import advise_batch, advise_precision, advise_workers, overrides
from legradnet.benchmark.loading import loading_rates
from legradnet.benchmark.run import benchmark
from legradnet.benchmark.settings import BenchmarkSettings
from legradnet.benchmark.speed import Request, Speed, measure
from legradnet.cli import config_folder
from legradnet.data.settings import DataSettings
from legradnet.errors import UserError
from legradnet.network.backbones import BackboneSettings
from legradnet.settings import checked
from legradnet.training.settings import TrainSettings

TWO = ["backbone=tiny", "~backbone.densenet", "~backbone.xception", "~backbone.convnext", "model.feature_dim=16"]
QUICK = [*TWO, "data.image_size=48", "data.count=20", "data.batch_size=4", "seconds=0.01", "workers=[0,1]"]


def compose(*overrides, name="benchmark"):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(hydra.compose(name, list(overrides)), resolve=True)


def request(batch_size=4, largest_batch=256):
    own = checked(BenchmarkSettings, compose(*QUICK, f"largest_batch={largest_batch}"))
    backbone = {"vit": BackboneSettings(timm_name="tiny_vit", image_size=48)}
    return Request(own, backbone, "f32", batch_size, device="cpu", threads=1)


@pytest.mark.slow
def test_the_command_prints_a_table_and_advice_that_legradnet_train_takes(typed, tmp_path):
    one = [*QUICK, "~backbone.swin", "precisions=[f32]", "largest_batch=8", f"hydra.run.dir={tmp_path}/run"]
    done = typed("legradnet-benchmark", *one)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "run/benchmark.json").read_text())
    speed = result["backbones"]["vit"]["f32"]
    assert result["ensemble"] == speed  # one network alone is the ensemble
    assert min(speed["train"], speed["grade"]) > 0
    assert speed["memory"] > 100e6
    assert speed["largest_batch"] >= 1
    assert speed["problem"] is None
    assert result["loading"].keys() == {"0", "1"}
    assert min(result["loading"].values()) > 0
    for word in ("vit", "together", "Reading generated PNG films", " ".join(result["advice"])):
        assert word in done.stdout
    checked(TrainSettings, compose(*TWO, *result["advice"], name="train"))
    assert result["advice"][0] == "trainer.precision=32-true"  # bf16 was not measured, so nothing speaks for it
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"benchmark.json", "benchmark.log"}

    again = typed("legradnet-benchmark", *QUICK, f"hydra.run.dir={tmp_path}/run")
    assert (again.returncode, "holds another run" in again.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["precisions=[fp8]"], r"precisions=\['fp8'\] must be null or a list of f32, bf16"),
        (["workers=2"], "workers=2 must be null or a list from 0 to 256, such as"),
        (["workers=[-1]"], r"workers=\[-1\] must be null or a list"),
        (["seconds=0", "largest_batch=many"], "(?s)seconds=0 must be a number.*largest_batch=many must be a whole"),
        (["backbone.vit.timm_name=vit_bas"], "knows no model named 'vit_bas'"),
        (["gating.num_heads=3"], "gating.num_heads=3 must divide"),
        (["device=abacus"], "device=abacus: there is no such device here; choose one of auto, cpu"),
        (["data=csv"], "data=csv needs data.dataset_path and data.csv_path"),
        (["augment.rotation=-1"], "augment.rotation=-1 must be a number from 0 to 180"),
    ],
)
def test_a_mistake_is_told_before_the_first_measurement(arguments, words, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_run, "measure", lambda _: pytest.fail("a measurement began"))
    with pytest.raises(UserError, match=words):
        benchmark(compose(*QUICK, *arguments), tmp_path)
    assert not list(tmp_path.iterdir())


def speeds(f32, bf16):
    return {"f32": Speed(train=f32), "bf16": Speed(train=bf16)}


def test_bf16_is_advised_only_where_it_was_faster():
    assert advise_precision({"vit": speeds(10, 30), "swin": speeds(10, 20)}) == (
        "bf16-mixed",
        {"vit": None, "swin": None},
    )
    assert advise_precision({"vit": speeds(10, 30), "densenet": speeds(10, 7)}) == (
        "bf16-mixed",
        {"vit": None, "densenet": "f32"},
    )
    for by in (speeds(10, 7), speeds(10, 10.1), {"f32": Speed(train=10)}, speeds(10, None)):
        assert advise_precision({"vit": by}) == ("32-true", {"vit": None})


def test_a_batch_that_does_not_fit_becomes_several_that_do():
    assert advise_batch(16, 256) == (16, 1)
    assert advise_batch(16, None) == (16, 1)  # nothing is known against it
    assert advise_batch(16, 4) == (4, 4)
    assert advise_batch(20, 8) == (8, 3)
    assert advise_batch(16, 0) is None


def test_the_fewest_reading_processes_that_keep_training_fed_are_advised():
    assert advise_workers({0: 1000, 1: 900, 2: 1800}, training=10) == 0
    assert advise_workers({0: 300, 1: 280, 2: 560, 4: 1000}, training=250) == 1
    assert advise_workers({0: 300, 1: 280, 2: 560, 4: 1000}, training=500) == 2
    assert advise_workers({0: 300, 1: 280}, training=None) is None


def test_advice_is_words_for_the_command_line():
    words = overrides("bf16-mixed", {"vit": None, "swin": "f32"}, (4, 4), 2, True)
    assert shlex.join(words) == (
        "trainer.precision=bf16-mixed backbone.swin.precision=f32 data.batch_size=4 "
        "trainer.accumulate_grad_batches=4 data.num_workers=2 compile=true"
    )
    checked(TrainSettings, compose(*TWO, *words, name="train"))


def advice_when(monkeypatch, tmp_path, answers, *changes):
    asked = []

    def answer(request):
        asked.append(request)
        return answers(request)

    monkeypatch.setattr(benchmark_run, "measure", answer)
    monkeypatch.setattr(benchmark_run, "loading_rates", lambda *_: {0: 1000.0})
    return benchmark(compose(*QUICK, "precisions=[f32,bf16]", *changes), tmp_path)["advice"], asked


def test_the_ensemble_is_measured_as_it_is_advised(monkeypatch, tmp_path):
    def answers(request):
        fast = request.precision == "bf16" and "vit" in request.backbone
        return Speed(20.0 if fast else 10.0, 1.0, 1, 1, 2)

    advice, asked = advice_when(monkeypatch, tmp_path, answers)
    assert advice[:4] == [
        "trainer.precision=bf16-mixed",
        "backbone.swin.precision=f32",
        "data.batch_size=2",
        "trainer.accumulate_grad_batches=2",
    ]
    assert asked[-1].precision == "bf16"
    assert {key: settings.precision for key, settings in asked[-1].backbone.items()} == {"swin": "f32", "vit": None}


def test_compiling_is_advised_only_where_it_was_faster(monkeypatch, tmp_path):
    monkeypatch.setattr(benchmark_run, "check_compiler", lambda _: None)
    for gain in (1.0, 2.0):
        advice, asked = advice_when(
            monkeypatch,
            tmp_path / str(gain),
            lambda request, gain=gain: Speed(10 * gain if request.compiled else 10.0, 1.0, 1, 1, 64),
            "compile=true",
        )
        assert asked[-1].compiled
        assert ("compile=true" in advice) == (gain > 1)


def test_where_not_one_film_fits_there_is_no_advice(monkeypatch, tmp_path, capsys):
    problem = Speed(largest_batch=0, problem="out of memory at batch 4")
    advice, _ = advice_when(monkeypatch, tmp_path, lambda _: problem)
    assert advice == []
    told = capsys.readouterr().out
    assert "out of memory at batch 4" in told
    assert "not even one film fits" in told


class Deadly(Request):
    def __reduce__(self):
        return os._exit, (9,)  # what unpickling it in the other process does


@pytest.mark.slow
def test_a_network_that_dies_of_memory_is_told_and_does_not_take_the_benchmark_with_it():
    speed = measure(Deadly(**vars(request())))
    assert speed.train is None
    assert speed.largest_batch == 0
    assert "the process died, probably of memory" in speed.problem


class DeadlyAbove3(Request):
    def __reduce__(self):
        return (os._exit, (9,)) if self.batch_size > 3 else (Request, tuple(vars(self).values()))


@pytest.mark.slow
def test_of_a_batch_that_is_too_large_half_is_tried_until_it_fits():
    speed = measure(DeadlyAbove3(**vars(request(batch_size=8))))
    assert speed.measured_at == 2
    assert speed.problem is None
    assert 0 < speed.largest_batch <= 2
    assert speed.train > 0


def test_memory_follows_from_what_a_film_takes(monkeypatch):
    taken = 4 * 10**6
    monkeypatch.setattr(benchmark_speed, "free_memory", lambda: 10**9)
    monkeypatch.setattr(benchmark_speed, "_kilobytes", lambda *_: 0)
    room = 0.85 * 10**9
    largest = benchmark_speed._largest_that_fits(5 * 10**8, taken, request(batch_size=16))
    assert largest == 64
    assert 5 * 10**8 + (largest - 16) * taken <= room < 5 * 10**8 + (2 * largest - 16) * taken
    assert benchmark_speed._largest_that_fits(5 * 10**8, taken, request(batch_size=16, largest_batch=40)) == 32
    assert benchmark_speed._largest_that_fits(10**10, taken, request(batch_size=16)) == 0
    assert benchmark_speed._largest_that_fits(None, None, request()) is None


def test_the_search_for_the_largest_batch_on_a_device_ends_where_memory_does():
    def step(size):
        if size > 37:
            raise torch.OutOfMemoryError

    assert benchmark_speed._try_largest(step, 256, torch.device("cpu")) == 32
    assert benchmark_speed._try_largest(step, 16, torch.device("cpu")) == 16


def test_the_users_own_films_are_read_when_given(knees, monkeypatch):
    monkeypatch.setattr("legradnet.benchmark.loading.write_knees", lambda *_, **__: pytest.fail("films were drawn"))
    data = compose(*QUICK, "data=csv", f"data.dataset_path={knees}", f"data.csv_path={knees}/knees.csv")["data"]
    rates = loading_rates(checked(DataSettings, data), 5, [0], 0.01)
    assert rates[0] > 0


def test_generated_films_are_as_many_and_as_large_as_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        "legradnet.benchmark.loading._rates", lambda data, *_: seen.append(data.dataset_path) or {0: 1.0}
    )
    written = []
    monkeypatch.setattr(
        "legradnet.benchmark.loading.write_knees",
        lambda folder, count, *, size, **settings: written.append((count, size)) or folder / "knees.csv",
    )
    loading_rates(checked(DataSettings, compose(*QUICK)["data"]), 5, [0], 0.01)
    assert written == [(20, 48)]
    assert not Path(seen[0]).exists()  # nothing of it stays


def test_an_archive_takes_what_was_measured_of_each_model(trained, knees, tmp_path, capsys):
    models = [str(trained / "checkpoints/best.ckpt")] * 2
    films = ["data=csv", f"data.dataset_path={knees}", f"data.csv_path={knees / 'knees.csv'}", "seconds=0.01"]
    result = benchmark(compose("archive=1e6", *films) | {"checkpoint": models}, tmp_path / "run")
    assert result == json.loads((tmp_path / "run/benchmark.json").read_text())
    assert len(result["grading"]) == 2
    for speed in result["grading"]:
        assert speed["hours"] == pytest.approx(1e6 / speed["rate"] / 3600)
    told = capsys.readouterr().out
    assert told.startswith("1,000,000 films, by ") and told.count("films/s with ") == 2 and "or a day on " in told


def test_an_archive_is_not_measured_on_films_that_cannot_be_read(trained, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0/1L.png").write_bytes(b"no film")
    checkpoint = {"checkpoint": str(trained / "checkpoints/best.ckpt")}
    with pytest.raises(UserError, match="1L.png"):
        benchmark(compose("archive=10", "data=folder", f"data.dataset_path={tmp_path}") | checkpoint, tmp_path / "run")
