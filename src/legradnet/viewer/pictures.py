"""The pictures of a film: in all its depth, and small."""

import io
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from legradnet.data.depth import depth_kept
from legradnet.data.film import Film, Gray, ImageError
from legradnet.data.images import read_film
from legradnet.viewer.kept import Kept
from legradnet.viewer.worklist import Row, Worklist, digest_of, stamp_of

_SMALL = 160  # pixels, the longer side of a thumbnail


@dataclass(frozen=True)
class Pixels:
    """A film for the page.

    Attributes:
        content: uint16 [H, W], little-endian, row by row.
        width: W.
        height: H.
        bits: Values are below 2 ** bits.
        centre: Of the window in which it is shown at first.
        width_of_window: Of the same.
    """

    content: bytes
    width: int
    height: int
    bits: int
    centre: float
    width_of_window: float


class Pictures:
    """Reads the films of a list when they are looked at.

    Args:
        worklist: The list; it learns size and digest of each film that is read.
    """

    def __init__(self, worklist: Worklist) -> None:
        self.worklist = worklist
        self.shown = threading.Event()  # whether a film was
        self._pixels: Kept[Pixels] = Kept(192 * 2**20)
        self._small: Kept[bytes] = Kept(64 * 2**20)

    def kept_pixels(self, row: Row) -> Pixels | None:
        """What `pixels` gives, if it was asked for lately."""
        return self._pixels.get(row.film.film)

    def kept_thumbnail(self, row: Row) -> bytes | None:
        """What `thumbnail` gives, if it was asked for lately."""
        return self._small.get((row.film.film, row.box))

    def pixels(self, row: Row) -> Pixels:
        """The film in its depth.

        Raises:
            ImageError: It can't be read.
        """
        path = path_of(row)
        if (kept := self.kept_pixels(row)) is None:
            with depth_kept():
                film = self._read(row, path)
            deep = film.deep
            values = film.gray.astype("<u2") if deep is None else deep.values.astype("<u2", copy=False)
            bits, centre, width = (8, 127.5, 255.0) if deep is None else (deep.bits, deep.centre, deep.width)
            kept = Pixels(values.tobytes(), film.gray.shape[1], film.gray.shape[0], bits, centre, width)
            self._pixels.put(path, kept, len(kept.content))
            self._learn(row, film)
        self.shown.set()
        return kept

    def thumbnail(self, row: Row) -> bytes:
        """A small JPEG of the knee; raises as `pixels`."""
        if (kept := self.kept_thumbnail(row)) is None:
            film = self._read(row, path_of(row))
            gray = film.gray
            if row.box is not None:
                x, y, side = row.box
                gray = gray[max(0, y) : y + side, max(0, x) : x + side]
            picture = Image.fromarray(np.ascontiguousarray(gray))
            picture.thumbnail((_SMALL, _SMALL), Image.Resampling.BILINEAR)
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=80)
            kept = file.getvalue()
            self._small.put((row.film.film, row.box), kept, len(kept) + 200)
            self._learn(row, film)
        return kept

    def gray(self, row: Row) -> Gray:
        """The film as a network sees it, 8-bit gray [H, W]; raises as `pixels`."""
        return self._read(row, path_of(row)).gray

    def digest(self, row: Row) -> str:
        """SHA-256 of the film's file; raises as `pixels`."""
        path = path_of(row)
        if not row.digest:
            try:
                row.digest = digest_of(path)
            except OSError as error:
                raise ImageError(error.strerror or "cannot be read") from None
        return row.digest

    def _read(self, row: Row, path: Path) -> Film:
        try:
            return read_film(path)
        except ImageError as error:
            raise ImageError(str(error).removeprefix(f"{path}: ")) from None  # a name, and no path

    def _learn(self, row: Row, film: Film) -> None:
        height, width = film.gray.shape
        size = width, height, film.deep.bits if film.deep is not None else 8
        if row.size is None or size[2] > row.size[2]:
            row.size = size
        row.side = row.side or film.side


def path_of(row: Row) -> Path:
    """Where the film is, and still the one that was read before: what is said of a film is said of no other.

    Raises:
        ImageError: It can't be, or another is there now.
    """
    path = row.film.film
    if isinstance(path, ImageError):
        raise path
    stamp = stamp_of(path)
    row.stamp = row.stamp or stamp
    if stamp not in (None, row.stamp):  # of one that is gone its reader tells
        raise ImageError("its file has changed since it was read: start legradnet-view anew")
    return path
