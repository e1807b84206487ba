"""What Lightning is told of a cluster: who has started which process, and where the first one is."""

import os
import signal
from collections.abc import Mapping

from lightning.fabric.plugins import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.plugins import LayerSync

from legradnet.training.launched import launch_of
from legradnet.training.norms import SynchronisedNorms
from legradnet.training.settings import TrainerSettings

_PORTS = range(15000, 25000)


class SrunStep(SLURMEnvironment):
    """Processes that srun has started, as it numbers them.

    Lightning's own takes a job for the step, refuses `--ntasks` without `--ntasks-per-node`, is another one in a job
    called bash, and requeues by a checkpoint of the middle of an epoch, from which numbers don't go on as they were.
    """

    def __init__(self) -> None:
        self.auto_requeue = False
        self.requeue_signal = signal.SIGUSR1  # asked for, though nothing is registered

    @property
    def main_address(self) -> str:
        """The step's first node, or MASTER_ADDR."""
        return os.environ.get("MASTER_ADDR") or self.resolve_root_node_address(os.environ["SLURM_STEP_NODELIST"])

    @property
    def main_port(self) -> int:
        """By job and step, so that all of its processes know it and others on the node have another; or MASTER_PORT."""
        own = int(os.environ["SLURM_JOB_ID"]) * 7 + int(os.environ["SLURM_STEP_ID"])
        return int(os.environ.get("MASTER_PORT") or _PORTS[own % len(_PORTS)])

    def world_size(self) -> int:
        """Processes of the step."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Done before, by `as_launched`."""


def cluster_plugins(trainer: TrainerSettings, environment: Mapping[str, str]) -> list[ClusterEnvironment | LayerSync]:
    """Plugins of Lightning's Trainer for several processes, and against what it takes a SLURM job for."""
    alone = trainer.devices == 1 and trainer.num_nodes in (None, 1)
    plugins: list[ClusterEnvironment | LayerSync] = []
    if trainer.sync_batchnorm and not alone:
        plugins.append(SynchronisedNorms())
    launch = launch_of(environment)
    if launch and launch.by == "srun" and not alone:
        plugins.append(SrunStep())
    elif "SLURM_JOB_ID" in environment and (alone or launch is None):
        plugins.append(LightningEnvironment())
    return plugins
