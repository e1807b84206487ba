"""A folder of a stranger whose JSON says what is in it: read within limits, no torch, and nothing of it is run.

Files in it have fixed names, so that nothing in the JSON can lead out of it.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from legradnet.errors import UserError
from legradnet.settings import Model, checked

_MOST_BYTES = 16 * 1024**2  # of the JSON
_MOST_VALUES = 100_000  # of all that a file says of itself
_DEEPEST = 8  # groups in groups
_LONGEST = 100_000  # characters of a text
_BLOB = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")  # a file's name in a hub's cache, to which a snapshot's names are links

Count = Annotated[int, Field(ge=0)]
Versions = dict[str, str | int | None]


def read_metadata(model: type[Model], values: Any, path: str | Path) -> Model:
    """What `values`, read from the file at `path`, say, as a model.

    Raises:
        UserError: They are not plain, are too many, or don't fit the model: every mistake, after the file's name.
    """
    title = f"{path} is damaged, or of another version of LegRadNet:"
    try:
        plain = _plain(values, iter(range(_MOST_VALUES)))
    except ValueError as error:
        raise UserError(f"{title}\n  {error}") from None
    return checked(model, plain, title=title)


def read_text(path: Path) -> str:
    """A description's text; UserError if it can't be one."""
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is larger than {_MOST_BYTES:,} bytes: LegRadNet wrote no such file.")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def parsed(text: str, path: Path) -> dict[str, Any]:
    """What a description says; UserError if it is no JSON object, or says something twice."""
    try:
        described = json.loads(text, object_pairs_hook=_without_doubles)
        if not isinstance(described, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return described


def write_description(path: Path, described: Mapping[str, Any]) -> None:
    """Write a description with the digest of all that it says."""
    whole = {**described, "digest": digest_of_text(json.dumps(described, allow_nan=False))}
    path.write_text(json.dumps(whole, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def digest(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits: against damage, not against an attacker, who would change the JSON too."""
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            hashed.update(block)
    return hashed.hexdigest()


def digest_of_text(text: str) -> str:
    """BLAKE2b of what JSON says but for its own `digest`, each number as it is written; 32 hex digits."""

    def as_written(number: str) -> list[str]:
        return ["a number", number]

    described = json.loads(text, parse_float=as_written, parse_int=as_written, parse_constant=as_written)
    described.pop("digest", None)
    canonical = json.dumps(described, sort_keys=True).encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def check_files(folder: Path, digests: Mapping[str, str], way_out: str) -> None:
    """Compare files of a folder with their digests.

    Args:
        folder: The folder.
        digests: By the file's name.
        way_out: What the user may do, "export the checkpoint again".

    Raises:
        UserError: One is missing, another one, or not the folder's own.
    """
    for name, expected in digests.items():
        path = folder / name
        if not is_own(path):
            raise UserError(f"{path} is missing, or not a file of its own: {way_out}.")
        if digest(path) != expected:
            way_out = f"delete {path.resolve()}, and it is had again" if path.is_symlink() else way_out
            raise UserError(f"{path} is damaged, or another folder's: {way_out}.")


def is_own(path: Path) -> bool:
    """Whether this is a file in its folder: not elsewhere through a link, unless that is within a hub's cache."""
    if not path.is_symlink():
        return path.is_file()
    blob = path.resolve()  # OWNER--NAME/snapshots/COMMIT/FILE -> ../../blobs/BLOB
    return (
        blob.is_file()
        and blob.parent == path.parent.resolve().parents[1] / "blobs"
        and bool(_BLOB.fullmatch(blob.name))
    )


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) < len(pairs):
        raise ValueError("it says something twice")
    return group


def _plain(value: Any, budget: Iterator[int], place: tuple[str, ...] = ()) -> Any:
    """`value` if it is made of texts, numbers, lists and groups alone; tuples become lists."""
    name = ".".join(place) or "what it says of itself"
    if next(budget, None) is None:
        raise ValueError(f"it says more than {_MOST_VALUES:,} things of itself")
    if len(place) > _DEEPEST:
        raise ValueError(f"{name} is more than {_DEEPEST} groups deep")
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        if value.bit_length() > 63:
            raise ValueError(f"{name} is a number of {value.bit_length()} bits")
        return value
    if isinstance(value, str):
        if len(value) > _LONGEST:
            raise ValueError(f"{name} is a text of {len(value):,} characters")
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item, budget, (*place, str(i))) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str) or len(key) > 200]:
            raise ValueError(f"{name} has a key of {type(odd[0]).__name__} that is no short text")
        return {key: _plain(item, budget, (*place, key)) for key, item in value.items()}
    raise ValueError(f"{name} is a {type(value).__name__}")
