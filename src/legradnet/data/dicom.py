"""One DICOM file -> one film, read in a child process.

pydicom and the native decoders meet files from anywhere: damaged data makes GDCM abort and sends others into minutes of
work. So a child reads (one a thread, kept for the next film), within limits of time and memory, and a film that ends
the child is an `ImageError`. The child loads no element that names a patient, and its warnings and logs go nowhere:
pydicom's quote values.

After decoding, in the order of PS3.4 N.2: Modality LUT or rescale, VOI LUT or the first window (PS3.3 C.11.1, C.11.2),
inversion. Without VOI, 8-bit values stay as they are and deeper ones are stretched as in other formats. Padding is
black. "PS3" is the DICOM standard, https://dicom.nema.org/medical/dicom/current.
"""

import faulthandler
import io
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from legradnet.data.images import MAX_PIXELS, Film, Gray, ImageError, check_size, film_of_colour, stretch_range

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

SECONDS = 3.0  # for any film; decoding may take more, by its size
PIXELS_PER_SECOND = 4_000_000
MAX_MEMORY = 8 * 1024**3  # address space of the child: the largest film needs about half of it

_PLUGINS = (
    "pillow",
    "gdcm",
    "pylibjpeg",
    "pydicom",
    "pyjpegls",
)  # the first of a decoder's; pyjpegls is slow to give up
_MAX_INFLATED = 2 * MAX_PIXELS + 1_000_000
_MACROS = ("FrameAnatomySequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
_WANTED = (  # nothing else is read
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PlanarConfiguration", "PhotometricInterpretation", "PresentationLUTShape"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ImageLaterality", "Laterality"),
    *(
        f"{colour}PaletteColorLookupTable{part}"
        for colour in ("Red", "Green", "Blue")
        for part in ("Data", "Descriptor")
    ),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


def read_dicom(path: Path, decode: bool = True) -> Film:
    """Read the first frame of a DICOM file; with `decode` false, check what its header says and return no pixels.

    Raises:
        ImageError: Whatever is wrong with the file, without its path and without any value of its elements but sizes.
    """
    return _CHILD.read(path, decode)


class _Child(threading.local):
    """The process that reads this thread's films; started by the first of them."""

    process: "subprocess.Popen[bytes] | None" = None
    owner = 0

    def read(self, path: Path, decode: bool) -> Film:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(json.dumps([os.path.abspath(path), decode]).encode() + b"\n")  # noqa: PTH100
                process.stdin.flush()
            reply = json.loads(process.stdout.readline() or "null")
            shape = (reply or {}).get("shape", (0, 0))
            pixels = process.stdout.read(shape[0] * shape[1])
        except BaseException:  # an interrupt: a half-read reply must not become that of the next film
            self._end(process)
            raise
        if reply is None or len(pixels) < shape[0] * shape[1]:
            late = self._end(process) == 1  # faulthandler's exit
            raise ImageError(f"its decoder {'took too long' if late else 'crashed'}; the file is damaged or not DICOM")
        if "error" in reply:
            raise ImageError(reply["error"])
        gray = np.frombuffer(pixels, np.uint8).reshape(shape).copy()
        return Film(gray, reply["side"], reply["colour"], tuple(reply["remarks"]))

    def _running(self) -> "subprocess.Popen[bytes]":
        if self.process is not None and self.owner == os.getpid() and self.process.poll() is None:
            return self.process
        start = f"import sys; sys.path[:] = {sys.path!r}; from legradnet.data.dicom import serve; serve()"
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", start],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the parent
        )
        if process.stdout is None or process.stdout.readline() != b"ready\n":
            raise ImageError("the process that reads DICOM does not start; is pydicom installed and memory left?")
        self.process, self.owner = process, os.getpid()  # a fork must not use its parent's pipes
        return process

    def _end(self, process: "subprocess.Popen[bytes]") -> int:
        self.process = None
        process.kill()
        with suppress(BrokenPipeError), process:
            pass
        return process.returncode


_CHILD = _Child()


