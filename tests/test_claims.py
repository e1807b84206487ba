"""A folder is one run's at a time, from before it looks at what is there until its process ends, however that ends."""

import errno
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from legradnet import claims
from legradnet.claims import HeldError, claim_for_run, claimed, filled_whole, give_back_unused, make_numbered
from legradnet.errors import UserError
from legradnet.files import NotWrittenError

HOLD = """
import os, sys, time
from pathlib import Path
from legradnet.claims import claimed
with claimed(Path(sys.argv[1])):
    if os.fork() == 0:  # as a worker that reads films, which may outlive a killed run
        print("held", flush=True)  # here: a process that was forked lets go of the claim before all else
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `run`, with a worker of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def hold(folder):
    with claimed(folder):
        pass


def test_who_comes_second_is_told_who_holds_the_folder(tmp_path, holder):
    with pytest.raises(HeldError, match=rf"run is held by -c \(process {holder.pid} on .*, since 20.*\)"):
        hold(tmp_path / "run")


def test_after_a_kill_the_folder_is_free_at_once_though_a_worker_lives_on(tmp_path, holder):
    holder.kill()
    holder.wait()
    with claimed(tmp_path / "run"):
        assert str(os.getpid()) in (tmp_path / "run" / claims.LOCK).read_text()
    assert not list((tmp_path / "run").iterdir())


def test_of_many_at_once_one_gets_the_folder(tmp_path):
    for _ in range(20):
        start, end = Barrier(8), Barrier(8)

        def run(_, start=start, end=end):
            start.wait()
            try:
                with claimed(tmp_path / "run"):
                    end.wait()
                    return True
            except HeldError:
                end.wait()
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(run, range(8))) == 1


def test_one_after_the_other_all_get_it(tmp_path):
    """The lock's file goes with each claim: who has just opened it holds nothing that the next one sees."""

    def run(_):
        count = 0
        end = time.monotonic() + 30
        while count < 25 and time.monotonic() < end:
            try:
                with claimed(tmp_path / "run"):
                    alone = tmp_path / "run/alone"
                    alone.touch(exist_ok=False)
                    alone.unlink()
                count += 1
            except HeldError:
                pass
        return count

    (tmp_path / "run").mkdir()
    with pytest.MonkeyPatch.context() as patched, ThreadPoolExecutor(4) as pool:
        patched.setattr(claims, "_PATIENCE", 0)
        assert list(pool.map(run, range(4))) == [25] * 4


def test_new_folders_are_numbered_where_the_name_is_taken(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(make_numbered, [tmp_path / "runs/now"] * 8))
    assert {path.name for path in made} == {"now", *(f"now_{number}" for number in range(2, 9))}


def test_a_run_takes_over_what_its_command_has_claimed(tmp_path):
    folder = claim_for_run(tmp_path / "run", numbered=True)
    with claimed(folder), pytest.raises(HeldError):
        hold(folder)
    hold(folder)


def test_what_was_claimed_for_a_run_that_never_began_is_given_back(tmp_path):
    claim_for_run(tmp_path / "run", numbered=False)
    give_back_unused()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("plant", [os.symlink, os.link])
def test_a_planted_lock_is_neither_followed_nor_written(tmp_path, plant):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "run").mkdir()
    plant(tmp_path / "victim", tmp_path / "run" / claims.LOCK)
    with pytest.raises(UserError, match="it is a link|is not a file that a run of yours has made"):
        hold(tmp_path / "run")
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("name", [".hydra", "checkpoints", "maps", "figures"])
def test_a_planted_folder_is_told_before_the_work(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotWrittenError, match=f"{name} is a link"):
        hold(tmp_path / "run")


def test_what_a_killed_run_left_half_written_goes_with_the_next_claim(tmp_path):
    (tmp_path / "run/checkpoints").mkdir(parents=True)
    (tmp_path / "run/checkpoints/.legradnet-0123.partial").touch()
    (tmp_path / "run/checkpoints/last.ckpt").touch()
    hold(tmp_path / "run")
    assert names(tmp_path / "run/checkpoints") == ["last.ckpt"]


def test_where_there_are_no_locks_that_is_told(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claims.fcntl, "flock", refuse)
    hold(tmp_path / "run")
    assert "run has no file locks (No locks available): see to it that no other run writes there" in caplog.text


def test_a_system_without_locks_is_told_too(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(claims, "fcntl", None)
    hold(tmp_path / "run")
    assert "no file locks" in caplog.text


@pytest.mark.parametrize(
    ("devices", "ranks", "later"),
    [
        (2, {}, False),
        (2, {"LOCAL_RANK": "1"}, True),  # as Lightning starts it
        (2, {"RANK": "0", "LOCAL_RANK": "0"}, False),  # as torchrun starts it
        (1, {"SLURM_PROCID": "3"}, False),  # alone, whatever has started it
        ("auto", {"RANK": "2", "LOCAL_RANK": "0"}, True),  # the first of the second machine
    ],
)
def test_of_the_processes_of_a_training_the_first_claims(monkeypatch, devices, ranks, later):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, rank in ranks.items():
        monkeypatch.setenv(name, rank)
    assert claims.is_later_process(devices) is later


def test_a_folder_that_is_filled_appears_whole(tmp_path):
    with filled_whole(tmp_path / "out", "table.csv") as folder:
        (folder / "table.csv").touch()
        (folder / "film.png").touch()
        assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix] == []
        with pytest.raises(HeldError), filled_whole(tmp_path / "out", "table.csv"):
            pass
    assert names(tmp_path / "out") == ["film.png", "table.csv"]


def test_a_folder_that_is_not_filled_is_as_it_was(tmp_path):
    (tmp_path / "there").mkdir()
    for name in ("there", "new"):
        with pytest.raises(KeyboardInterrupt), filled_whole(tmp_path / name, "table.csv") as folder:
            (folder / "film.png").touch()
            raise KeyboardInterrupt
    assert names(tmp_path) == ["there"] and names(tmp_path / "there") == []


def test_filling_again_after_a_kill_needs_no_hand(tmp_path):
    left = tmp_path / "out/.legradnet-abc"
    left.mkdir(parents=True)
    (left / "film.png").touch()
    (tmp_path / "out" / claims.LOCK).touch()
    with filled_whole(tmp_path / "out", "table.csv") as folder:
        (folder / "table.csv").touch()
    assert names(tmp_path / "out") == ["table.csv"]


def test_whatever_a_library_makes_of_a_full_disk_is_told_as_such(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "is_full", lambda _: True)
    words = r"out can't be written: the disk is full \(more than 2\.0 MB are needed, .* are free"
    with pytest.raises(NotWrittenError, match=words), filled_whole(tmp_path / "out", "table.csv") as folder:
        (folder / "film.png").write_bytes(bytes(2_000_000))
        raise RuntimeError("cannot write bin file")
    assert not (tmp_path / "out").exists()
