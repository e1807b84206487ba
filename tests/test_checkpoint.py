import os
import pickle

import pytest
import torch

from legradnet.checkpoint import read_checkpoint
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
