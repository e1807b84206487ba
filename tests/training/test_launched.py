"""Training that torchrun or srun has started: processes, devices and nodes agree, or it is said before all else."""

import sys
from pathlib import Path

import pytest
from lightning.fabric.plugins.environments import LightningEnvironment

from legradnet.errors import UserError
from legradnet.run_folder import RunFolder
from legradnet.training.cluster import cluster_plugins
from legradnet.training.fitting import checkpoint_to_resume
from legradnet.training.launched import Launch, as_launched, check_one_run, launch_of
from legradnet.training.settings import TrainerSettings
from small_runs import SMALL, command


def torchrun(processes, nodes=1):
    return {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": str(processes), "GROUP_WORLD_SIZE": str(nodes), "RANK": "0"}


def srun(processes, nodes=1):
    step = {"SLURM_STEP_NUM_TASKS": str(processes), "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_NTASKS": str(processes)}
    return step | {"SLURM_JOB_ID": "12", "SLURM_STEP_ID": "0"}


def ddp(**changed):
    return TrainerSettings(**({"devices": "auto", "strategy": "ddp_spawn"} | changed))


@pytest.fixture(autouse=True)
def _signals_are_left_alone(monkeypatch):
    """A command of this process would keep SLURM's signal for good, in all later tests."""
    monkeypatch.setattr("legradnet.cli.train.requeue_on_signal", lambda: None)


@pytest.mark.parametrize("started", [torchrun, srun])
def test_devices_and_nodes_that_were_not_given_are_those_that_were_started(started):
    trainer = as_launched(ddp(), started(6, 2))
    assert (trainer.devices, trainer.num_nodes, trainer.strategy) == (3, 2, "ddp")
    same = as_launched(ddp(devices=[0, 1, 2], num_nodes=2), started(6, 2))
    assert (same.devices, same.strategy) == ([0, 1, 2], "ddp")


@pytest.mark.parametrize(
    ("trainer", "environment", "words"),
    [
        (ddp(devices=4), torchrun(2), "torchrun has started 2 processes on 1 node, and trainer.devices=4"),
        (ddp(num_nodes=1), srun(4, 2), "they must be 2 and 2"),
        (ddp(devices=2, num_nodes=3), srun(4, 2), "they must be 2 and 2"),
        (ddp(), srun(5, 2), "srun has started 5 processes on 2 nodes, which are not as many on each"),
        (ddp(num_nodes=2), srun(1), "and srun has started 1 process on 1 node: srun --nodes=2"),
        (ddp(num_nodes=2), {}, "needs torchrun or srun"),
        (TrainerSettings(num_nodes=2), {"SLURM_NTASKS": "2"}, "needs torchrun or srun"),
        (ddp(devices=2), {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "srun has to start them"),
        (TrainerSettings(), torchrun(2), "each of which would train alone: add trainer=ddp"),
        (ddp(), torchrun("two"), "are no numbers"),
    ],
)
def test_what_would_wait_for_ever_is_one_sentence(trainer, environment, words):
    with pytest.raises(UserError, match=words):
        as_launched(trainer, environment)


@pytest.mark.parametrize("environment", [{}, {"SLURM_NTASKS": "1"}, srun(1), srun(4), torchrun(1), {"RANK": "1"}])
def test_one_process_trains_alone_as_it_always_did(environment):
    assert as_launched(TrainerSettings(), environment) == TrainerSettings()
    assert as_launched(TrainerSettings(num_nodes=1), environment) == TrainerSettings(num_nodes=1)


def test_devices_that_a_run_starts_itself_stay_as_they_are():
    assert as_launched(ddp(devices=2), {}) == ddp(devices=2)
    assert launch_of(srun(1)) is None and launch_of(torchrun(2)) == Launch("torchrun", 2, 1)


def test_srun_without_ddp_would_train_several_times_and_a_search_with_it_would_wait_for_ever(typed, monkeypatch):
    for name, value in srun(2).items():
        monkeypatch.setenv(name, value)
    alone = typed("legradnet-train", *SMALL)
    assert (alone.returncode, alone.stderr.count("\n")) == (2, 1)
    assert "srun has started 2 processes on 1 node, each of which would train alone: add trainer=ddp" in alone.stderr
    together = typed("legradnet-train", "-m", *SMALL, "tuning=gating", "trainer=ddp")
    assert (together.returncode, together.stderr.count("\n")) == (2, 1)
    assert "each a worker of the search" in together.stderr
    check_one_run(1, None, srun(2), search=True)
    check_one_run("auto", 2, srun(2, 2), search=False)


def test_all_processes_of_a_step_name_one_folder_and_the_first_alone_writes_in_it(typed, tmp_path, monkeypatch):
    for name, value in (srun(2) | {"SLURM_PROCID": "1"}).items():
        monkeypatch.setenv(name, value)
    seen = []
    monkeypatch.setattr("legradnet.training.run.train", lambda config, folder, **_: seen.append(folder))
    ddp = ["trainer=ddp", "trainer.accelerator=cpu"]
    for rank in ("1", "0"):
        monkeypatch.setenv("SLURM_PROCID", rank)
        assert typed("legradnet-train", *SMALL, *ddp).returncode == 0
        assert [path.name for path in (tmp_path / "outputs/train").rglob("*")] == ["slurm_12_0"]
    assert seen == [str(tmp_path / "outputs/train/slurm_12_0")] * 2


def test_a_later_process_of_torchrun_makes_no_folder_by_a_time_of_its_own(typed, tmp_path, monkeypatch):
    for name, value in (torchrun(2) | {"RANK": "1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("legradnet.training.run.train", lambda *_, **__: None)
    assert typed("legradnet-train", *SMALL, "trainer=ddp", "trainer.accelerator=cpu").returncode == 0
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["outputs", "outputs/train"]


@pytest.mark.parametrize("count", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_a_command_that_is_started_again_goes_on_without_being_told(tmp_path, monkeypatch, count):
    folder = RunFolder(tmp_path)
    folder.last.parent.mkdir()
    monkeypatch.setenv(count, "1")
    assert checkpoint_to_resume(None, folder) is None, "it was stopped before there was anything"
    folder.last.touch()
    assert checkpoint_to_resume(None, folder) == folder.last
    assert checkpoint_to_resume("other/checkpoints/last.ckpt", folder) == folder.last, "and not begun once more"
    monkeypatch.setenv(count, "0")
    with pytest.raises(UserError, match="already holds a run"):
        checkpoint_to_resume(None, folder)


def test_lightning_takes_the_step_for_what_srun_started_and_a_job_for_none(monkeypatch):
    step = srun(4, 2) | {"SLURM_STEP_NODELIST": "gpu-[07-08],cpu1", "SLURM_PROCID": "3", "SLURM_NTASKS": "9"}
    for name, value in step.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    _, environment = cluster_plugins(ddp(), step)
    assert (environment.world_size(), environment.global_rank(), environment.main_address) == (4, 3, "gpu-07")
    first = environment.main_port
    monkeypatch.setenv("SLURM_STEP_ID", "1")
    assert first != environment.main_port, "two steps of a job may share a node"
    in_job = {"SLURM_JOB_ID": "12", "SLURM_NTASKS": "1"}
    for trainer in (ddp(devices=2), TrainerSettings()):
        assert type(cluster_plugins(trainer, in_job)[-1]) is LightningEnvironment
    assert cluster_plugins(TrainerSettings(), {}) == []


@pytest.mark.slow
def test_torchrun_trains_to_the_numbers_of_processes_that_a_run_starts_itself(tmp_path):
    two = [*(word for word in SMALL if word != "trainer=cpu"), "trainer=ddp", "trainer.accelerator=cpu"]
    two += ["calibration=none", "test=false"]
    own = command("legradnet-train", *two, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'own'}")
    train = str(Path(sys.executable).with_name("legradnet-train"))
    started = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", train]
    by = command(Path(sys.executable).name, "-m", *started, *two, f"hydra.run.dir={tmp_path / 'started'}")
    assert (own.returncode, by.returncode) == (0, 0), own.stderr + by.stderr
    assert (tmp_path / "own/metrics.csv").read_bytes() == (tmp_path / "started/metrics.csv").read_bytes()
