import os
import pickle
import random
import zipfile

import pytest
import torch

from legradnet.checkpoint import read_checkpoint, write_checkpoint
from legradnet.errors import UserError
from legradnet.training.callbacks import AtomicCheckpointIO


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_bomb_is_refused_and_does_not_go_off(tmp_path):
    target = tmp_path / "exploded"
    for name, write in {"torch": torch.save, "pickle": lambda bomb, file: pickle.dump(bomb, file.open("wb"))}.items():
        path = tmp_path / f"{name}.ckpt"
        write({"state_dict": {}, "bomb": Bomb(str(target))}, path)
        with pytest.raises(UserError, match="refused"):
            read_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off", bytes(range(256)) * 40])
def test_a_broken_file_is_told(tmp_path, content):
    path = tmp_path / "broken.ckpt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken\.ckpt"):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_told(tmp_path):
    path = tmp_path / "whole.ckpt"
    torch.save({"state_dict": {"a": torch.rand(1000)}}, path)
    path.write_bytes(path.read_bytes()[:-700])
    with pytest.raises(UserError, match="cut off"):
        read_checkpoint(path)


def test_a_missing_checkpoint_is_told(tmp_path):
    with pytest.raises(UserError, match="No checkpoint at"):
        read_checkpoint(tmp_path / "none.ckpt")


def test_a_list_in_place_of_a_checkpoint_is_told(tmp_path):
    torch.save([1, 2], tmp_path / "list.ckpt")
    with pytest.raises(UserError, match="holds a list"):
        read_checkpoint(tmp_path / "list.ckpt")


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"epoch": 1}, path)
    with pytest.raises(AttributeError):  # pickle fails in the middle of the file
        AtomicCheckpointIO().save_checkpoint({"epoch": 2, "bad": lambda: None}, path)
    assert read_checkpoint(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_best_checkpoint_has_no_optimiser_state(tmp_path):
    whole = {"state_dict": {}, "hyper_parameters": {"seed": 1}, "optimizer_states": [1], "callbacks": {}, "epoch": 3}
    AtomicCheckpointIO().save_checkpoint(whole, tmp_path / "best.ckpt")
    AtomicCheckpointIO().save_checkpoint(whole, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "best.ckpt") == {"state_dict": {}, "hyper_parameters": {"seed": 1}, "epoch": 3}
    assert read_checkpoint(tmp_path / "last.ckpt") == whole


CONTENT = {"state_dict": {f"layer{i}.weight": torch.rand(40, 9) for i in range(9)}, "hyper_parameters": {"seed": 3}}


def sealed(path):
    with path.open("wb") as file:
        write_checkpoint(CONTENT, file)


def by_torch_alone(path):
    torch.save(CONTENT, path)


@pytest.mark.parametrize("write", [sealed, by_torch_alone])
def test_a_checkpoint_is_read_as_it_was_written(tmp_path, write):
    write(tmp_path / "a.ckpt")
    read = read_checkpoint(tmp_path / "a.ckpt")
    assert read["hyper_parameters"] == CONTENT["hyper_parameters"]
    assert all(torch.equal(read["state_dict"][name], tensor) for name, tensor in CONTENT["state_dict"].items())


def test_torch_itself_reads_what_was_written(tmp_path):
    sealed(tmp_path / "a.ckpt")
    for mapped in (False, True):
        assert torch.load(tmp_path / "a.ckpt", weights_only=True, mmap=mapped)["hyper_parameters"] == {"seed": 3}


def flipped(content, place, bit):
    return content[:place] + bytes([content[place] ^ (1 << bit)]) + content[place + 1 :]


def test_a_bit_that_has_changed_anywhere_is_told(tmp_path):
    path = tmp_path / "a.ckpt"
    sealed(path)
    content, rng = path.read_bytes(), random.Random(13)
    everywhere = [rng.randrange(len(content)) for _ in range(120)]
    for place in [0, 1, 2, 3, *everywhere, *range(len(content) - 120, len(content))]:
        path.write_bytes(flipped(content, place, rng.randrange(8)))
        with pytest.raises(UserError, match=r"a\.ckpt"):
            read_checkpoint(path)


def test_without_a_digest_a_changed_bit_is_told_by_the_archives_own_checksums(tmp_path):
    path = tmp_path / "a.ckpt"
    by_torch_alone(path)
    content, rng = path.read_bytes(), random.Random(13)
    told = 0
    for _ in range(120):
        path.write_bytes(flipped(content, rng.randrange(len(content)), rng.randrange(8)))
        try:
            read = read_checkpoint(path)
        except UserError:
            told += 1
            continue
        assert read["hyper_parameters"] == CONTENT["hyper_parameters"]  # it was between the archive's members
        assert all(torch.equal(read["state_dict"][name], tensor) for name, tensor in CONTENT["state_dict"].items())
    assert told > 60


@pytest.mark.parametrize("end", [b"\0", b"legradnet", b"\0" * 200])
def test_something_behind_the_end_is_told(tmp_path, end):
    for write in (sealed, by_torch_alone):
        write(tmp_path / "a.ckpt")
        (tmp_path / "a.ckpt").write_bytes((tmp_path / "a.ckpt").read_bytes() + end)
        with pytest.raises(UserError, match="damaged"):
            read_checkpoint(tmp_path / "a.ckpt")


def test_an_archive_that_unpacks_without_end_is_refused_at_once(tmp_path):
    path = tmp_path / "bomb.ckpt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10**7))
    with pytest.raises(UserError, match="compressed"):
        read_checkpoint(path)
