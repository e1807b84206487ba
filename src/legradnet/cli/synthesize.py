"""`legradnet-synthesize`: write generated knee films to try things on."""

from typing import Any

from legradnet.cli import run


def _synthesize(config: dict[str, Any], _: str) -> None:
    from legradnet.data.run import synthesize  # late: --help and --cfg must not wait for pydantic and scipy

    synthesize(config)


def main() -> None:
    """Entry point of the console script."""
    run("synthesize", _synthesize)
