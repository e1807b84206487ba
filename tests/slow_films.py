"""Files made to be slow to read, or to take much memory, each in its own way; small, or of many parts."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

SIDE = 8900  # 79 million pixels
_SMALL = zlib.compress(bytes(65 * 64))


def chunk(kind, data=b""):
    """A part of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*extra, size=(64, 64), rows=_SMALL, after=(), depth=8, colour=0):
    """A PNG file with `extra` parts before its picture and others `after` it."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *extra, chunk(b"IDAT", rows), *after, chunk(b"IEND")])


def jpeg(size=(64, 64), **options):
    """A JPEG file of gray."""
    file = io.BytesIO()
    Image.new("L", size, 128).save(file, "JPEG", **options)
    return file.getvalue()


def many_scans(count, size=(4000, 4000)):
    """A progressive JPEG whose last scan is there `count` times more."""
    whole = jpeg(size, progressive=True, quality=10)
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * count + whole[-2:]


def rle_bmp(data, size=(SIDE, SIDE)):
    """A BMP of 8 bits, run-length encoded."""
    palette = b"".join(bytes((i, i, i, 0)) for i in range(256))
    start = 54 + len(palette)
    file = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    file += struct.pack("<IiiHHIIiiII", 40, *size, 1, 8, 1, len(data), 0, 0, 256, 0)
    return file + palette + data


def float_tiff(side=SIDE, rows=100):
    """A TIFF of floats, nearly all zero, of a few hundred kB; each strip of as many rows is the same."""
    pixels = np.zeros((rows, side), np.float32)
    pixels[:, : side // 20] = 1
    strip, count = zlib.compress(pixels.tobytes(), 9), side // rows
    lists = 8 + len(strip)
    tags = {256: (4, 1, side), 257: (4, 1, count * rows), 258: (3, 1, 32), 259: (3, 1, 8), 262: (3, 1, 1)}
    tags |= {273: (4, count, lists), 277: (3, 1, 1), 278: (4, 1, rows), 279: (4, count, lists + 4 * count)}
    tags |= {339: (3, 1, 3)}
    content = b"II*\0" + struct.pack("<I", lists + 8 * count) + strip
    content += struct.pack(f"<{2 * count}I", *[8] * count, *[len(strip)] * count)
    entries = b"".join(struct.pack("<HHII", tag, *value) for tag, value in sorted(tags.items()))
    return content + struct.pack("<H", len(tags)) + entries + bytes(4)
