"""What `checkpoint=` may name beside a path: `oai`, the shipped model, and `hub:OWNER/NAME@REVISION`; no torch."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from legradnet.errors import UserError
from legradnet.models.description import is_model_folder
from legradnet.models.hub import HUB, from_hub, hub_name
from legradnet.settings import PathText

SHIPPED = "oai"
SHIPPED_FOLDER = Path(__file__).with_name(SHIPPED)


def _as_text(value: Any) -> Any:
    """A `Path` is a path, whatever it is called; text may be a name."""
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    return os.path.join(".", text) if text is not value and is_name(text) else text  # noqa: PTH118 Path drops the dot


CheckpointText = Annotated[PathText, BeforeValidator(_as_text)]


def is_name(checkpoint: str | Path) -> bool:
    """Whether `checkpoint=` names a model, and no path."""
    return isinstance(checkpoint, str) and (checkpoint == SHIPPED or checkpoint.startswith(HUB))


def local_path(checkpoint: str | Path) -> Path:
    """Where a checkpoint, export or model folder lies that `checkpoint=` names.

    Args:
        checkpoint: The text `oai` or `hub:OWNER/NAME@REVISION`, or a path; a `Path` is always one, as is `./oai`.

    Raises:
        UserError: There is no shipped model in this build, or none on the hub.
    """
    if not is_name(checkpoint):
        return Path(checkpoint)
    if checkpoint != SHIPPED:
        return from_hub(str(checkpoint))
    if not is_model_folder(SHIPPED_FOLDER):
        raise UserError(
            f"checkpoint={SHIPPED} is the model that LegRadNet ships, and there is none in this build: name one of "
            "yours, a best.ckpt of legradnet-train, an export or a model folder."
        )
    return SHIPPED_FOLDER


def name_of(path: str | Path) -> str:
    """What a user calls the model that lies at `path`: the reverse of `local_path`."""
    return SHIPPED if Path(path) == SHIPPED_FOLDER else hub_name(Path(path)) or str(path)
