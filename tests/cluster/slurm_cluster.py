"""A SLURM cluster on this machine alone: munge, a controller, and two nodes on the loopback, from Debian's slurm-wlm.

Debian builds slurmd without --enable-multiple-slurmd; told its node's name by -N, and with a port, a spool folder and a
pid file of its own by %n, it runs twice all the same.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")
NODES = ("n1", "n2")
_SETTINGS = """
ClusterName=legradnet
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
AuthType=auth/munge
# how long a credential is good: a job that is requeued waits as long, by default two minutes
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=5
MailProg=/bin/true
PartitionName=knees Nodes=ALL Default=YES State=UP MaxTime=INFINITE
"""


class Cluster:
    """Daemons below a folder; `stop` ends them and what they run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.chmod(0o711)  # munge's socket is for everybody
        for name in ("state", *NODES):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = [_free_port() for _ in range(3)]
        text = _SETTINGS.format(host=socket.gethostname(), folder=folder, port=ports[0])
        for node, port in zip(NODES, ports[1:], strict=True):
            text += f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={port} CPUs=2\n"
        (folder / "slurm.conf").write_text(text)
        # nodes have names that nothing resolves: the first process of a step is found on the loopback
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"SLURM_CONF": str(folder / "slurm.conf"), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
        self.environment = {**os.environ, **own, "PATH": path}
        munge = [f"--{name}-file={folder / name}" for name in ("pid", "log", "seed")]
        self.call("munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", *munge)
        self.call("slurmctld", "-c", "-f", folder / "slurm.conf")
        for node in NODES:
            self.call("slurmd", "-f", folder / "slurm.conf", "-N", node)
        self.wait(lambda: self.call("sinfo", "-h", "-o", "%T", check=False).split() == ["idle"])

    def call(self, *command: object, check: bool = True, cwd: Path | None = None) -> str:
        """What a command prints."""
        done = subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, timeout=900, cwd=cwd
        )
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, *words: object, cwd: Path) -> str:
        """The number of a job that `sbatch` takes."""
        return self.call("sbatch", "--parsable", "--cpus-per-task=1", *words, cwd=cwd).strip()

    def state(self, job: str, *, name: str = "JobState") -> str:
        """One field of `scontrol show job`, of a job or of an array's first task."""
        shown = self.call("scontrol", "show", "job", job)
        return next(word.partition("=")[2] for word in shown.split() if word.startswith(f"{name}="))

    def finish(self, job: str) -> None:
        """Wait until a job, or all tasks of an array, have ended."""
        self.wait(lambda: not self.call("squeue", "-h", "-j", job, check=False).replace("Invalid job id", "").strip())

    def kill_node(self, node: str) -> None:
        """As if its power was cut: the daemon, and all that it has started."""
        os.kill(int((self.folder / f"{node}.pid").read_text()), signal.SIGKILL)
        tells = {f"SLURMD_NODENAME={node}".encode(), f"SLURM_CONF={self.folder}/slurm.conf".encode()}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if tells <= {*(process / "environ").read_bytes().split(b"\0")}:
                    parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                    if "slurmstepd" in Path(f"/proc/{parent}/comm").read_text():  # the daemon's, which watches a step
                        os.kill(parent, signal.SIGKILL)
                    os.kill(int(process.name), signal.SIGKILL)

    def stop(self) -> None:
        """End everything."""
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.call("scancel", "-u", "root", check=False)
            time.sleep(1)
        for name in ("n1.pid", "n2.pid", "slurmctld.pid", "pid"):
            with suppress(OSError, ValueError):
                os.kill(int((self.folder / name).read_text()), signal.SIGTERM)
        time.sleep(1)
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def wait(is_so, seconds: float = 600) -> None:
        """Wait until something is so."""
        end = time.monotonic() + seconds
        while not is_so():
            assert time.monotonic() < end, "it never was"
            time.sleep(0.5)


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
