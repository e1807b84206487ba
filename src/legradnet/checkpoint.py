"""Checkpoints are data, not code: written whole or not at all, read without running anything that is in them."""

import os
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import TorchCheckpointIO

from legradnet.errors import UserError

BEST = "best.ckpt"
LAST = "last.ckpt"
_KEPT_IN_BEST = ("state_dict", "hyper_parameters", "epoch", "global_step", "pytorch-lightning_version", "legradnet")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and then move it there, so that a kill leaves the previous one.

    `best.ckpt` is for using, not for resuming: optimiser, schedule and loops are left out of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save `checkpoint` at `path` atomically; missing folders are made."""
        target = Path(path)
        if target.name == BEST:
            checkpoint = {key: checkpoint[key] for key in _KEPT_IN_BEST if key in checkpoint}
        with written_whole(target) as file:
            torch.save(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load `path` as data only, whatever `weights_only` says."""
        return read_checkpoint(path)


@contextmanager
def written_whole(target: Path) -> Iterator[BinaryIO]:
    """Open a file beside `target` that takes its place, safe on disk, only when all went well; folders are made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")  # one writer a run folder, so a kill leaves at most one
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint or state dict onto the CPU with `weights_only=True`.

    Raises:
        UserError: No such file, not a torch file, or one with anything but tensors and plain values in it.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"No checkpoint at {path}.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it is no plain checkpoint of tensors and values, and loading it could run code."
        ) from error
    except Exception as error:
        raise UserError(f"{path} is no readable checkpoint (cut off or of another kind): {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint.")
    return dict(content)


def is_ours(checkpoint: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of a LegRadNet grading module."""
    return "hyper_parameters" in checkpoint and any(
        name.startswith("ensemble.backbones.") for name in checkpoint.get("state_dict", {})
    )
