"""One radiograph -- a file, a PIL image or an array -- to one 8-bit gray picture; and the table of film formats."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from legradnet.data.deep_png import through, window_in
from legradnet.data.depth import deep_of
from legradnet.data.dicom.process import DECODERS, read_dicom
from legradnet.data.dicom.start import is_dicom
from legradnet.data.film import (
    MAX_PIXELS,
    NO_PIXELS,
    Allow,
    Film,
    Gray,
    ImageError,
    check_size,
    film_of_colour,
    stretch_range,
)
from legradnet.data.reading.bounded import bytes_to_hold, is_bounded_jpeg, is_bounded_png
from legradnet.data.reading.pool import read_apart
from legradnet.data.sides import Side
from legradnet.files import OF_THE_PROCESS

HEAD = 132  # bytes at the beginning of a file that tell its format
MAX_BYTES = 2 * 1024**3
SEVERAL_PAGES = "the first of several pages"

_PIXELS_PER_SECOND = 20_000_000
_GIVEN = [Lock() for _ in range(64)]  # a thread at a time in an image: Pillow decodes it when it is first looked into
_ORIENTATION = 274  # EXIF: 1 = as it is
_PHOTOMETRIC = 262  # TIFF 6.0, section 8: 0 = WhiteIsZero


def read_film(source: Path | Image.Image | npt.NDArray[Any]) -> Film:
    """Read a radiograph as 8-bit gray with what is known about it.

    The content decides what a file is, not its ending. 8-bit gray stays as it is; colour becomes ITU-R 601 luma, alpha
    is dropped (Pillow reads 16-bit colour, and gray with alpha, at 8 bits). Deeper gray (16-bit, 32-bit, float) is
    stretched linearly from its 0.5 and 99.5 percentiles to 0-255 and clipped; a constant deep film is black; a square
    of ours has its film's window (`deep_png`). EXIF orientation is applied; of several pages the first is read. What
    DICOM adds: `legradnet.data.dicom.process`.

    Args:
        source: A PNG, JPEG, TIFF, BMP or DICOM file, a PIL image, or an array [H, W] or [H, W, 3 or 4] of booleans,
            integers or floats; all but booleans and uint8 are stretched, colour with one range for its channels.

    Raises:
        ImageError: Missing, unreadable, truncated, larger than `MAX_BYTES`, not one of these formats, smaller than
            `MIN_SIDE` on a side, larger than `MAX_PIXELS` (told before decoding), or holding NaN or infinite values.
    """
    if isinstance(source, Path):
        return _read_file(str(source))
    with _told_about(f"the given {type(source).__name__}"):
        if isinstance(source, Image.Image):
            check_size(*source.size)
            with _GIVEN[id(source) // 16 % len(_GIVEN)]:
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
    return _read_file(path, decode=False).side


def patient_in(path: Path) -> str:
    """What a DICOM file tells of its patient, as `Film.patient`; "" for other files. Raises as `check_header`."""
    with _told_about(str(path)), path.open("rb") as file:
        film_format = format_of(file.read(HEAD))
    if film_format is None or film_format.read is not read_dicom:
        return ""
    return _read_file(str(path), decode=False).patient


def _read_file(path: str, decode: bool = True) -> Film:
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
            film_format = format_of(file.read(HEAD))
            if film_format is None:
                raise UnidentifiedImageError
            if film_format.is_bounded(file):
                file.seek(0)
                return film_format.read(file, _as_much_as_it_takes if decode else None)
        return read_apart(os.path.realpath(path), decode)  # a relative path or /dev/stdin is another one there


def _as_much_as_it_takes(seconds: float, memory: int) -> None:
    """Allow all, to a reader whose work is known to be bounded."""


def _read_by_pillow(file: BinaryIO, allow: Allow | None) -> Film:
    names = [film_format.name for film_format in FORMATS if film_format.read is _read_by_pillow]
    with Image.open(file, formats=names) as image:
        check_size(*image.size)
        if allow is None:
            return NO_PIXELS
        pixels = image.width * image.height
        allow(pixels / _PIXELS_PER_SECOND, bytes_to_hold(pixels, image.mode))
        film = _film_of_image(image)
        return replace(film, remarks=(SEVERAL_PAGES,)) if getattr(image, "is_animated", False) else film


def _film_of_image(image: Image.Image) -> Film:
    white_is_zero = image.format == "TIFF" and image.getexif().get(_PHOTOMETRIC) == 0  # Pillow inverts only 8 bits
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith(("I", "F")):
        values, window = np.asarray(image), window_in(image)
        gray = stretch_range(values) if window is None else through(values, *window)
        gray = 255 - gray if white_is_zero else gray
        return Film(gray, deep=deep_of(values, gray))
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


@contextmanager
def _told_about(source: str) -> Iterator[None]:
    """Turn whatever goes wrong with `source` into an `ImageError` that names it."""
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{source}: {error}") from None
    except Exception as error:  # Pillow meets hostile bytes with nearly any exception
        if isinstance(error, OSError) and error.errno in OF_THE_PROCESS:  # no fault of the film, nor of the next
            raise
        raise ImageError(f"{source}: {in_words(error)}") from error


def in_words(error: BaseException) -> str:
    """What is wrong with a film, without its path, from whatever reading it raised."""
    match error:
        case ImageError():
            return str(error)
        case ValueError() if "null byte" in str(error):  # in a name
            return "no such file can exist"
        case UnidentifiedImageError():
            *names, last = (film_format.name for film_format in FORMATS)
            return f"not a readable {', '.join(names)} or {last} image"
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return f"more than {MAX_PIXELS:,} pixels"
        case OSError():
            return error.strerror or str(error)
    return f"cannot be decoded ({type(error).__name__}: {error})"


class FilmFormat(NamedTuple):
    """A kind of file that films come in.

    Attributes:
        name: What messages, and Pillow where it reads, call it.
        is_start: Whether the first `HEAD` bytes of a file, or fewer of a shorter one, are of this kind.
        read: Reads an open file, which stands at its beginning. It checks what can be known without decoding, calls
            `Allow` with what decoding may take, and decodes; with None it does neither, and the film has no pixels.
        packages: What decodes it: another version may give other pixels.
        is_bounded: Whether an open file of this kind can only be quick and small to read. All others are read in a
            process of their own.
    """

    name: str
    is_start: Callable[[bytes], bool]
    read: Callable[[BinaryIO, Allow | None], Film]
    packages: tuple[str, ...] = ("pillow",)
    is_bounded: Callable[[BinaryIO], bool] = lambda file: False


def _starts_with(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


def _is_bmp(head: bytes) -> bool:
    """Whether `head` is of BMP, by the length of its second header too: a table's may be BMI."""
    return head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 40, 52, 56, 64, 108, 124)


FORMATS = (  # of two that know a file the later reads it: what stands before DICOM's own start may be that of a TIFF
    FilmFormat("PNG", _starts_with(b"\x89PNG\r\n\x1a\n"), _read_by_pillow, is_bounded=is_bounded_png),
    FilmFormat("JPEG", _starts_with(b"\xff\xd8\xff"), _read_by_pillow, is_bounded=is_bounded_jpeg),
    FilmFormat("TIFF", _starts_with(b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+"), _read_by_pillow),
    FilmFormat("BMP", _is_bmp, _read_by_pillow),
    FilmFormat("DICOM", is_dicom, read_dicom, DECODERS),
)


def format_of(head: bytes) -> FilmFormat | None:
    """The format of a file that begins with `head`, at least `HEAD` bytes or the whole; None for what is no film."""
    return next((film_format for film_format in reversed(FORMATS) if film_format.is_start(head)), None)
