"""`legradnet-synthesize`: write generated knee films to try things on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from legradnet.cli import run

if TYPE_CHECKING:
    from legradnet.settings import Key  # pydantic is slow to import


def _synthesize(config: dict[str, Any], _: str) -> None:
    from legradnet.data.run import synthesize  # late: --help and --cfg must not wait for pydantic and scipy

    synthesize(config)


def _keys() -> Iterable["Key"]:
    from legradnet.data.settings import SynthesizeSettings  # late too
    from legradnet.settings import keys

    return keys(SynthesizeSettings)


def main() -> None:
    """Entry point of the console script."""
    run("synthesize", _synthesize, _keys)
