"""Small films on disk and tables that name them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from legradnet.data.manifest import ManifestError, load_manifest

KAGGLE = r"^(?P<patient>\d+)(?P<side>[LRlr])?"


def film(root: Path, name: str, seed: int | None = None) -> str:
    """A small film; films of one seed have equal pixels."""
    seed = sum(name.encode()) * 1009 + len(list(root.rglob("*"))) if seed is None else seed
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (16, 16), np.uint8)).save(path, "PNG")
    return name


def table(root: Path, text: str | bytes) -> Path:
    path = root.parent / "knees.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def told(root: Path, text: str | bytes, **options) -> str:
    """What the user reads about a CSV file."""
    with pytest.raises(ManifestError) as error:
        load_manifest(root, table(root, text), num_classes=5, **options)
    return str(error.value)
