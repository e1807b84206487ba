"""SLURM's signal puts a job back into the queue, where that is of use, and ends nothing that is still at work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from legradnet.cli import _slurm

# a command in a job, and a process that it starts; it tells whether that lives
PROGRAM = """
import subprocess, sys
from legradnet.cli import _slurm
_slurm.requeue_on_signal()
child = subprocess.Popen([sys.executable, "-c", "print('there', flush=True); input()"], stdin=subprocess.PIPE)
for _ in sys.stdin:
    print(child.poll(), flush=True)
"""


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """An `scontrol` that writes down what it is asked for: the file."""
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (tmp_path / "scontrol").chmod(0o700)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "asked"


@pytest.mark.parametrize("rank", ["0", "1"])
def test_the_first_process_requeues_and_none_dies_of_the_signal(scontrol, rank):
    own = {"SLURM_JOB_ID": "12", "SLURM_PROCID": rank, "PYTHONPATH": str(Path(_slurm.__file__).parents[2])}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], env=os.environ | own, start_new_session=True, **pipes
    ) as job:
        try:
            assert job.stdout.readline() == "there\n"
            os.killpg(job.pid, signal.SIGUSR1)  # as SLURM does: it and all that it has started
            end = time.monotonic() + 60
            while rank == "0" and not scontrol.is_file() and time.monotonic() < end:
                time.sleep(0.01)
            job.stdin.write("\n")
            job.stdin.flush()
            assert job.stdout.readline() == "None\n", "it lives"
        finally:
            os.killpg(job.pid, signal.SIGKILL)
    assert scontrol.is_file() is (rank == "0") and (rank == "1" or scontrol.read_text() == "requeue 12\n")


def test_a_job_that_comes_no_further_is_not_requeued_for_ever(scontrol, tmp_path, monkeypatch, caplog):
    last = tmp_path / "last.ckpt"
    monkeypatch.setattr(_slurm, "_watched", None)
    _slurm.watch_progress(last)
    _slurm._requeue("7", again=True)
    assert "no epoch has ended since job 7 was begun again, so it is not requeued" in caplog.text
    assert not scontrol.exists()
    _slurm._requeue("7", again=False)
    last.touch()
    _slurm._requeue("7", again=True)
    assert scontrol.read_text() == "requeue 7\n" * 2


def test_where_slurm_does_not_requeue_it_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(_slurm, "_watched", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    _slurm._requeue("7", again=False)
    assert "job 7 could not be requeued ([Errno 2] No such file" in caplog.text
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho Requested operation is presently disabled >&2\nexit 1\n")
    (tmp_path / "scontrol").chmod(0o700)
    _slurm._requeue("7", again=False)
    assert "could not be requeued (Requested operation is presently disabled). It goes on" in caplog.text


def test_outside_of_a_job_the_signal_is_what_it_always_was(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    _slurm.requeue_on_signal()
    assert signal.SIGUSR1 not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
