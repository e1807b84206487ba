"""Checkpoints are data, not code: written whole or not at all, read without running anything that is in them.

torch checks nothing of what it reads, and one bit makes another grade. So a checkpoint ends with a SHA-256 of all that
stands before it, as the comment of the zip archive that it is; one written without, by torch itself or by older
releases, has the checksums of the archive.
"""

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from legradnet.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

BEST = "best.ckpt"
LAST = "last.ckpt"
# what a best.ckpt holds: it is for using, not for resuming, without optimiser, schedule and loops
KEPT_IN_BEST = ("state_dict", "hyper_parameters", "epoch", "global_step", "pytorch-lightning_version", "legradnet")
_ARCHIVE = b"PK\x03\x04"  # torch's files before release 1.6, which have no checksums, begin otherwise
_END = b"PK\x05\x06"  # of the record that ends an archive, before its comment
_END_BYTES = 22
_SEAL = b"legradnet sha256 "
_SEAL_BYTES = len(_SEAL) + 64
_BLOCK = 2**20


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint or state dict onto the CPU with `weights_only=True`, and make sure that no bit of it changed.

    Raises:
        UserError: No such file, not a torch file, a damaged one, or one with anything but tensors and plain values.
    """
    import torch  # late: writing files whole, which all commands do, needs none

    path = Path(path)
    if not path.is_file():
        is_folder = f"{path} is a folder, neither a checkpoint nor an export nor a model."
        raise UserError(is_folder if path.is_dir() else f"No checkpoint at {path}.")
    try:
        with path.open("rb") as file:
            is_archive = file.read(len(_ARCHIVE)) == _ARCHIVE
            if is_archive:
                _check_unchanged(file)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_archive)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is refused: it is no plain checkpoint of tensors and values, and loading it could run code."
        ) from error
    except Exception as error:  # whatever torch and zipfile raise over damaged files
        raise UserError(f"{path} is no readable checkpoint (cut off, damaged or of another kind): {error}") from error
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds a {type(content).__name__}, not a checkpoint.")
    return dict(content)


def digest_of_checkpoint(path: str | Path) -> str:
    """SHA-256 by which a checkpoint is known, 64 hex digits: its seal's, or where it has none, that of the file."""
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _SEAL_BYTES))
        seal = file.read()
        if seal.startswith(_SEAL):
            return seal[len(_SEAL) :].decode("ascii", "replace")
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_checkpoint(content: Mapping[str, Any], file: BinaryIO) -> None:
    """Write a checkpoint, and behind it the SHA-256 by which `read_checkpoint` knows it."""
    import torch

    sealed = _SealedFile(file)
    torch.save(dict(content), sealed)  # type: ignore[arg-type]  # it writes and flushes, and asks for no more
    sealed.seal()


class _SealedFile:
    """Passes an archive on to `file` as it is written, all but the end, which waits for the seal."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._digest, self._end = file, hashlib.sha256(), b""

    def write(self, data: bytes | memoryview) -> int:
        if len(data) < _END_BYTES:
            waiting = self._end + bytes(data)
            self._pass_on(waiting[:-_END_BYTES])
            self._end = waiting[-_END_BYTES:]
        else:
            self._pass_on(self._end)
            self._pass_on(memoryview(data)[:-_END_BYTES])
            self._end = bytes(data[-_END_BYTES:])
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def seal(self) -> None:
        assert self._end.startswith(_END), "torch no longer ends its files with an archive's end"
        self._pass_on(self._end[:-2] + _SEAL_BYTES.to_bytes(2, "little") + _SEAL)
        self._file.write(self._digest.hexdigest().encode())

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)


def _check_unchanged(file: BinaryIO) -> None:
    """Raise ValueError, or what `zipfile` raises, if an archive is not what was written."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END_BYTES))
    if (end := file.read()).startswith(_END) and end.endswith(b"\0\0"):  # no comment
        _check_by_zip(file, size)
        return
    file.seek(0)
    digest, left = hashlib.sha256(), size - 64
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        digest.update(block)
        left -= len(block)
    file.seek(max(0, size - _END_BYTES - _SEAL_BYTES))
    end = file.read(_END_BYTES + len(_SEAL))
    if not (end.startswith(_END) and end.endswith(_SEAL) and file.read() == digest.hexdigest().encode()):
        raise ValueError("its checksum is wrong")


def _check_by_zip(file: BinaryIO, size: int) -> None:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # as torch writes them; to unpack others, or the same bytes again and again, could take for ever
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed")
        if sum(member.file_size for member in members) > size:
            raise ValueError("its parts lie upon each other")
        if (bad := archive.testzip()) is not None:
            raise ValueError(f"the checksum of {bad} is wrong")


def is_ours(checkpoint: Mapping[str, Any]) -> bool:
    """Whether this is a checkpoint of a LegRadNet grading module."""
    state = checkpoint.get("state_dict")
    return (
        "hyper_parameters" in checkpoint
        and isinstance(state, Mapping)
        and any(str(name).startswith("ensemble.backbones.") for name in state)
    )


def whole_tensors(state: Mapping[Any, Any], prefix: str = "") -> "dict[str, Tensor]":
    """What `state` has under names that begin with `prefix`, by the rest of the name.

    Raises:
        UserError: Something is no tensor, or one whose numbers are not all in the file: a number may stand for many.
    """
    ours = {str(name).removeprefix(prefix): value for name, value in state.items() if str(name).startswith(prefix)}
    if hollow := [name for name, value in ours.items() if not _is_whole(value)]:
        raise UserError(f"its {hollow[0]} is no whole tensor")
    return ours


def _is_whole(value: Any) -> bool:
    import torch

    return (
        isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
    )
