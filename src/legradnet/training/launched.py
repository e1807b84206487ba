"""Whether something has started this process as one of several, and whether that agrees with the trainer's settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from legradnet.errors import UserError

if TYPE_CHECKING:
    from legradnet.training.settings import TrainerSettings  # late: torch

_BATCH = "SLURM_NTASKS"  # of a job, which its batch script has too
_STEP_TASKS, _STEP_NODES = "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"  # only where srun has started it
_JOB, _STEP = "SLURM_JOB_ID", "SLURM_STEP_ID"
_OWN = (None, 1)


@dataclass(frozen=True)
class Launch:
    """Processes that were started together.

    Attributes:
        by: What has started them.
        processes: All of them.
        nodes: Machines that they are on.
    """

    by: str
    processes: int
    nodes: int

    @property
    def words(self) -> str:
        """A sentence's beginning."""
        processes = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return f"{self.by} has started {processes} on {self.nodes} node{'s' if self.nodes > 1 else ''}"


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Which processes this one was started with, by torchrun or srun; None if it was started alone.

    Raises:
        UserError: What they say of that are no numbers.
    """
    launch = _launch_of(environment)
    return launch if launch and (launch.processes > 1 or launch.by == "torchrun") else None


def as_launched(trainer: "TrainerSettings", environment: Mapping[str, str]) -> "TrainerSettings":
    """The trainer's settings for how this process was started: numbers that were not given are those of the launch.

    Raises:
        UserError: Processes, devices and nodes don't agree, as training would wait for ever for processes that never
            come.
    """
    nodes = trainer.num_nodes
    alone = trainer.devices == 1 and nodes in _OWN
    launch = launch_of(environment)
    if launch is None:
        if nodes not in _OWN:
            started = _launch_of(environment)
            why = "which start a process a device on each node" if started is None else f"and {started.words}"
            how = f"srun --nodes={nodes} legradnet-train trainer=ddp trainer.num_nodes={nodes} ..."
            raise UserError(f"trainer.num_nodes={nodes} needs torchrun or srun, {why}: {how}")
        if not alone and int(environment.get(_BATCH) or 1) > 1:
            raise UserError(f"This SLURM job has {environment[_BATCH]} tasks, and srun has to start them: "
                            "srun legradnet-train ...")  # fmt: skip
        return trainer
    if alone:
        if launch.by == "torchrun" and launch.processes > 1:
            raise UserError(f"{launch.words}, each of which would train alone: add trainer=ddp.")
        return trainer
    a_node, rest = divmod(launch.processes, launch.nodes)
    if rest:
        raise UserError(f"{launch.words}, which are not as many on each: --ntasks-per-node= instead of --ntasks=.")
    devices = a_node if trainer.devices in ("auto", -1) else _count(trainer.devices)
    if devices != a_node or nodes not in (None, launch.nodes):
        of = f"trainer.devices={trainer.devices} trainer.num_nodes={nodes or 1}"
        raise UserError(f"{launch.words}, and {of} are for others: they must be {a_node} and {launch.nodes}.")
    strategy = "ddp" if trainer.strategy in ("auto", "ddp_spawn") else trainer.strategy
    given = devices if trainer.devices in ("auto", -1) else trainer.devices
    return trainer.model_copy(update={"devices": given, "num_nodes": launch.nodes, "strategy": strategy})


def check_one_run(devices: object, nodes: object, environment: Mapping[str, str], *, search: bool) -> None:
    """Raise UserError where a command's processes would not be what they were started for.

    Args:
        devices: `trainer.devices`.
        nodes: `trainer.num_nodes`.
        environment: The process's.
        search: Whether each is a worker of a search, else they are one run.
    """
    launch = launch_of(environment)
    if launch is None or launch.processes == 1:
        return
    alone = devices == 1 and nodes in _OWN
    if search and not alone:
        raise UserError(
            f"{launch.words}, each a worker of the search with trials of its own, and trainer=ddp is for processes of "
            "one trial: leave it out, or start a job a worker (sbatch --array=)."
        )
    if not search and alone:
        raise UserError(f"{launch.words}, each of which would train alone: add trainer=ddp.")


def name_of_step(environment: Mapping[str, str]) -> str | None:
    """A name for what srun has started, the same in all its processes and when the job is requeued; else None."""
    names = [environment.get(name) for name in (_JOB, _STEP, _STEP_TASKS)]
    return f"slurm_{names[0]}_{names[1]}" if all(names) else None


def _launch_of(environment: Mapping[str, str]) -> Launch | None:
    try:
        if "TORCHELASTIC_RUN_ID" in environment:
            return Launch("torchrun", int(environment["WORLD_SIZE"]), int(environment.get("GROUP_WORLD_SIZE", "1")))
        if _STEP_TASKS in environment:
            return Launch("srun", int(environment[_STEP_TASKS]), int(environment.get(_STEP_NODES, "1")))
    except (KeyError, ValueError):
        raise UserError("Variables of torchrun or srun (WORLD_SIZE, SLURM_STEP_NUM_TASKS) are no numbers.") from None
    return None


def _count(devices: int | str | list[int]) -> int:
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str):
        return int(devices) if devices.isdecimal() else len([part for part in devices.split(",") if part.strip()])
    return devices
