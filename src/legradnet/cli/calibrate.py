"""`legradnet-calibrate`: fit a model to a site's own labelled films, without training."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _calibrate(config: dict[str, Any], _: str) -> None:
    from legradnet.site.run import calibrate  # late: --help and --cfg must not wait for torch

    calibrate(config)


def _keys() -> Iterable["Key"]:
    from legradnet.settings import keys
    from legradnet.site.settings import CalibrateSettings  # late too

    return keys(CalibrateSettings)


def main() -> None:
    """Entry point of the console script."""
    run("calibrate", _calibrate, _keys)
