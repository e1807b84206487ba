"""A trained network as two files, `config.json` and `model.safetensors`: no pickle, and most weights in 16 bits.

It holds what a `best.ckpt` holds, whatever that is, and is read back as `read_checkpoint` reads one:

    model.safetensors  every tensor. Those of `state_dict` have their names there, `ensemble.backbones.lite0.trunk...`,
                       as `backbone.<key>.weights=` takes them too; those elsewhere in the checkpoint are named by the
                       way to them, `legradnet.distance.means`, and stay as they are, bit for bit.
                       Those of `state_dict` with more than 65,536 weights have 16 bits (see `in_16_bits`). Smaller
                       ones, one weight in five of EfficientNet-Lite, have 32: first layers, depthwise convolutions,
                       biases, norms and their statistics, whose errors add up. With all in float16 probabilities
                       would change by 1e-2 in float32 and by 1e-1 in bfloat16, and not by 1e-3 at most.
    config.json        `checkpoint`: all else, `hyper_parameters`, `legradnet` (calibration, film check, counts of
                       films, versions of the training), `epoch` ...; in a tensor's place stands `{"$tensor": NAME}`,
                       in that of a number which JSON has not `{"$float": "inf"}`.
                       `parameters`: how many; `stored`: tensors by type; `made_with`: versions of the writing;
                       `largest_difference`: of a probability of generated knees from the checkpoint's; `quality`:
                       what rounding changes on films, null where there were none, as in an export's `export.json`;
                       `digests` of the files beside it, and `digest` of all that itself says.

What else lies in the folder (a card, a licence) is not looked at.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from legradnet.checkpoint import digest_of_checkpoint, read_checkpoint, whole_tensors
from legradnet.errors import UserError
from legradnet.models.described import check_files, digest, write_description
from legradnet.models.description import CONFIG, WAY_OUT, WEIGHTS, is_model_folder, read_description

_MOST_HEADER_BYTES = 16 * 1024**2  # of names and shapes in a safetensors file
_TYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
_SMALL = 2**16  # weights
_TENSOR, _FLOAT = "$tensor", "$float"
_NOT_IN_JSON = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}


def read_trained(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint or a model folder: the same keys.

    Raises:
        UserError: It is neither, is damaged, or has anything but tensors and plain values.
    """
    return read_model(Path(path)) if is_model_folder(path) else read_checkpoint(path)


def digest_of(path: str | Path) -> str:
    """Digest by which a checkpoint or a model folder is known, 32 or 64 hex digits; it is not compared with anything.

    Raises:
        UserError: It is neither.
    """
    return read_description(Path(path)).digest if is_model_folder(path) else digest_of_checkpoint(path)


def read_model(folder: Path) -> dict[str, Any]:
    """Read a model folder as `read_checkpoint` reads a checkpoint, and make sure that no byte of it changed.

    Raises:
        UserError: No model of ours, a damaged one, one of another version, or with another file than its own in it.
    """
    said = read_description(folder)
    check_files(folder, said.digests, WAY_OUT)
    tensors = read_tensors(folder / WEIGHTS)
    try:
        content = _restored(said.checkpoint, tensors)
    except ValueError as error:
        raise UserError(f"{folder / CONFIG} is damaged: {error}.") from None
    return {**content, "state_dict": tensors}


