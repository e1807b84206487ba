"""`legradnet-synthesize`: write generated knee films to try things on."""

from pathlib import Path
from typing import Any

from legradnet.cli import run
from legradnet.config import SYNTHESIZE_RULES, check_config


def _synthesize(config: dict[str, Any], run_folder: str) -> None:
    check_config(config, SYNTHESIZE_RULES)
    from legradnet.data.synthetic import write_knees  # late: --help must not wait for scipy

    csv = write_knees(
        Path(config["output"]),
        config["count"],
        size=config["image_size"],
        num_classes=config["num_classes"],
        seed=config["seed"],
    )
    print(f"{config['count']} generated knees and their CSV: {csv}")


def main() -> None:
    """Entry point of the console script."""
    run("synthesize", _synthesize)
