"""What a command leaves is written whole or not at all, through no link, for its owner, and told in words."""

import errno
import os
import resource
import stat
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from legradnet.claims import claimed
from legradnet.files import GrowingFile, NotWrittenError, check_writable, make_folder, reason, write_text, written_whole

MEGABYTE = 1_000_000


@contextmanager
def files_at_most(size):
    """What a full disk does, without one: the system takes no byte of a file behind `size`."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield disk
    subprocess.run(["umount", disk], check=True)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_for_its_owner_alone_unless_it_names_no_films(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "films.csv", "a.png\n")
        write_text(tmp_path / "metrics.csv", "0.5\n", shared=True)
    finally:
        os.umask(before)
    assert (mode(tmp_path / "films.csv"), mode(tmp_path / "metrics.csv")) == (0o600, 0o644)


def test_a_link_in_a_files_place_is_replaced_and_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "table.csv").symlink_to(victim)
    write_text(tmp_path / "table.csv", "new")
    assert victim.read_text() == "precious" and not (tmp_path / "table.csv").is_symlink()


def test_until_it_is_whole_a_file_has_a_name_that_cannot_be_guessed_and_is_made_by_itself(tmp_path, monkeypatch):
    seen = set()
    for _ in range(2):
        with written_whole(tmp_path / "table.csv"):
            seen |= {path.name for path in tmp_path.iterdir()} - {"table.csv"}
    assert len(seen) == 2 and all(len(name) > 20 for name in seen)
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".legradnet-guessed.partial").symlink_to(victim)
    with pytest.raises(NotWrittenError, match=r"table\.csv can't be written"):
        write_text(tmp_path / "table.csv", "new")
    assert victim.read_text() == "precious" and (tmp_path / "table.csv").read_text() == ""


def test_inside_a_claimed_folder_nothing_is_written_through_a_linked_folder(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with claimed(tmp_path / "run"):
        (tmp_path / "run/maps").symlink_to(elsewhere)
        for place in ("maps/a.png", "maps/deeper/a.png"):
            with pytest.raises(NotWrittenError, match="run/maps is a link"):
                write_text(tmp_path / "run" / place, "")
    assert not list(elsewhere.iterdir())


def test_a_growing_file_is_no_link(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "lines").symlink_to(tmp_path / "victim")
    with pytest.raises(NotWrittenError, match="lines can't be written: it is a link"):
        GrowingFile(tmp_path / "lines")


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write(bytes(3 * MEGABYTE)),
        lambda file: torch.save({"weight": torch.zeros(3 * MEGABYTE // 4)}, file),
        lambda file: np.savez(file, map=np.zeros(3 * MEGABYTE, np.uint8)),
    ],
    ids=["bytes", "checkpoint", "maps"],
)
def test_what_does_not_fit_leaves_what_was_there_and_says_how_much_is_needed(tmp_path, capfd, write):
    target = tmp_path / "file"
    target.write_text("before")
    needs = r"file can't be written: .*3\.0 MB are needed"
    with files_at_most(MEGABYTE), pytest.raises(NotWrittenError, match=needs), written_whole(target) as file:
        write(file)
    assert target.read_text() == "before" and names(tmp_path) == ["file"]
    assert capfd.readouterr().err == ""


def test_a_growing_file_takes_a_piece_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines"
    path.touch()
    with GrowingFile(path) as file:
        file.add("first\n")
        with files_at_most(100), pytest.raises(NotWrittenError, match=r"lines can't be written: .*0\.2 kB are needed"):
            file.add("x" * 200)
        assert path.read_text() == "first\n"
        file.add("second\n")
    assert path.read_text() == "first\nsecond\n"


def test_a_full_disk_is_told_with_what_is_needed_and_what_is_free(small_disk):
    write_text(small_disk / "half", "x" * (MEGABYTE // 2))
    with pytest.raises(NotWrittenError) as told:
        write_text(small_disk / "more", "x" * MEGABYTE)
    assert f"{small_disk}/more can't be written: the disk is full (1.0 MB are needed, 544.8 kB are free" in str(
        told.value
    )
    assert names(small_disk) == ["half"]


def test_a_read_only_place_is_told(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for write in (lambda: write_text(small_disk / "a", ""), lambda: check_writable(small_disk / "run")):
        with pytest.raises(NotWrittenError, match="disk/.* can't be written: the file system is read-only"):
            write()


def test_a_name_that_is_too_long_is_told_with_the_longest_that_goes(tmp_path):
    with pytest.raises(NotWrittenError, match=r"too long \(300 bytes, at most 255"):
        write_text(tmp_path / ("a" * 300) / "metrics.csv", "")
    write_text(tmp_path / ("a" * 255), "")  # the longest: no longer name is needed on the way


def test_a_file_in_a_folders_place_is_told(tmp_path):
    (tmp_path / "file").touch()
    for place in ("file/metrics.csv", "file/deeper/metrics.csv"):
        with pytest.raises(NotWrittenError, match="there is a file where a folder should be"):
            write_text(tmp_path / place, "")


def test_too_many_open_files_are_told_with_the_limit(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        with pytest.raises(NotWrittenError) as told:
            write_text(tmp_path / "table", "")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert "too many files open; it needs a higher limit than 3 (ulimit -n)" in str(told.value)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.EIO, errno.ENFILE])
def test_every_refusal_of_the_system_has_words(number, tmp_path):
    words = reason(tmp_path / "file", OSError(number, os.strerror(number)), needed="5 MB")
    assert words and "Errno" not in words


def test_folders_are_made_as_they_are_asked_for(tmp_path):
    make_folder(tmp_path / "a/maps", mode=0o700)
    assert mode(tmp_path / "a/maps") == 0o700
    make_folder(Path(tmp_path / "a/maps"), mode=0o700)