def write_model(
    folder: Path, checkpoint: Mapping[str, Any], said: Mapping[str, Any], *, shortened: bool = True
) -> dict[str, Any]:
    """Write what `read_checkpoint` gave of a `best.ckpt` as a model folder.

    Args:
        folder: It is there; files of an earlier call are overwritten.
        checkpoint: `state_dict`, and whatever plain values and tensors there are beside it.
        said: What else `config.json` says: `parameters`, `made_with`.
        shortened: Whether large tensors get 16 bits; else all is kept as it is.

    Returns:
        What `config.json` says; with `write_description`, more can be said.

    Raises:
        UserError: Something is neither a tensor nor plain.
    """
    whole = whole_tensors(checkpoint["state_dict"])
    large = [name for name, weights in whole.items() if weights.numel() > _SMALL and weights.dtype == torch.float32]
    tensors = whole | {name: in_16_bits(whole[name]) for name in (large if shortened else ())}
    rest = {key: value for key, value in checkpoint.items() if key != "state_dict"}
    plain = _without_tensors(rest, tensors, ())
    alone = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    (folder / WEIGHTS).write_bytes(save(alone, metadata={"format": "pt"}))  # `save_file` makes it its owner's alone
    described = {
        "legradnet_model": 1,
        "checkpoint": plain,
        "parameters": said["parameters"],
        "stored": dict(Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())),
        "made_with": said["made_with"],
        "digests": {WEIGHTS: digest(folder / WEIGHTS)},
    }
    write_description(folder / CONFIG, described)
    return described


def in_16_bits(weights: Tensor) -> Tensor:
    """Weights [...] in float32 as the float16 that loses least among those that bfloat16 rounds as it rounds them.

    A network that computes in bfloat16, where the least change of a weight makes its own noise another, sees no other
    weights then; only those below 6e-5, where float16 has few bits, may be others. Weights that float16 has no range
    for become bfloat16.
    """
    if torch.equal(weights.bfloat16().float(), weights):
        return weights.bfloat16()
    coarse, fine = weights.bfloat16(), weights.half()
    if not fine.isfinite().all():
        return coarse
    for step in (1, -1):  # a neighbour, away from zero or towards it
        near = (fine.view(torch.int16) + step).view(torch.float16)
        fine = torch.where((fine.bfloat16() != coarse) & (near.bfloat16() == coarse), near, fine)
    lost = [(kind.float() - weights).norm() for kind in (fine, coarse)]
    return fine if lost[0] <= lost[1] else coarse


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors by name of a safetensors file, a model folder's or any other.

    Raises:
        UserError: It can't be read, its header is too long, or it holds something else than numbers.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError(f"its header has {length:,} bytes, more than {_MOST_HEADER_BYTES:,}")
        tensors = load_file(path)
    except (SafetensorError, OSError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error
    if odd := [name for name, tensor in tensors.items() if tensor.dtype not in _TYPES]:
        raise UserError(f"{path} holds {odd[0]} as {tensors[odd[0]].dtype}, which no weight of ours is.")
    return tensors


def _without_tensors(value: Any, tensors: dict[str, Tensor], place: tuple[str, ...]) -> Any:
    """`value` for JSON; the tensors in it go into `tensors`."""
    name = ".".join(place)
    if isinstance(value, Tensor):
        whole_tensors({name: value})
        if name in tensors:
            raise UserError(f"There are two tensors of the name {name} in this checkpoint.")
        tensors[name] = value
        return {_TENSOR: name}
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str) or key.startswith("$")]:
            raise UserError(f"{name or 'A checkpoint'} has the key {odd[0]!r}, which can't be kept in {CONFIG}.")
        return {key: _without_tensors(inner, tensors, (*place, key)) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_tensors(inner, tensors, (*place, str(i))) for i, inner in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: str(value)}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"{name} is a {type(value).__name__}, which can't be kept in {CONFIG}.")


def _restored(value: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_without_tensors` took apart; what it needs is taken out of `tensors`. ValueError if it isn't there."""
    if isinstance(value, list):
        return [_restored(inner, tensors) for inner in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {_TENSOR}:
        if not isinstance(value[_TENSOR], str) or value[_TENSOR] not in tensors:
            raise ValueError(f"there is no tensor {json.dumps(value[_TENSOR])[:80]}, or it stands in two places")
        return tensors.pop(value[_TENSOR])
    if value.keys() == {_FLOAT}:
        if value[_FLOAT] not in _NOT_IN_JSON:
            raise ValueError(f"{json.dumps(value[_FLOAT])[:80]} is no number")
        return _NOT_IN_JSON[value[_FLOAT]]
    return {key: _restored(inner, tensors) for key, inner in value.items()}
