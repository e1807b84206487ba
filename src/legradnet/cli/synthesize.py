"""`legradnet-synthesize`: write generated knee films to try things on."""

from pathlib import Path
from typing import Any

from legradnet.cli import run


def _synthesize(config: dict[str, Any], run_folder: str) -> None:
    from legradnet.data.settings import SynthesizeSettings  # late: --help must not wait for pydantic and scipy
    from legradnet.data.synthetic import write_knees
    from legradnet.settings import checked

    settings = checked(SynthesizeSettings, config)
    csv = write_knees(
        Path(settings.output),
        settings.count,
        size=settings.image_size,
        num_classes=settings.num_classes,
        seed=settings.seed,
    )
    print(f"{settings.count} generated knees and their CSV: {csv}")


def main() -> None:
    """Entry point of the console script."""
    run("synthesize", _synthesize)
