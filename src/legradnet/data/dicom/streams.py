"""A data set in a file, where it is deflated or begins elsewhere, as a stream that holds no more than is asked for."""

import io
import zlib
from typing import TYPE_CHECKING, BinaryIO

from legradnet.data.film import MAX_PIXELS, ImageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MOST = 2 * MAX_PIXELS + 1_000_000  # bytes
_AT_ONCE = 2**16


class Inflated(io.RawIOBase):
    """The bare data set behind the meta information of a deflated file (PS3.5 A.5): pydicom would inflate all of it.

    Args:
        file: Stands where the deflated bytes begin.

    Raises:
        ImageError: It inflates to more than `MOST` bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.name = ""  # pydicom looks at it
        self._file, self._start = file, file.tell()
        self._length: int | None = None
        self._place = 0  # where the next byte is asked for
        self._begin()
        self.seek(0, io.SEEK_END)
        self.seek(0)

    def _begin(self) -> None:
        self._file.seek(self._start)
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is; to read from further back is to begin again."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Inflate the next bytes into `buffer`; gives how many, 0 at the end."""
        if self._place < self._at:
            self._begin()
        while self._at < self._place and self._next(min(_AT_ONCE, self._place - self._at)):
            pass
        room = memoryview(buffer).cast("B")
        inflated = self._next(len(room))
        room[: len(inflated)] = inflated
        self._place = self._at
        return len(inflated)

    def _next(self, most: int) -> bytes:
        while not self._inflate.eof:
            deflated = self._inflate.unconsumed_tail or self._file.read(_AT_ONCE)
            inflated = self._inflate.decompress(deflated, most)
            self._at += len(inflated)
            if self._at > MOST:
                raise ImageError(f"inflates to more than {MOST:,} bytes")
            if inflated or not deflated:
                return inflated
        return b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place as `io.IOBase.seek` does."""
        if whence == io.SEEK_END and self._length is None:
            while self._next(_AT_ONCE):
                pass
            self._length = self._at
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._length or 0}[whence]
        return self._place

    def tell(self) -> int:
        """Bytes from the beginning of what is inflated."""
        return self._place


class Behind(io.RawIOBase):
    """An open file as if it began at `start`."""

    def __init__(self, file: BinaryIO, start: int) -> None:
        self.name = ""
        self._file, self._start = file, start
        self.seek(0)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        """Read the next bytes into `buffer`; gives how many, 0 at the end."""
        return self._file.readinto(buffer)  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place as `io.IOBase.seek` does."""
        return self._file.seek(offset + (self._start if whence == io.SEEK_SET else 0), whence) - self._start
