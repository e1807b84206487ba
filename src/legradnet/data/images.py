"""One radiograph -- a file, a PIL image or an array -- to one 8-bit gray picture."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from legradnet.data.film import MAX_PIXELS, Film, Gray, ImageError, check_size, film_of_colour, stretch_range
from legradnet.data.sides import Side

FORMATS = ("PNG", "JPEG", "TIFF", "BMP")  # and DICOM
MAX_BYTES = 2 * 1024**3

_ORIENTATION = 274  # EXIF: 1 = as it is
_PHOTOMETRIC = 262  # TIFF 6.0, section 8: 0 = WhiteIsZero
_VRS = {b"AE", b"CS", b"DA", b"DT", b"IS", b"LO", b"LT", b"PN", b"SH", b"SQ", b"ST", b"TM", b"UI", b"UL", b"UN", b"US"}


def read_film(source: Path | Image.Image | npt.NDArray[Any]) -> Film:
    """Read a radiograph as 8-bit gray with what is known about it.

    The content decides what a file is, not its ending. 8-bit gray stays as it is; colour becomes ITU-R 601 luma, alpha
    is dropped (Pillow reads 16-bit colour, and gray with alpha, at 8 bits). Deeper gray (16-bit, 32-bit, float) is
    stretched linearly from its 0.5 and 99.5 percentiles to 0-255 and clipped; a constant deep film is black. EXIF
    orientation is applied; of several pages the first is read. What DICOM adds: `legradnet.data.dicom.process`.

    Args:
        source: A PNG, JPEG, TIFF, BMP or DICOM file, a PIL image, or an array [H, W] or [H, W, 3 or 4] of booleans,
            integers or floats; all but booleans and uint8 are stretched, colour with one range for its channels.

    Raises:
        ImageError: Missing, unreadable, truncated, larger than `MAX_BYTES`, not one of these formats, smaller than
            `MIN_SIDE` on a side, larger than `MAX_PIXELS` (told before decoding), or holding NaN or infinite values.
    """
    if isinstance(source, Path):
        with _opened(str(source)) as image:
            return _read_dicom(source) if image is None else _film_of_image(image)
    with _told_about(f"the given {type(source).__name__}"):
        if isinstance(source, Image.Image):
            check_size(*source.size)
            return _film_of_image(source)
        if isinstance(source, np.ndarray):
            return _film_of_array(source)
        raise ImageError("is not a path, a PIL image or a numpy array")


def read_image(path: Path) -> Gray:
    """Read a radiograph as 8-bit gray [H, W]; raises as `read_film`."""
    return read_film(path).gray


def check_header(path: str) -> Side:
    """Check what can be known without decoding: that the file opens, its format and its size; gives the film's side.

    Raises:
        ImageError: As `read_film`.
    """
    with _opened(path) as image:
        return _read_dicom(Path(path), decode=False).side if image is None else ""


def _film_of_image(image: Image.Image) -> Film:
    white_is_zero = image.format == "TIFF" and image.getexif().get(_PHOTOMETRIC) == 0  # Pillow inverts only 8 bits
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        gray = stretch_range(np.asarray(image))
        return Film(255 - gray if white_is_zero else gray)
    if image.mode in ("1", "L", "LA", "La"):
        return Film(np.array(image.convert("L")))
    return film_of_colour(np.asarray(image.convert("RGB")))


def _film_of_array(array: npt.NDArray[Any]) -> Film:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(f"has shape {list(array.shape)}, not [height, width] or [height, width, 3 or 4]")
    check_size(array.shape[1], array.shape[0])
    if array.dtype.kind not in "buif":
        raise ImageError(f"holds {array.dtype}, not booleans, integers or floats")
    picture = array[..., :3] if array.ndim == 3 else array
    if picture.dtype == bool:
        picture = np.where(picture, np.uint8(255), np.uint8(0))
    elif picture.dtype != np.uint8:
        picture = stretch_range(picture)
    picture = np.array(picture, order="C", subok=False)
    return Film(picture) if picture.ndim == 2 else film_of_colour(picture)


def _read_dicom(path: Path, decode: bool = True) -> Film:
    from legradnet.data.dicom.process import read_dicom  # its reader needs this module

    return read_dicom(path, decode)


def _is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM's, with its preamble or beginning with a data set."""
    if head[128:132] == b"DICM":
        return True
    order: Literal["little", "big"] = "little" if head[:2] == b"\x08\x00" else "big"
    if int.from_bytes(head[:2], order) != 8 or int.from_bytes(head[2:4], order) > 0x3000:
        return False
    return head[4:6] in _VRS or (order == "little" and len(head) > 8 and int.from_bytes(head[4:8], order) < 256)


@contextmanager
def _opened(path: str) -> Iterator[Image.Image | None]:
    """Open a film with its size checked, or give None for DICOM; whatever goes wrong becomes an `ImageError`."""
    with _told_about(path):  # a million headers: a Path would double the time
        status = os.stat(path)  # noqa: PTH116
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("is not a regular file")
        if status.st_size == 0:
            raise ImageError("the file is empty")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"the file is larger than {MAX_BYTES:,} bytes")
        with open(path, "rb") as file:  # noqa: PTH123
            if _is_dicom(file.read(132)):
                yield None
                return
            file.seek(0)
            with Image.open(file, formats=FORMATS) as image:
                check_size(*image.size)
                yield image


@contextmanager
def _told_about(source: str) -> Iterator[None]:
    """Turn whatever goes wrong with `source` into an `ImageError` that names it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None
    except UnidentifiedImageError:
        raise ImageError(f"{source}: not a readable PNG, JPEG, TIFF, BMP or DICOM image") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{source}: more than {MAX_PIXELS:,} pixels") from None
    except OSError as error:
        raise ImageError(f"{source}: {error.strerror or error}") from error
    except Exception as error:  # Pillow meets hostile bytes with nearly any exception
        raise ImageError(f"{source}: cannot be decoded ({type(error).__name__}: {error})") from error