# ------------------------------------------------------------------------------------------------- the child's own side
def serve() -> None:
    """Answer requests on stdin until it closes: [path, decode] -> {"error"} or a film's JSON and its pixels."""
    import pydicom.pixels

    with suppress(ImportError, ValueError):  # on Windows; where less is allowed already
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a patient's film
        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.disable()
    warnings.simplefilter("ignore")
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # native decoders print
    replies.write(b"ready\n")
    replies.flush()
    for request in sys.stdin.buffer:
        path, decode = json.loads(request)
        pixels = b""
        reply: dict[str, Any]
        try:
            film = _read_within_limits(path, decode)
        except ImageError as error:
            reply = {"error": str(error)}
        except OSError as error:
            reply = {"error": error.strerror or "cannot be read"}
        except BaseException as error:  # its text may quote a patient's data
            reply = {"error": f"cannot be read as DICOM, damaged or unusual ({type(error).__name__})"}
        else:
            pixels = film.gray.tobytes()
            reply = {"shape": film.gray.shape, "side": film.side, "colour": film.colour, "remarks": film.remarks}
        faulthandler.cancel_dump_traceback_later()
        replies.write(json.dumps(reply).encode() + b"\n" + pixels)
        replies.flush()


def _read_within_limits(path: str, decode: bool) -> Film:
    with Path(path).open("rb") as file:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        header, pixels, vr = open_dicom(file)
        if not decode:
            return Film(np.empty((0, 0), np.uint8))
        seconds = SECONDS + header.Rows * header.Columns / PIXELS_PER_SECOND
        faulthandler.dump_traceback_later(seconds, exit=True)
        return film_of_dicom(header, pixels, vr)


def open_dicom(file: BinaryIO) -> "tuple[Dataset, BinaryIO, str]":
    """Read and check what stands before the pixels; gives it, a stream that stands at their value, and their VR."""
    import pydicom

    stream = _inflated(file)
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_WANTED))
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (header.get(name) or [])[:1]:
            for macro in _MACROS:
                for item in (group.get(macro) or [])[:1]:
                    header.update(item)

    implicit, little = header.original_encoding
    order = "<" if little else ">"
    if stream.read(4) != struct.pack(f"{order}HH", 0x7FE0, 0x0010):
        raise ImageError("a DICOM file without pixel data")
    vr = "OW"
    if not implicit and (told := stream.read(4)[:2]) in (b"OB", b"OW", b"UN"):
        vr = told.decode()
    elif not implicit:  # a data set that turns out to be implicit, as some programs write
        stream.seek(-4, io.SEEK_CUR)
    (length,) = struct.unpack(f"{order}L", stream.read(4))

    rows, columns, allocated = (_whole(header, name) for name in ("Rows", "Columns", "BitsAllocated"))
    check_size(columns, rows)
    samples, stored = _whole(header, "SamplesPerPixel", 1), _whole(header, "BitsStored", allocated)
    if samples not in (1, 3) or allocated not in (1, 8, 16, 32) or not 0 < stored <= allocated:
        raise ImageError(f"{samples} x {stored} of {allocated} bits a pixel is not supported")
    frame = rows * columns * samples * allocated // 8
    if header.get("PhotometricInterpretation") == "YBR_FULL_422":
        frame = frame * 2 // 3
    start = stream.tell()
    left = stream.seek(0, io.SEEK_END) - start
    stream.seek(start)
    if not _syntax(header).is_encapsulated and frame > min(length, left):
        raise ImageError(f"is truncated: {min(length, left):,} of {frame:,} bytes of pixels")
    return header, stream, vr


def film_of_dicom(header: "Dataset", pixels: BinaryIO, vr: str) -> Film:
    """Decode the first frame of what `open_dicom` gave."""
    values, colour_space = _decode(header, pixels, vr)
    frames = _whole(header, "NumberOfFrames", 1)
    remarks = [f"the first of {frames} frames"] if frames > 1 else []
    sides = [header.get(name) for name in ("ImageLaterality", "FrameLaterality", "Laterality")]
    side = next((side for side in sides if side in ("L", "R")), "")
    if colour_space == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        values = apply_color_lut(values, header)[..., :3]
        film = film_of_colour(_scaled(values, np.iinfo(values.dtype).max))
    elif values.ndim == 3:
        film = film_of_colour(_scaled(values, 2 ** _whole(header, "BitsStored") - 1))
    elif colour_space in ("MONOCHROME1", "MONOCHROME2"):
        film = Film(_gray(values, header, remarks))
    else:
        raise ImageError("its photometric interpretation is not supported")
    return Film(film.gray, side, film.colour, tuple(remarks))


def _inflated(file: BinaryIO) -> BinaryIO:
    """Give `file`, or what is deflated in it (PS3.5 A.5) as a bare data set: pydicom would inflate without a limit."""
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if file.read(132)[128:] == b"DICM":
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            inflate = zlib.decompressobj(-zlib.MAX_WBITS)
            content = inflate.decompress(file.read(), _MAX_INFLATED)
            if inflate.unconsumed_tail:
                raise ImageError(f"inflates to more than {_MAX_INFLATED:,} bytes")
            return io.BytesIO(content)
    file.seek(0)
    return file


