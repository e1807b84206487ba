"""One radiograph file -> one 8-bit gray picture."""

import hashlib
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from legradnet.errors import UserError

Fit = Literal["pad", "crop", "stretch"]
Gray = npt.NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
MIN_SIDE = 16
MAX_PIXELS = 80_000_000  # a film is 10 to 30 million; Pillow itself starts to warn at 89 million
DEEP_PERCENTILES = (0.5, 99.5)

_PHOTOMETRIC = 262  # TIFF 6.0, section 8: 0 = WhiteIsZero


class ImageError(UserError):
    """A file that is not a usable radiograph; says which file and why."""


def read_image(path: Path) -> Gray:
    """Read a radiograph as 8-bit gray [H, W].

    The content decides what a file is, not its ending. 8-bit gray stays as it is; colour becomes ITU-R 601 luma, alpha
    is dropped (Pillow reads 16-bit colour, and gray with alpha, at 8 bits). Deeper gray (16-bit, 32-bit, float) is
    stretched linearly from its 0.5 and 99.5 percentiles to 0-255 and clipped; a constant deep film is black. EXIF
    orientation is applied; of several pages the first is read.

    Raises:
        ImageError: Missing, unreadable, truncated, not one of `FORMATS`, smaller than `MIN_SIDE` on a side, larger
            than `MAX_PIXELS` (told before decoding), or holding NaN or infinite values.
    """
    with _opened(path) as image:
        white_is_zero = image.format == "TIFF" and image.getexif().get(_PHOTOMETRIC) == 0  # Pillow inverts only 8 bits
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            gray = _stretch_range(np.asarray(image))
            return 255 - gray if white_is_zero else gray
        return np.array(image.convert("L"))


def check_header(path: Path) -> None:
    """Check what can be known without decoding: that the file opens, its format and its size.

    Raises:
        ImageError: As `read_image`.
    """
    with _opened(path):
        pass


def fingerprint(path: Path) -> bytes:
    """Hash the picture of a film, not its file: equal pixels in an equal shape give equal 16 bytes.

    Raises:
        ImageError: As `read_image`.
    """
    gray = read_image(path)
    picture = hashlib.blake2b(repr(gray.shape).encode(), digest_size=16)
    picture.update(gray.data)
    return picture.digest()


def fit_image(image: Gray, size: int, fit: Fit) -> Gray:
    """Bring `image` [H, W] to [size, size] with an antialiased bilinear resize.

    Args:
        image: 8-bit gray; one that is [size, size] keeps its pixels.
        size: Side of the result in pixels.
        fit: "pad" scales the long side to `size` and centres on black, "crop" scales the short side and cuts the
            centre out, "stretch" ignores the aspect.
    """
    height, width = image.shape
    film = Image.fromarray(image)
    match fit:
        case "stretch":
            film = film.resize((size, size), Image.Resampling.BILINEAR)
        case "crop":  # cut before scaling, so that a very long film cannot grow
            side = min(height, width)
            left, top = (width - side) / 2, (height - side) / 2
            film = film.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))
        case "pad":
            scale = size / max(height, width)
            inner = max(1, round(width * scale)), max(1, round(height * scale))
            canvas = Image.new("L", (size, size))
            canvas.paste(
                film.resize(inner, Image.Resampling.BILINEAR), ((size - inner[0]) // 2, (size - inner[1]) // 2)
            )
            film = canvas
        case _:
            raise UserError(f"data.fit={fit!r} is not one of pad, crop, stretch")
    return np.array(film)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a film with its size checked; whatever goes wrong until it is closed becomes an `ImageError`."""
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file")
        if status.st_size == 0:
            raise ImageError("the file is empty")
        with path.open("rb") as file:
            if file.read(132)[128:] == b"DICM":  # the one door through which dicom.py will come in
                raise ImageError("DICOM is not supported yet")
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                _check_size(*image.size)
                yield image
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a readable PNG, JPEG, TIFF or BMP image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path}: more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        raise ImageError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # Pillow meets hostile bytes with nearly any exception
        raise ImageError(f"{path}: cannot be decoded ({type(error).__name__}: {error})") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels")
    if min(width, height) < MIN_SIDE:
        raise ImageError(f"{width} x {height} is too small, a side has at least {MIN_SIDE} pixels")


def _stretch_range(deep: npt.NDArray[np.generic]) -> Gray:
    """Map the `DEEP_PERCENTILES` of `deep` [H, W] linearly to 0-255."""
    values = deep.astype(np.float64)
    if not np.isfinite(values).all():
        raise ImageError("holds NaN or infinite values")
    low, high = np.percentile(values, DEEP_PERCENTILES)
    if low == high:  # nearly all of the film is one value; use whatever contrast is left
        low, high = values.min(), values.max()
    if low == high:
        return np.zeros(values.shape, np.uint8)
    values -= low
    values *= 255 / (high - low)
    return np.clip(np.rint(values, out=values), 0, 255, out=values).astype(np.uint8)
