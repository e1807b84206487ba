"""Training that torchrun or srun has started: processes, devices and nodes agree, or it is said before all else."""

import sys
from pathlib import Path

import pytest

from legradnet.errors import UserError
from legradnet.training.launched import Launch, as_launched, launch_of
from legradnet.training.settings import TrainerSettings
from small_runs import SMALL, command


def torchrun(processes, nodes=1):
    return {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": str(processes), "GROUP_WORLD_SIZE": str(nodes), "RANK": "0"}


def srun(processes, nodes=1):
    return {"SLURM_STEP_NUM_TASKS": str(processes), "SLURM_STEP_NUM_NODES": str(nodes), "SLURM_NTASKS": str(processes)}


def ddp(**changed):
    return TrainerSettings(**({"devices": "auto", "strategy": "ddp_spawn"} | changed))


@pytest.mark.parametrize("started", [torchrun, srun])
def test_devices_and_nodes_that_were_not_given_are_those_that_were_started(started):
    trainer = as_launched(ddp(), started(6, 2))
    assert (trainer.devices, trainer.model_extra["num_nodes"], trainer.strategy) == (3, 2, "ddp")
    same = as_launched(ddp(devices=[0, 1, 2], num_nodes=2), started(6, 2))
    assert (same.devices, same.strategy) == ([0, 1, 2], "ddp")


@pytest.mark.parametrize(
    ("trainer", "environment", "words"),
    [
        (ddp(devices=4), torchrun(2), "torchrun has started 2 processes on 1 node, and trainer.devices=4"),
        (ddp(num_nodes=1), srun(4, 2), "they must be 2 and 2"),
        (ddp(devices=2, num_nodes=3), srun(4, 2), "they must be 2 and 2"),
        (ddp(), srun(5, 2), "srun has started 5 processes on 2 nodes"),
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