def _syntax(header: "Dataset") -> "UID":
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    name = header.file_meta.get("TransferSyntaxUID")
    if name:
        return UID(name)
    implicit, little = header.original_encoding
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian if little else ExplicitVRBigEndian


def _decode(header: "Dataset", pixels: BinaryIO, vr: str) -> tuple[npt.NDArray[Any], str]:
    """Give the stored values [H, W] or [H, W, 3] of the first frame and their photometric interpretation."""
    from pydicom.encaps import encapsulate, get_frame
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import as_pixel_options
    from pydicom.uid import JPEGExtended12Bit

    syntax = _syntax(header)
    decoder = get_decoder(syntax)
    options: Any = as_pixel_options(header) | {"number_of_frames": 1, "pixel_keyword": "PixelData", "pixel_vr": vr}
    if not syntax.is_encapsulated:
        values, found = decoder.as_array(pixels, index=0, **options)
        return values, str(found["photometric_interpretation"])
    plugins = [name for name in _PLUGINS if name in decoder.available_plugins]
    if not plugins:
        raise ImageError(f"{syntax.name} needs a decoder: pip install 'legradnet[dicom]'")
    offsets = options.pop("extended_offsets", None)
    frames = _whole(header, "NumberOfFrames", 1)
    frame = get_frame(pixels, 0, extended_offsets=offsets, number_of_frames=frames)
    _check_codestream(frame, header)
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        raise ImageError("lossy JPEG of more than 8 bits is not supported: save it as lossless")
    for plugin in plugins:
        with suppress(RuntimeError):
            values, found = decoder.as_array(encapsulate([frame]), index=0, decoding_plugin=plugin, **options)
            return values, str(found["photometric_interpretation"])
    raise ImageError("its compressed pixels can't be decoded; they are damaged or of an unusual kind")


def _check_codestream(frame: bytes, header: "Dataset") -> None:
    """Refuse a compressed frame that tells another size than the header: decoders allocate what the frame tells."""
    room = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated // 8
    if len(frame) > 2 * room + 65_536:
        raise ImageError("holds far more compressed data than pixels")
    syntax = _syntax(header).name
    if "RLE" in syntax:  # states no size
        return
    if "2000" not in syntax and b"\xff\xd9" not in frame:  # without its end a JPEG-LS decoder may never stop
        raise ImageError("is truncated: its compressed pixels have no end")
    told = _j2k_size(frame) if "2000" in syntax else _jpeg_size(frame)
    if told != (header.Rows, header.Columns, header.SamplesPerPixel):
        raise ImageError("its compressed pixels are damaged or of another size than its header says")


def _j2k_size(frame: bytes) -> tuple[int, ...] | None:
    """Rows, columns and components of the SIZ segment (ISO 15444-1, A.5.1), which a JP2 file has behind its boxes."""
    start = frame.find(b"\xff\x4f\xff\x51", 0, 4096)
    if start < 0 or len(frame) < start + 42:
        return None
    width, height, left, top = struct.unpack_from(">4L", frame, start + 8)
    return height - top, width - left, struct.unpack_from(">H", frame, start + 40)[0]


def _jpeg_size(frame: bytes) -> tuple[int, ...] | None:
    """Rows, columns and components of a JPEG (ISO 10918-1, B.2.2) or JPEG-LS (ISO 14495-1, C.2.2) frame header."""
    at = 2
    while at + 10 <= len(frame) and frame[at] == 0xFF:
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        if marker == 0xFF:  # fill
            at += 1
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack_from(">HHB", frame, at + 5)
        else:
            at += 2 + length
    return None


def _gray(values: npt.NDArray[Any], header: "Dataset", remarks: list[str]) -> Gray:
    """Turn stored values [H, W] into gray as they are meant to be seen, bone bright."""
    padding = _padding(values, header)
    physical = _modality(values, header, remarks)
    seen = _voi(physical, header, remarks)
    if seen is not None:
        gray = _scaled(seen, 1)
    elif physical is values and values.min() >= 0 and header.get("BitsStored") == 8:
        gray = values.astype(np.uint8)
    else:
        gray = stretch_range(physical, padding)
    # PS3.3 C.7.6.3.1.2: the lowest value of MONOCHROME1 is shown white. PS3.3 C.8.11.3 states the same turn a second
    # time, as PresentationLUTShape INVERSE. It is one turn; and IDENTITY says that the values are turned already.
    first_is_white = header.PhotometricInterpretation == "MONOCHROME1"
    shape = header.get("PresentationLUTShape")
    inverted = shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else first_is_white
    if inverted != first_is_white:
        remarks.append("its PresentationLUTShape contradicts its photometric interpretation and was believed")
    if inverted:
        gray = 255 - gray
    if not padding.all():
        gray[padding] = 0
    return gray


