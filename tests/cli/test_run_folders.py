"""Each command has its folder to itself, tells who has it, and tells in a sentence where nothing can be written."""

import datetime
import importlib
import os
import resource
import shlex
import stat
import subprocess

import hydra.core.utils
import pytest

from legradnet.claims import LOCK, claimed
from small_runs import SMALL

IN_A_FOLDER = {  # and that are wrong in no other way than that of the test
    "train": SMALL,
    "predict": ["checkpoint=none.ckpt", "input=films"],
    "evaluate": ["checkpoint=none.ckpt"],
    "explain": ["checkpoint=none.ckpt", "input=films"],
    "benchmark": ["backbone=tiny"],
}
FILLING = {"export": ["checkpoint=none.ckpt"], "synthesize": ["count=2"]}


@pytest.fixture
def disk(tmp_path):
    """Mounts a small disk of the size that is asked for."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("only root may mount a small disk")
        return folder

    yield mount
    while os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


def arguments(command, folder):
    given = {**IN_A_FOLDER, **FILLING}[command]
    return [*given, f"output={folder}" if command in FILLING else f"hydra.run.dir={folder}"]


@pytest.mark.parametrize("command", [*IN_A_FOLDER, *FILLING])
def test_a_command_is_told_who_holds_its_folder(typed, tmp_path, command):
    (tmp_path / "run").mkdir()
    with claimed(tmp_path / "run"):
        done = typed(f"legradnet-{command}", *arguments(command, tmp_path / "run"))
        assert (done.returncode, done.stdout) == (2, "")
        assert f"{tmp_path}/run is held by" in done.stderr and f"process {os.getpid()} on" in done.stderr
        assert "Traceback" not in done.stderr
        assert [path.name for path in (tmp_path / "run").iterdir()] == [LOCK]


@pytest.mark.parametrize("command", [*IN_A_FOLDER, *FILLING])
def test_a_command_tells_that_its_folder_cannot_be_written(typed, disk, command):
    place = disk("size=1m,ro")
    done = typed(f"legradnet-{command}", *arguments(command, place / "run"))
    words = f"legradnet: {place}/run can't be written: the file system is read-only"
    assert (done.returncode, done.stderr.startswith(words), done.stderr.count("\n")) == (2, True, 1), done.stderr


@pytest.mark.parametrize("command", [*IN_A_FOLDER, *FILLING])
def test_a_command_tells_that_a_name_is_too_long(typed, tmp_path, command):
    done = typed(f"legradnet-{command}", *arguments(command, tmp_path / ("a" * 300)))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "can't be written: its name is too long (300 bytes, at most 255" in done.stderr


def test_a_sweep_tells_that_its_folder_cannot_be_written(typed, disk):
    place = disk("size=1m,ro")
    for more in (["seed=1,2"], ["tuning=gating"]):
        done = typed("legradnet-train", "-m", *SMALL, *more, f"hydra.sweep.dir={place}/sweep")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"{place}/sweep can't be written: the file system is read-only" in done.stderr


def test_a_job_of_a_sweep_is_told_who_holds_its_folder_while_the_parent_is_shared(typed, tmp_path):
    with claimed(tmp_path / "sweep/1"):
        done = typed("legradnet-train", "-m", *SMALL, "trainer.fast_dev_run=true", "seed=5,6",
                     f"hydra.sweep.dir={tmp_path}/sweep")  # fmt: skip
    assert done.returncode == 2 and "/sweep/1 is held by" in done.stderr
    assert (tmp_path / "sweep/0").is_dir()


def test_runs_that_begin_in_the_same_second_have_a_folder_each(typed, tmp_path, monkeypatch, trained, knees):
    class OneMoment(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr(hydra.core.utils, "datetime", OneMoment)
    films = sorted(knees.glob("*L.png"))[:3]
    for film in films:
        done = typed("legradnet-predict", f"checkpoint={trained}/checkpoints/best.ckpt", f"input={film}")
        assert done.returncode == 0
    runs = tmp_path / "outputs/predict"
    assert sorted(path.name for path in runs.iterdir()) == [f"2026-01-02_03-04-05{end}" for end in ("", "_2", "_3")]
    rows = [(run / "predictions.csv").read_text().splitlines()[1] for run in sorted(runs.iterdir())]
    assert [row.split(",")[0] for row in rows] == [str(film) for film in films]
    for run in runs.iterdir():
        assert {path.name for path in run.iterdir()} == {
            ".hydra",
            "predict.log",
            "predictions.csv",
            "predictions.jsonl",
        }
        files = [path for path in run.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}  # all of them name the film


@pytest.mark.parametrize("command", ["predict", "explain"])
def test_a_mistake_leaves_no_folder(typed, tmp_path, command):
    assert typed(f"legradnet-{command}", *arguments(command, tmp_path / "run")).returncode == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["predict.log", ".legradnet-lock", ".hydra"])
def test_a_planted_link_reaches_no_other_file(typed, tmp_path, trained, knees, name):
    victim = tmp_path / "victim"
    (victim.mkdir if name == ".hydra" else victim.touch)()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(victim)
    film = next(knees.glob("*.png"))
    done = typed("legradnet-predict", f"checkpoint={trained}/checkpoints/best.ckpt", f"input={film}",
                 f"hydra.run.dir={tmp_path}/run")  # fmt: skip
    assert done.returncode == (0 if name.endswith("log") else 2)
    assert not (list(victim.iterdir()) if name == ".hydra" else victim.read_bytes())


def test_predictions_on_a_full_disk_are_gone_on_with_by_the_command_that_is_told(typed, disk, trained, knees):
    place = disk("size=64k")
    words = [f"checkpoint={trained}/checkpoints/best.ckpt", f"input={knees}", "batch_size=4"]
    (place / "ballast").write_bytes(bytes(40_000))
    done = typed("legradnet-predict", *words, f"hydra.run.dir={place}/run")
    assert done.returncode == 2 and "can't be written: the disk is full" in done.stderr
    assert "/run/predictions." in done.stderr and "Traceback" not in done.stderr
    assert f"To go on: the same command with hydra.run.dir={place}/run resume=true" in done.stdout
    lines, rows = ((place / f"run/predictions.{kind}").read_text().split("\n") for kind in ("jsonl", "csv"))
    assert 4 <= len(lines) - 1 < 40 and (len(lines) - 1) % 4 == 0 and (len(rows) - 2) % 4 == 0  # whole batches
    (place / "ballast").unlink()
    assert typed("legradnet-predict", *words, f"hydra.run.dir={place}/run", "resume=true").returncode == 0
    assert len((place / "run/predictions.csv").read_text().splitlines()) == 41


def test_a_training_on_a_full_disk_is_gone_on_with_by_the_command_that_is_told(typed, disk, tmp_path):
    place = disk("size=12m")
    words = [*SMALL, "data.count=30", "trainer.max_epochs=1", "test=false", "calibration=none"]
    done = typed("legradnet-train", *words, f"hydra.run.dir={place}/run")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "last.ckpt can't be written: the disk is full" in done.stderr and "MB are needed" in done.stderr
    subprocess.run(["mount", "-o", "remount,size=60m", place], check=True)
    assert typed(*shlex.split(done.stdout.partition("To go on: ")[2])).returncode == 0


def test_too_many_open_files_end_a_command_in_a_sentence(typed, tmp_path):
    importlib.import_module("legradnet.cli.synthesize")  # its file too is one
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    os.close(unused := os.dup(0))  # the lowest number that a file could have
    resource.setrlimit(resource.RLIMIT_NOFILE, (unused, before[1]))
    try:
        done = typed("legradnet-synthesize", f"output={tmp_path}/out", "count=1")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert done.returncode == 2 and "too many files open; it needs a higher limit" in done.stderr
