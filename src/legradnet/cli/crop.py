"""`legradnet-crop`: cut the knees out of whole films."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _crop(config: dict[str, Any], _: str) -> None:
    from legradnet.localise.run import crop  # late: --help and --cfg must not wait for pydantic and scipy

    if not crop(config):
        raise SystemExit(1)


def _keys() -> Iterable["Key"]:
    from legradnet.localise.settings import CropSettings  # late too
    from legradnet.settings import keys

    return keys(CropSettings)


def main() -> None:
    """Entry point of the console script."""
    run("crop", _crop, _keys)
