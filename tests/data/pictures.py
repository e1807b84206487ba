"""A small picture and a way to save it in any format."""

from pathlib import Path

import numpy as np
from PIL import Image

RAMP = np.linspace(0, 255, 24 * 32).astype(np.uint8).reshape(24, 32)


def saved(path: Path, image: np.ndarray | Image.Image, **options) -> Path:
    film = image if isinstance(image, Image.Image) else Image.fromarray(image)
    film.save(path, **options)
    return path
