"""What is bounded to be quick and small is read at once, in the process that asks; nothing else is."""

import io
import zlib

import numpy as np
import pytest
from pictures import RAMP, saved
from PIL import Image

from legradnet.data.images import read_film
from legradnet.data.reading.bounded import is_bounded_jpeg, is_bounded_png
from slow_films import SIDE, chunk, jpeg, many_scans, png


def bounded(content):
    return is_bounded_png(io.BytesIO(content)) if content[:1] == b"\x89" else is_bounded_jpeg(io.BytesIO(content))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_healthy_png_is_read_at_once(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("legradnet.data.images.read_apart", lambda *_: pytest.fail("read apart"))
    picture = Image.fromarray(RAMP.astype(np.uint16)) if mode == "I;16" else Image.fromarray(RAMP).convert(mode)
    read_film(saved(tmp_path / "a.png", picture))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_healthy_jpeg_is_read_at_once(tmp_path, mode, monkeypatch):
    monkeypatch.setattr("legradnet.data.images.read_apart", lambda *_: pytest.fail("read apart"))
    read_film(saved(tmp_path / "a.jpg", Image.fromarray(RAMP).convert(mode)))


BOMB = zlib.compress(bytes(1_000_000))


@pytest.mark.parametrize(
    "content",
    [
        png(chunk(b"teSt")),
        png(chunk(b"tEXt", b"a\0b") * 65),
        png(chunk(b"IDAT") * 10_001),
        png(chunk(b"zTXt", b"a\0\0" + BOMB)),
        png(chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB)),
        png(chunk(b"eXIf", bytes(20_000))),
        png(chunk(b"fcTL", bytes(26))),
        png(size=(SIDE, SIDE)),
        png(size=(4000, 4000), colour=2),
        png(rows=bytes(100_000)),
        png()[:20],
        jpeg(progressive=True),
        many_scans(1, (64, 64)),
        jpeg((6000, 6000)),
        jpeg()[:2] + b"\xff\xfe\0\2" * 100 + jpeg()[2:],
        jpeg()[:2] + b"\xff\xe1\xff\xff" + bytes(65533) + jpeg()[2:],
        jpeg()[:-2] + bytes(200_000) + jpeg()[-2:],
        jpeg().replace(b"\xff\xc0", b"\xff\xc9"),
        jpeg()[:100],
    ],
)
def test_whatever_may_be_slow_or_large_is_not(content):
    assert not bounded(content)
    assert bounded(png())
    assert bounded(jpeg())
