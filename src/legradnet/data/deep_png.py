"""PNG files of 16 bits that keep the window in which they are to be seen: a part of a film looks as it did in it."""

import math
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from legradnet.data.depth import Deep16
from legradnet.data.film import Gray, by_rows

_WINDOW = "LegRadNet window"  # keyword of a text chunk: "centre width"
_NUMBER = r"(-?\d{1,9}(?:\.\d{1,6})?)"


def write_deep_png(path: Path, values: Deep16, centre: float, width: float) -> None:
    """Write `values` [H, W] without loss; black is to be at centre - width / 2, white at centre + width / 2."""
    about = PngInfo()
    about.add_text(_WINDOW, f"{centre:.6f} {width:.6f}")
    Image.fromarray(values).save(path, "PNG", pnginfo=about)


def window_in(image: Image.Image) -> tuple[float, float] | None:
    """Centre and width of the window that an opened PNG file of ours tells; None for all others."""
    text = image.info.get(_WINDOW)
    found = re.fullmatch(f"{_NUMBER} {_NUMBER}", text) if isinstance(text, str) else None
    if image.format != "PNG" or found is None:
        return None
    centre, width = float(found[1]), float(found[2])
    return (centre, width) if width >= 1 and math.isfinite(centre) else None


def through(values: npt.NDArray[np.generic], centre: float, width: float) -> Gray:
    """What `values` [H, W] look like through a window, which is linear."""
    gray = np.empty(values.shape, np.uint8)
    for place, rows in by_rows(values):
        rows -= centre - width / 2
        rows *= 255 / width
        gray[place] = np.clip(np.rint(rows, out=rows), 0, 255, out=rows)
    return gray
