"""Damaged and hostile files, always the same ones for the same film."""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = (RLELossless, JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLossless) + (
    JPEGLSLossless,
    JPEGLSNearLossless,
)
SYNTAXES = NATIVE + COMPRESSED
LOSSY = (JPEGBaseline8Bit,)
CUTS = (0.1, 0.5, 0.9, 0.99)
FLIPS = (1, 10, 100)  # damaged bytes


def dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Dataset:
    """A data set of `pixels` [H, W] or [H, W, 3], compressed as `syntax` says; `elements` replace or add to its own."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if pixels.ndim == 2 else "RGB"
    if pixels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == ExplicitVRBigEndian else "<")).tobytes()
    dataset.PixelData = content + bytes(len(content) % 2)
    dataset["PixelData"].VR = "OW"
    if syntax == ExplicitVRBigEndian and pixels.itemsize == 1:
        dataset["PixelData"].VR = "OB"
    for name in ("BitsStored",):
        if name in elements:
            setattr(dataset, name, elements.pop(name))
    dataset.HighBit = dataset.BitsStored - 1
    if syntax in COMPRESSED:
        frames = int(str(elements.get("NumberOfFrames", 1)))
        dataset.PixelData = encapsulate([codestream(dataset, syntax)] * frames)
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def codestream(native: Dataset, syntax: str) -> bytes:
    """The pixels of `native`, which are not compressed, in one frame of `syntax`."""
    if syntax == JPEGBaseline8Bit:
        shape = (native.Rows, native.Columns) + ((3,) if native.SamplesPerPixel == 3 else ())
        file = io.BytesIO()
        Image.fromarray(np.frombuffer(native.PixelData, np.uint8)[: np.prod(shape)].reshape(shape)).save(
            file, "JPEG", quality=95
        )
        return file.getvalue()
    import gdcm

    kind = gdcm.TransferSyntax.GetTSType(str(syntax))
    owner = gdcm.ImageReader()  # counts the references to its image
    pixels = owner.GetImage()
    pixels.SetNumberOfDimensions(2)
    pixels.SetDimensions((native.Columns, native.Rows, 1))
    pixels.SetPixelFormat(
        gdcm.PixelFormat(
            native.SamplesPerPixel,
            native.BitsAllocated,
            native.BitsStored,
            native.HighBit,
            native.PixelRepresentation,
        )
    )
    photometric = gdcm.PhotometricInterpretation.GetPIType(native.PhotometricInterpretation)
    pixels.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(photometric))
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetByteStringValue(native.PixelData)
    pixels.SetDataElement(element)
    pixels.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.ExplicitVRLittleEndian))
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(pixels)
    assert change.Change()
    fragments = change.GetOutput().GetDataElement().GetSequenceOfFragments()
    return fragments.GetFragment(0).GetByteValue().GetBuffer().encode("utf-8", "surrogateescape")


def dicom_bytes(dataset: Dataset) -> bytes:
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def write_hostile(folder: Path, film: np.ndarray) -> list[Path]:
    """Write at least 200 files made from `film` [H, W], uint8, none of which may stop or stall a reader."""
    outside = folder.parent / "outside.png"
    Image.fromarray(film).save(outside)
    written = []
    for name, content in (*_damaged(film), *_named(film), *_bombs(film), *_no_films(film)):
        path = folder / name
        path.write_bytes(content)
        written.append(path)
    for name, target in (("link.png", outside), ("dangling.png", folder / "nowhere")):
        (folder / name).symlink_to(target)
        written.append(folder / name)
    return written


def films_of_every_format(film: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for name, format in (("png", "PNG"), ("jpg", "JPEG"), ("tiff", "TIFF"), ("bmp", "BMP")):
        yield name, _saved(film, format)
    yield "lzw.tiff", _saved(film, "TIFF", compression="tiff_lzw")
    yield "deep.png", _saved(film.astype(np.uint16) * 200, "PNG")
    for syntax in SYNTAXES:
        yield f"{syntax.rsplit('.', 2)[-1]}-{syntax.rsplit('.', 2)[-2]}.dcm", dicom_bytes(dicom(film, syntax))
    yield "signed.dcm", dicom_bytes(dicom(film.astype(np.int16) * 100 - 9000, JPEGLosslessSV1))


def _damaged(film: np.ndarray) -> Iterator[tuple[str, bytes]]:
    random = np.random.default_rng(0)
    for name, whole in films_of_every_format(film):
        for cut in CUTS:
            yield f"cut{cut}-{name}", whole[: int(cut * len(whole))]
        for place, reach in (("head", min(len(whole), 700)), ("body", len(whole))):
            for count in FLIPS:
                content = np.frombuffer(whole, np.uint8).copy()
                content[random.integers(0, reach, count)] ^= random.integers(1, 256, count, dtype=np.uint8)
                yield f"{place}{count}-{name}", content.tobytes()


def _named(film: np.ndarray) -> Iterator[tuple[str, bytes]]:
    png, syntax = _saved(film, "PNG"), dicom_bytes(dicom(film))
    for name in (
        "Knie links ü 膝.png",
        "a b  c.png",
        "=cmd().png",
        "new\nline.png",
        "n" * 196 + ".png",
        "-rf",
        "%s.png",
    ):
        yield name, png
    for name in ("film.dcm", "film.jpg", "film.txt", "film"):
        yield f"png-{name}", png
        yield f"dicom-{name}", syntax


def _bombs(film: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield "declares.png", _png(60_000, 60_000, b"\0" * 99)
    yield "compressible.png", _png(9_500, 9_500, bytes(9_501) * 9_500)
    tiff = _saved(film, "TIFF")
    yield "huge.tiff", _tiff(tiff, {256: 60_000, 257: 60_000})
    yield "wide.tiff", _tiff(tiff, {256: 2**31 - 1, 257: 1})
    yield "strips.tiff", _tiff(tiff, {278: 1})
    yield "offset.tiff", _tiff(tiff, {273: 2**32 - 2})
    yield "counts.tiff", _tiff(tiff, {279: 2**32 - 2})
    yield "samples.tiff", _tiff(tiff, {277: 65_535})
    yield "loop.tiff", _looped(tiff)
    yield "self.tiff", tiff[:4] + struct.pack("<I", 4) + tiff[8:]
    for name, elements in {
        "rows": {"Rows": 65_535, "Columns": 65_535},
        "frames": {"NumberOfFrames": "2000000000"},
        "negative-frames": {"NumberOfFrames": "-3"},
        "zero": {"Rows": 0},
        "bits": {"BitsAllocated": 64},
        "stored": {"BitsStored": 60_000},
        "samples": {"SamplesPerPixel": 60_000},
        "window": {"WindowCenter": "nan", "WindowWidth": "-5"},
        "slope": {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"},
        "palette": {"PhotometricInterpretation": "PALETTE COLOR"},
        "photometric": {"PhotometricInterpretation": "=cmd()"},
    }.items():
        yield f"{name}.dcm", dicom_bytes(dicom(film, **elements))
    j2k = dicom(film, JPEG2000Lossless)
    for name, size in (("siz", 60_000), ("siz-huge", 2**32 - 1)):
        frame = codestream(dicom(film), JPEG2000Lossless)
        j2k.PixelData = encapsulate([frame[:8] + struct.pack(">LL", size, size) + frame[16:]])
        yield f"{name}.dcm", dicom_bytes(j2k)
    bomb = dicom(film, RLELossless)
    bomb.PixelData = encapsulate([struct.pack("<16L", 1, 64, *[0] * 14) + b"\x81\0" * 200_000])
    yield "rle.dcm", dicom_bytes(bomb)
    bomb.PixelData = struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 200_000
    yield "fragments.dcm", dicom_bytes(bomb)
    whole = dicom_bytes(dicom(film))
    pixels = whole.index(b"\xe0\x7f\x10\0OW")
    yield "length.dcm", whole[: pixels + 8] + struct.pack("<L", 2**32 - 16) + whole[pixels + 12 :]
    yield "undefined.dcm", whole[: pixels + 8] + struct.pack("<L", 2**32 - 1) + whole[pixels + 12 :]
    yield "long-element.dcm", whole[:pixels] + b"\x50\x00\x10\x00UT\0\0" + struct.pack("<L", 2**32 - 16) + b"x"
    yield "no-pixels.dcm", whole[:pixels]
    yield "no-preamble.dcm", whole[132 + 12 + struct.unpack_from("<L", whole, 140)[0] :]
    meta = dicom_bytes(dicom(film, DeflatedExplicitVRLittleEndian))
    meta = meta[: 144 + struct.unpack_from("<L", meta, 140)[0]]
    deflate = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    yield "deflated.dcm", meta + b"".join(deflate.compress(bytes(2**20)) for _ in range(400)) + deflate.flush()
    yield (
        "nested.dcm",
        whole[:pixels] + (b"\x28\0\x00\x30SQ\0\0\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 50_000),
    )
    inner = Dataset()
    for _ in range(60):
        outer = Dataset()
        outer.ModalityLUTSequence = Sequence([inner])
        inner = outer
    yield "nested-sixty.dcm", dicom_bytes(dicom(film, ModalityLUTSequence=Sequence([inner])))


def _no_films(film: np.ndarray) -> Iterator[tuple[str, bytes]]:
    yield "empty.png", b""
    yield "empty.dcm", b""
    yield "one.png", b"\x89"
    yield "text.png", b"not a picture\n" * 50
    yield "notes.txt", b"patient,grade\n"
    yield "pdf.png", b"%PDF-1.7\n" + bytes(200)
    yield "zip.png", b"PK\x03\x04" + bytes(200)
    yield "gif.png", _saved(film, "GIF")
    yield "dicm.dcm", bytes(128) + b"DICM"
    yield "zeros.dcm", bytes(128) + b"DICM" + bytes(5000)
    yield "group8.dcm", b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(300)
    yield "noise.dcm", bytes(128) + b"DICM" + np.random.default_rng(1).bytes(5000)
    yield "jpeg-magic.jpg", b"\xff\xd8\xff" + bytes(5000)


def _saved(film: np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(film).save(file, format, **options)
    return file.getvalue()


def _png(width: int, height: int, rows: bytes) -> bytes:
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (*chunks, (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + body


def _entries(tiff: bytes) -> tuple[int, int]:
    """Where the first directory of a little-endian TIFF has its entries, and how many."""
    start = struct.unpack_from("<I", tiff, 4)[0]
    return start + 2, struct.unpack_from("<H", tiff, start)[0]


def _tiff(tiff: bytes, values: dict[int, int]) -> bytes:
    content = bytearray(tiff)
    start, count = _entries(tiff)
    for at in range(start, start + 12 * count, 12):
        tag = struct.unpack_from("<H", tiff, at)[0]
        if tag in values:
            struct.pack_into("<HHII", content, at, tag, 4, 1, values[tag])
    return bytes(content)


def _looped(tiff: bytes) -> bytes:
    content = bytearray(tiff)
    start, count = _entries(tiff)
    struct.pack_into("<I", content, start + 12 * count, start - 2)
    return bytes(content)
