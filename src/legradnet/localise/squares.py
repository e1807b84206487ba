"""A knee's square as a picture on disk, in the depth that its film was read in."""

from pathlib import Path

import numpy as np
from PIL import Image

from legradnet.data.deep_png import write_deep_png
from legradnet.data.film import MIN_SIDE, Film
from legradnet.files import make_folder
from legradnet.localise.knees import Box


def write_square(path: Path, film: Film, box: Box, size: int | None) -> None:
    """Write a PNG of 8 bits, or of 16 where the film's `deep` was kept, which then looks as it does on its film.

    Args:
        path: Of the picture; its folder is made.
        film: As read.
        box: What of it; beyond the film's edge it is black.
        size: Side of the picture in pixels; None: as on the film, but at least `MIN_SIDE`.
    """
    make_folder(path.parent, mode=0o700)
    side = size or max(box.side, MIN_SIDE)
    if film.deep is None:
        square = Image.fromarray(box.cut(film.gray))
        _resized(square, side).save(path)
        return
    values = box.cut(film.deep.values)
    if side != box.side:
        values = np.rint(np.asarray(_resized(Image.fromarray(values.astype(np.float32)), side))).astype(np.uint16)
    write_deep_png(path, values, film.deep.centre, film.deep.width)


def _resized(square: Image.Image, side: int) -> Image.Image:
    if square.width == side:
        return square
    return square.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
