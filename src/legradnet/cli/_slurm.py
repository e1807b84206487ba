"""A command in a SLURM job: on SLURM's signal the job goes back into the queue, and by its own command goes on."""

import logging
import os
import signal
import subprocess
import threading
from pathlib import Path

log = logging.getLogger(__name__)

_watched: tuple[Path, int] | None = None  # a run's last checkpoint, and its time when the run began


def requeue_on_signal() -> None:
    """From now on, in a job, let SIGUSR1 requeue it: `sbatch --signal=USR1@120` sends that before the time is over.

    What a run goes on from is always on disk, so nothing is to be saved then. The signal is taken by a thread and kept
    from all others and from the processes that are started, as elsewhere it would end them. Of several processes the
    first requeues.
    """
    if "SLURM_JOB_ID" not in os.environ or signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    if (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0":
        threading.Thread(target=_wait, name="requeue", daemon=True).start()


def watch_progress(checkpoint: Path) -> None:
    """Tell a run's last checkpoint: a job that was requeued and has not written one again would be for ever."""
    global _watched
    _watched = checkpoint, _time_of(checkpoint)


def _wait() -> None:
    while True:
        signal.sigwait({signal.SIGUSR1})
        _requeue(os.environ["SLURM_JOB_ID"], again=os.environ.get("SLURM_RESTART_COUNT", "0") not in ("", "0"))


def _requeue(job: str, *, again: bool) -> None:
    if again and _watched and _time_of(_watched[0]) == _watched[1]:
        log.warning("SLURM's signal: no epoch has ended since job %s was begun again, so it is not requeued, as it "
                    "might never end. It goes on while it may; give it more time (sbatch --time=).", job)  # fmt: skip
        return
    try:
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True)
        refused = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        refused = str(error)
    if refused:
        log.warning("SLURM's signal: job %s could not be requeued (%s). It goes on while it may.", job, refused)
    else:
        log.warning("SLURM's signal: job %s is requeued, and goes on from what is on disk.", job)


def _time_of(path: Path) -> int:
    return path.stat().st_mtime_ns if path.is_file() else 0
