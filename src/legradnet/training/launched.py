"""Whether something has started this process as one of several, and whether that agrees with the trainer's settings."""

from collections.abc import Mapping
from dataclasses import dataclass

from legradnet.errors import UserError
from legradnet.training.settings import TrainerSettings

_BATCH = "SLURM_NTASKS"  # of a job, which its batch script has too
_STEP_TASKS, _STEP_NODES = "SLURM_STEP_NUM_TASKS", "SLURM_STEP_NUM_NODES"  # only where srun has started it


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
        return f"{self.by} has started {self.processes} processes on {self.nodes} node{'s' if self.nodes > 1 else ''}"


def launch_of(environment: Mapping[str, str]) -> Launch | None:
    """Which processes this one was started with, by torchrun or srun; None if it was started alone."""
    try:
        if "TORCHELASTIC_RUN_ID" in environment:
            return Launch("torchrun", int(environment["WORLD_SIZE"]), int(environment.get("GROUP_WORLD_SIZE", "1")))
        if _STEP_TASKS in environment:
            launch = Launch("srun", int(environment[_STEP_TASKS]), int(environment.get(_STEP_NODES, "1")))
            return launch if launch.processes > 1 else None
    except (KeyError, ValueError):
        raise UserError("Variables of torchrun or srun (WORLD_SIZE, SLURM_STEP_NUM_TASKS) are no numbers.") from None
    return None


def as_launched(trainer: TrainerSettings, environment: Mapping[str, str]) -> TrainerSettings:
    """The trainer's settings for how this process was started: numbers that were not given are those of the launch.

    Raises:
        UserError: Processes, devices and nodes don't agree, as training would wait for ever for processes that never
            come.
    """
    nodes = (trainer.model_extra or {}).get("num_nodes")
    alone = trainer.devices == 1 and nodes in (None, 1)
    launch = launch_of(environment)
    if launch is None:
        if nodes not in (None, 1):
            words = f"trainer.num_nodes={nodes} needs torchrun or srun, which start a process a device on each node"
            raise UserError(f"{words}: srun legradnet-train trainer=ddp trainer.num_nodes={nodes} ...")
        if not alone and int(environment.get(_BATCH) or 1) > 1:
            raise UserError(f"This SLURM job has {environment[_BATCH]} tasks, and srun has to start them: "
                            "srun legradnet-train ...")  # fmt: skip
        return trainer
    if alone:
        if launch.by == "torchrun" and launch.processes > 1:
            raise UserError(f"{launch.words}, each of which would train alone: add trainer=ddp.")
        return trainer
    a_node, rest = divmod(launch.processes, launch.nodes)
    devices = a_node if trainer.devices in ("auto", -1) else _count(trainer.devices)
    if rest or devices != a_node or nodes not in (None, launch.nodes):
        of = f"trainer.devices={trainer.devices} trainer.num_nodes={nodes or 1}"
        raise UserError(f"{launch.words}, and {of} are for others: they must be {a_node} and {launch.nodes}.")
    strategy = "ddp" if trainer.strategy in ("auto", "ddp_spawn") else trainer.strategy
    given = devices if trainer.devices in ("auto", -1) else trainer.devices
    return TrainerSettings(
        **{**trainer.model_dump(), "devices": given, "num_nodes": launch.nodes, "strategy": strategy}
    )


def _count(devices: int | str | list[int]) -> int:
    if isinstance(devices, list):
        return len(devices)
    if isinstance(devices, str):
        return int(devices) if devices.isdecimal() else len([part for part in devices.split(",") if part.strip()])
    return devices
