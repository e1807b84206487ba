"""`legradnet-synthesize`: generated knees as files, to try things on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from legradnet.data.settings import SynthesizeSettings
from legradnet.data.synthetic import write_knees
from legradnet.settings import checked


def synthesize(config: Mapping[str, Any]) -> Path:
    """Write generated knees as `conf/synthesize.yaml` composes it.

    Returns:
        Their CSV.

    Raises:
        UserError: A mistake in the config, or a folder that is not empty.
    """
    settings = checked(SynthesizeSettings, config)
    size, classes, seed = settings.image_size, settings.num_classes, settings.seed
    csv = write_knees(Path(settings.output), settings.count, size=size, num_classes=classes, seed=seed)
    print(f"{settings.count} generated knees and their CSV: {csv}")
    return csv
