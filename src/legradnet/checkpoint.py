"""Checkpoints are data, not code: written whole or not at all, read without running anything that is in them."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legradnet.errors import UserError

BEST = "best.ckpt"
LAST = "last.ckpt"


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint or state dict onto the CPU with `weights_only=True`.

    Raises:
        UserError: No such file, not a torch file, or one with anything but tensors and plain values in it.
    """
    import torch  # late: writing files whole, which all commands do, needs none

    path = Path(path)
    if not path.is_file():
        is_folder = f"{path} is a folder, neither a checkpoint nor an export."
        raise UserError(is_folder if path.is_dir() else f"No checkpoint at {path}.")
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
    state = checkpoint.get("state_dict")
    return (
        "hyper_parameters" in checkpoint
        and isinstance(state, Mapping)
        and any(str(name).startswith("ensemble.backbones.") for name in state)
    )
