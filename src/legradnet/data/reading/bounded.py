"""Which files can only be quick and small to read, whatever is in them, by a look at their parts.

A healthy PNG or JPEG of usual size is, and is decoded where it is asked for. The work is bounded by pixels, bytes and
parts; whatever else a decoder may do (inflate texts, follow tags, go over the film a thousand times) is not allowed.
What is not bounded may be healthy all the same: it is read in a process of its own (`legradnet.data.reading.pool`).
"""

import math
from typing import BinaryIO

AT_HAND = 64 * 1024**2  # bytes of memory that a film may take without asking
_MORE = 64 * 1024  # compressed bytes that a film may have beyond twice its pixels: these of a small one can be larger
_METADATA = 16 * 1024  # bytes of all that is not the picture
_PARTS = 64  # of them
_IDATS = 10_000  # some programs write 8 kB in each
_PNG_METADATA = frozenset(b"PLTE tRNS gAMA cHRM sRGB sBIT bKGD hIST pHYs tIME iCCP tEXt eXIf IEND".split())
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_GRAY, _DEEP, _COLOUR = 4, 12, 16  # see below


def bytes_to_hold(pixels: int, mode: str) -> int:
    """Memory that Pillow and we take at most, in reading a film of `mode`, Pillow's word for what a pixel is."""
    if mode in ("1", "L"):
        return pixels * _GRAY
    return pixels * (_DEEP if mode.startswith("I;16") else _COLOUR)


def is_bounded_png(file: BinaryIO) -> bool:
    """Whether the open PNG file has plain parts, few and small beside its picture (ISO 15948, 5.3)."""
    file.seek(8)
    start = file.read(25)
    if len(start) < 25 or start[:8] != b"\0\0\0\rIHDR":
        return False
    width, height = int.from_bytes(start[8:12], "big"), int.from_bytes(start[12:16], "big")
    depth, channels = start[16], _PNG_CHANNELS.get(start[17], 0)
    mode = "RGB" if channels > 1 or start[17] == 3 else "I;16" if depth > 8 else "L"
    if bytes_to_hold(width * height, mode) > AT_HAND:
        return False
    picture = metadata = idats = parts = 0
    while len(head := file.read(8)) == 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind == b"IDAT":
            picture += length
            idats += 1
        elif kind in _PNG_METADATA:
            metadata += length
            parts += 1
        else:
            return False
        if idats > _IDATS or parts > _PARTS or metadata > _METADATA:
            return False
        file.seek(length + 4, 1)
    return picture <= 2 * height * (1 + math.ceil(width * depth * channels / 8)) + _MORE


def is_bounded_jpeg(file: BinaryIO) -> bool:
    """Whether the open JPEG file is of one scan with all components, behind few and small parts (ISO 10918-1, B.1)."""
    size = file.seek(0, 2)
    file.seek(2)
    pixels = components = parts = 0
    while len(head := file.read(4)) == 4:
        marker, length = head[1], int.from_bytes(head[2:], "big")
        parts += 1
        if head[0] != 0xFF or length < 2 or parts > _PARTS or file.tell() > _METADATA:
            return False
        if marker in (0xC0, 0xC1):  # baseline or extended, both sequential and of Huffman codes
            height, width, components = (int.from_bytes(part, "big") for part in _split(file.read(6)))
            pixels = width * height
            file.seek(length - 8, 1)
        elif marker == 0xDA:
            is_only = components > 0 and file.read(1) == bytes([components])
            mode = "L" if components == 1 else "RGB"
            return is_only and bytes_to_hold(pixels, mode) <= AT_HAND and size <= 2 * pixels * components + _MORE
        elif marker in _JPEG_TABLES or 0xE0 <= marker <= 0xEF or marker == 0xFE:
            file.seek(length - 2, 1)
        else:  # of another process, or not expected here
            return False
    return False


_JPEG_TABLES = frozenset((0xC4, 0xDB, 0xDD))  # Huffman codes, quantisation, restart interval


def _split(frame: bytes) -> tuple[bytes, bytes, bytes]:
    """Height, width and number of components, behind the precision."""
    return frame[1:3], frame[3:5], frame[5:6]
