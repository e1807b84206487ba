"""What the `config.json` of a model folder says (see `folder.py`), read without torch."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from legradnet.errors import UserError
from legradnet.models.described import Count, Versions, digest_of_text, is_own, parsed, read_metadata, read_text
from legradnet.settings import Settings

CONFIG, WEIGHTS = "config.json", "model.safetensors"
WAY_OUT = "copy, download or export the model again"


class ModelDescription(Settings):
    """What `config.json` says; `checkpoint` is checked by whoever uses it, as what a checkpoint says is."""

    legradnet_model: Literal[1]
    checkpoint: dict[str, Any]
    parameters: Count
    stored: dict[str, Count]
    made_with: Versions
    largest_difference: float | None = Field(default=None, ge=0)
    quality: dict[str, float | str | bool | None] | None = None
    digests: dict[str, str]
    digest: str

    @model_validator(mode="after")
    def _knows_its_files(self) -> "ModelDescription":
        if self.digests.keys() != {WEIGHTS}:
            raise ValueError(f"digests must be of {WEIGHTS}, and of nothing else")
        return self


def is_model_folder(path: str | Path) -> bool:
    """Whether this is, or should be, a folder that `legradnet-export format=model` wrote."""
    return any((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def read_description(folder: Path, name: str = "") -> ModelDescription:
    """What a model folder's `config.json` says; the weights are not looked at.

    Args:
        folder: The folder.
        name: What the user calls it; "": as its path.

    Raises:
        UserError: No model of ours, a damaged one, or one of another version.
    """
    path = folder / CONFIG
    if not is_own(path):
        raise UserError(f"{path} is missing, or not a file of its own: {WAY_OUT}.")
    text = read_text(path)
    described = parsed(text, path)
    if "legradnet_model" not in described:
        raise UserError(f"{name or folder} is no model of LegRadNet: its {CONFIG} is another program's.")
    said = read_metadata(ModelDescription, described, path)
    if said.digest != digest_of_text(text):
        raise UserError(f"{path} is damaged, its checksum is wrong: {WAY_OUT}.")
    return said
