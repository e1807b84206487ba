"""What `checkpoint=` may name beside a path: `oai`, the shipped model, and `hub:OWNER/NAME@REVISION`; no torch."""

from pathlib import Path

from legradnet.errors import UserError

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a model folder, see `folder.py`
SHIPPED = "oai"
SHIPPED_FOLDER = Path(__file__).with_name(SHIPPED)


def is_model_folder(path: str | Path) -> bool:
    """Whether this is, or should be, a folder that `legradnet-export format=model` wrote."""
    return any((Path(path) / name).is_file() for name in (CONFIG, WEIGHTS))


def local_path(checkpoint: str | Path) -> Path:
    """Where a checkpoint, export or model folder lies that `checkpoint=` names.

    Args:
        checkpoint: The text `oai`, or a path; a `Path` is always one, and so is `./oai`.

    Raises:
        UserError: There is no shipped model in this build.
    """
    if checkpoint != SHIPPED or isinstance(checkpoint, Path):
        return Path(checkpoint)
    if not is_model_folder(SHIPPED_FOLDER):
        raise UserError(
            f"checkpoint={SHIPPED} is the model that LegRadNet ships, and there is none in this build: name one of "
            "yours, a best.ckpt of legradnet-train, an export or a model folder."
        )
    return SHIPPED_FOLDER


def name_of(path: str | Path) -> str:
    """What a user calls the model that lies at `path`: the reverse of `local_path`."""
    return SHIPPED if Path(path) == SHIPPED_FOLDER else str(path)