def _padding(values: npt.NDArray[Any], header: "Dataset") -> npt.NDArray[np.bool_]:
    """Where `values` are no picture (PS3.3 C.7.5.1.1.2)."""
    if header.get("PixelPaddingValue") is None:
        return np.zeros(values.shape, np.bool_)
    one = _whole(header, "PixelPaddingValue")
    other = _whole(header, "PixelPaddingRangeLimit", one)
    return (values >= min(one, other)) & (values <= max(one, other))


def _modality(values: npt.NDArray[Any], header: "Dataset", remarks: list[str]) -> npt.NDArray[Any]:
    if header.get("ModalityLUTSequence"):
        return _looked_up(values, header.ModalityLUTSequence[0], header)[0]
    slope, intercept = _real(header, "RescaleSlope", 1.0), _real(header, "RescaleIntercept", 0.0)
    if not np.isfinite([slope, intercept]).all() or slope == 0:
        remarks.append("its rescale slope and intercept can't be used and were ignored")
        return values
    return values if (slope, intercept) == (1, 0) else values * slope + intercept


def _voi(values: npt.NDArray[Any], header: "Dataset", remarks: list[str]) -> npt.NDArray[np.float64] | None:
    """Give the values of interest as 0-1, or None where the header does not choose them."""
    if header.get("VOILUTSequence"):
        found, depth = _looked_up(values, header.VOILUTSequence[0], header)
        return found / (2**depth - 1)
    if header.get("WindowCenter") is None or header.get("WindowWidth") is None:
        return None
    centre, width = _real(header, "WindowCenter"), _real(header, "WindowWidth")
    function = header.get("VOILUTFunction") or "LINEAR"
    usable = np.isfinite([centre, width]).all() and (width >= 1 if function == "LINEAR" else width > 0)
    if usable and function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        seen = windowed(values, centre, width, function)
        if seen.min() < seen.max() or values.min() == values.max():
            return seen
    remarks.append("its window can't be used and was ignored")
    return None


def windowed(values: npt.NDArray[Any], centre: float, width: float, function: str) -> npt.NDArray[np.float64]:
    """Map `values` [H, W] to 0-1 through a window of PS3.3 C.11.2.1: "LINEAR", "LINEAR_EXACT" or "SIGMOID"."""
    away = values.astype(np.float64) - centre
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * away / width, -700, 700)))
    if function == "LINEAR":
        away, width = away + 0.5, width - 1
    if width == 0:
        return (away > 0).astype(np.float64)
    return np.clip(away / width + 0.5, 0, 1)


def _looked_up(values: npt.NDArray[Any], item: "Dataset", header: "Dataset") -> tuple[npt.NDArray[Any], int]:
    """Map `values` [H, W] through a table (PS3.3 C.11.1.1, C.11.2.1.1); gives its entries and their bits."""
    entries, first, depth = (int(number) for number in item.LUTDescriptor)
    entries = entries or 2**16
    if first >= 2**15 and header.PixelRepresentation == 1:  # read as unsigned
        first -= 2**16
    table = item.LUTData
    if isinstance(table, bytes):
        order = "<" if header.original_encoding[1] else ">"
        table = np.frombuffer(table, f"{order}u2" if len(table) >= 2 * entries else np.uint8)
    table = np.asarray(table).reshape(-1)[:entries]
    if not 1 <= depth <= 16 or not table.size:
        raise ImageError("has a lookup table that can't be used")
    places = np.clip(np.rint(values).astype(np.int64) - first, 0, table.size - 1)
    return np.clip(table[places], 0, 2**depth - 1), depth


def _scaled(values: npt.NDArray[Any], top: float) -> Gray:
    """Map 0 to `top` linearly to 0-255."""
    if top == 255:
        return np.clip(values, 0, 255).astype(np.uint8)
    return np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8)


def _whole(header: "Dataset", name: str, default: int | None = None) -> int:
    value = header.get(name)
    if value is None and default is not None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ImageError(f"its {name} is {'missing' if value is None else 'not a whole number'}") from None


def _real(header: "Dataset", name: str, default: float = float("nan")) -> float:
    """The first value of an element; NaN for what is no number."""
    value = header.get(name)
    if value is None:
        return default
    with suppress(TypeError, ValueError, IndexError):
        return float(value if isinstance(value, (int, float)) else value[0])
    return float("nan")
