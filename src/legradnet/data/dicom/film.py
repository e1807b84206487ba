"""From an open DICOM file to its first frame: what is checked before decoding, and the decoding."""

import io
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from legradnet.data.depth import deep_of
from legradnet.data.dicom import remarks as said
from legradnet.data.dicom.elements import items, real, whole
from legradnet.data.dicom.gray import meant_gray, scaled
from legradnet.data.dicom.remarks import film_with
from legradnet.data.dicom.start import start_of
from legradnet.data.dicom.stored import stored_values
from legradnet.data.dicom.streams import Behind, Inflated
from legradnet.data.film import Film, ImageError, check_size, film_of_colour
from legradnet.data.patients import digest_of
from legradnet.data.sides import SIDES, Side
from legradnet.errors import how_to_install

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

_PLUGINS = ("pillow", "gdcm", "pylibjpeg", "pydicom", "pyjpegls")  # the first of a decoder's; the last is slow to fail
_LOOKED_AT = 2**20  # bytes behind the frames
_OF_ONE_SAMPLE = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
_SIDES = ("ImageLaterality", "FrameLaterality", "Laterality")  # the first that tells one is believed
_MACROS = ("FrameAnatomySequence", "PixelValueTransformationSequence", "FrameVOILUTSequence")
_COLOURS = ("Red", "Green", "Blue")
_WANTED = (  # nothing else is read
    *("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PlanarConfiguration", "PhotometricInterpretation", "PresentationLUTShape"),
    *("ModalityLUTSequence", "RescaleSlope", "RescaleIntercept"),
    *("VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "ImageLaterality", "Laterality", "PatientID", "IssuerOfPatientID"),
    *(f"{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in _COLOURS),
    *(f"Segmented{colour}PaletteColorLookupTableData" for colour in _COLOURS),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


def open_dicom(file: BinaryIO) -> "tuple[Dataset, BinaryIO, str]":
    """Read and check what stands before the pixels; gives it, a stream that stands at their value, and their VR.

    In the header that it gives, what describes the pixels is there and plain: SamplesPerPixel, BitsStored,
    PixelRepresentation, PlanarConfiguration, PhotometricInterpretation; and of stated NumberOfFrames those there are.
    """
    import pydicom

    stream = inflated(file)
    header = pydicom.dcmread(stream, stop_before_pixels=True, force=True, specific_tags=list(_WANTED))
    for name in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in items(header, name)[:1]:
            for macro in _MACROS:
                for item in items(group, macro)[:1]:
                    header.update(item)

    implicit, little = header.original_encoding
    order = "<" if little else ">"
    if stream.read(4) != struct.pack(f"{order}HH", 0x7FE0, 0x0010):
        raise ImageError("a DICOM file without pixel data")
    vr = "OW"
    if not implicit and (stated := stream.read(4)[:2]) in (b"OB", b"OW", b"UN"):
        vr = stated.decode()
    elif not implicit:  # a data set that turns out to be implicit, as some programs write
        stream.seek(-4, io.SEEK_CUR)
    stream.seek(4, io.SEEK_CUR)
    there = _length(header, stream)

    rows, columns, allocated = (whole(header, name) for name in ("Rows", "Columns", "BitsAllocated"))
    check_size(columns, rows)
    samples, stored = whole(header, "SamplesPerPixel", 1), whole(header, "BitsStored", allocated)
    header.Rows, header.Columns, header.BitsAllocated = rows, columns, allocated
    header.SamplesPerPixel, header.BitsStored = samples, stored
    header.PixelRepresentation = int(real(header, "PixelRepresentation", 0) == 1)
    header.PlanarConfiguration = whole(header, "PlanarConfiguration", 0)
    header.PhotometricInterpretation = str(header.get("PhotometricInterpretation") or "").strip().upper()
    if samples not in (1, 3) or allocated not in (1, 8, 16, 32) or not 0 < stored <= allocated:
        raise ImageError(f"{samples} x {stored} of {allocated} bits a pixel is not supported")
    frames = real(header, "NumberOfFrames", 1)
    header.NumberOfFrames = int(frames) if 1 <= frames < 2**31 else 1
    if not _syntax(header).is_encapsulated:
        frame = _frame(header)
        if frame > there:
            raise ImageError(f"is truncated: {there:,} of {frame:,} bytes of pixels")
        header.NumberOfFrames = min(header.NumberOfFrames, there // frame)
    return header, stream, vr


def film_of_dicom(header: "Dataset", pixels: BinaryIO, vr: str) -> Film:
    """Decode the first frame of what `open_dicom` gave."""
    frames, frame = int(header.NumberOfFrames), _frame(header)
    remarks = [said.first_of(frames)] if frames > 1 else []
    if not _syntax(header).is_encapsulated and _has_more(pixels, frames * frame, _length(header, pixels)):
        remarks.append(said.EXCESS)
    if len({header.get(name) for name in _SIDES} & set(SIDES)) > 1:
        remarks.append(said.SIDES_DIFFER)
    if header.SamplesPerPixel == 1 and header.PhotometricInterpretation not in _OF_ONE_SAMPLE:
        remarks.append(said.NO_POLARITY)
        header.PhotometricInterpretation = "MONOCHROME2"
    values, colour_space = _decode(header, pixels, vr)
    values = stored_values(values, header, remarks)
    if colour_space == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        try:
            values = apply_color_lut(values, header)[..., :3]
        except (AttributeError, ValueError):
            raise ImageError("its palette is missing or can't be used") from None
        top = np.iinfo(values.dtype).max
        if top > 255 and values.max() <= 255:  # 8 bits that are said to be 16
            remarks.append(said.PALETTE)
            top = 255
        film = film_of_colour(scaled(values, top))
    elif values.ndim == 3:
        film = film_of_colour(scaled(values, 2**header.BitsStored - 1))
    else:
        gray = meant_gray(values, header, remarks)
        film = Film(gray, deep=deep_of(values, gray))
    if film.gray.min() == film.gray.max():
        remarks.append(said.BLANK)
    return film_with(film, side_of(header), remarks)


def _length(header: "Dataset", pixels: BinaryIO) -> int:
    """Bytes of pixel data that are there, of those that stand in front of them."""
    start = pixels.seek(-4, io.SEEK_CUR) + 4
    (length,) = struct.unpack("<L" if header.original_encoding[1] else ">L", pixels.read(4))
    left = pixels.seek(0, io.SEEK_END) - start
    pixels.seek(start)
    return min(length, left)


def _has_more(pixels: BinaryIO, frames: int, there: int) -> bool:
    """Whether anything but zeros, which fill up the last block of some files, stands behind all `frames` bytes."""
    if there < frames + 2:  # an odd length is made even
        return False
    start = pixels.tell()
    pixels.seek(start + frames)
    has_more = any(pixels.read(min(there - frames, _LOOKED_AT)))
    pixels.seek(start)
    return has_more


def _frame(header: "Dataset") -> int:
    """Bytes of a frame that is not compressed."""
    frame = header.Rows * header.Columns * header.SamplesPerPixel * header.BitsAllocated // 8
    return frame * 2 // 3 if header.PhotometricInterpretation == "YBR_FULL_422" else frame


def side_of(header: "Dataset") -> Side:
    """L or R where the file tells the side of its film, else ""."""
    sides = (header.get(name) for name in _SIDES)
    return next((side for side in sides if side in SIDES), "")


def patient_of(header: "Dataset") -> str:
    """What stands for the patient that the file names, else ""."""
    try:
        return digest_of(*(header.get(name) for name in ("PatientID", "IssuerOfPatientID")))
    except (TypeError, ValueError, OverflowError):  # no text
        return ""


def inflated(file: BinaryIO) -> BinaryIO:
    """Give `file`, or what is deflated in it (PS3.5 A.5) as a bare data set: pydicom would inflate without a limit.

    What begins elsewhere than pydicom expects is given from there.
    """
    from pydicom.filereader import read_dataset
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    head = file.read(132)
    start = start_of(head) or 0
    if head[start : start + 2] in (b"\2\0", b""):
        file.seek(start)
        meta = read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
        if meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return io.BufferedReader(Inflated(file))
    file.seek(0)
    if start in (0, 132):
        return file
    return io.BufferedReader(Behind(file, start))


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
    options["correct_unused_bits"] = False  # `stored_values` looks at them
    if not syntax.is_encapsulated:
        values, about = decoder.as_array(pixels, index=0, **options)
        return values, str(about["photometric_interpretation"])
    plugins = [name for name in _PLUGINS if name in decoder.available_plugins]
    if not plugins:
        raise ImageError(f"{syntax.name} needs a decoder: {how_to_install('dicom')}")
    offsets = options.pop("extended_offsets", None)
    frame = get_frame(pixels, 0, extended_offsets=offsets, number_of_frames=header.NumberOfFrames)
    _check_codestream(frame, header)
    if syntax == JPEGExtended12Bit and header.BitsStored > 8:
        raise ImageError("lossy JPEG of more than 8 bits is not supported: save it as lossless")
    for plugin in plugins:
        with suppress(RuntimeError):
            values, about = decoder.as_array(encapsulate([frame]), index=0, decoding_plugin=plugin, **options)
            return values, str(about["photometric_interpretation"])
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
    frame_size = _j2k_size(frame) if "2000" in syntax else _jpeg_size(frame)
    if frame_size != (header.Rows, header.Columns, header.SamplesPerPixel):
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
