"""Which bits of a cell are the pixel's, and whether they have a sign: by the header, where the data bear it out.

PS3.5 8.1.1: of `BitsAllocated` bits `BitsStored` are the pixel's, from `HighBit` down; the others hold nothing, or, in
old files, an overlay, and are left out. PS3.3 C.7.6.3.1 wants HighBit to be BitsStored - 1; some files mean what they
say with another one, and some don't.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.data.dicom import remarks as said
from legradnet.data.dicom.elements import real
from legradnet.data.dicom.remarks import Remark

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Cells = npt.NDArray[Any]

_LOOKED_AT = 300_000  # pixels: enough to tell by
_FEW = 16  # pairs of neighbours that tell nothing
_PART, _BESIDE = 0.25, 0.01  # shares of pairs: 0.4 to 1 where all bits are a film's, below 0.001 with an overlay


def stored_values(cells: Cells, header: "Dataset", remarks: list[Remark]) -> Cells:
    """Give the pixels in `cells`, integers [H, W] or [H, W, 3] as decoded; writes into `header` how they are stored.

    After it `header` has BitsStored, HighBit and PixelRepresentation as the pixels have them.
    """
    allocated, stored = 8 * cells.itemsize, header.BitsStored
    if header.BitsAllocated == 1:
        return cells
    cells = cells.astype(cells.dtype.newbyteorder("="), copy=False)
    raw = cells.view(f"u{cells.itemsize}")
    values, stored = _cut(raw, allocated, stored, header, remarks)
    is_signed = _is_signed(values, stored, header.PixelRepresentation == 1, remarks)
    header.BitsStored, header.HighBit, header.PixelRepresentation = stored, stored - 1, int(is_signed)
    if values is raw and stored == allocated:
        return cells.view(f"{'i' if is_signed else 'u'}{cells.itemsize}")
    if not is_signed:
        return values
    spare = allocated - stored
    return np.left_shift(values, spare).view(f"i{cells.itemsize}") >> spare


def _cut(raw: Cells, allocated: int, stored: int, header: "Dataset", remarks: list[Remark]) -> tuple[Cells, int]:
    """The pixels' bits of `raw` cells, moved down to the lowest, and how many they are."""
    high = real(header, "HighBit", stored - 1)
    shift = int(high) + 1 - stored if 0 <= high < allocated else -1
    if shift == 0 and (stored == allocated or int(raw.max()) >> stored == 0):
        return raw, stored
    used, mask = int(np.bitwise_or.reduce(raw, axis=None)), 2**stored - 1
    lower = used & (2 ** max(shift, 0) - 1)
    is_lower = used > 0 and not used >> stored and (shift > 1 or used & -used != 2 ** max(shift, 0))
    if not 0 <= shift <= allocated - stored or is_lower:  # they are at the lower end
        remarks.append(said.HIGH_BIT)
        shift = lower = 0
    values = raw >> shift if shift else raw
    if stored == allocated:
        return values, stored
    has_more = bool((values >> stored).any())
    if has_more and _extends_sign(values, allocated - shift, stored):
        has_more = False
        if header.PixelRepresentation != 1:
            remarks.append(said.SIGN)
            header.PixelRepresentation = 1
    if not has_more:
        if lower:
            remarks.append(said.MASKED)
        return values & mask, stored
    share = _share_of_higher_bits(values, stored)
    if share >= _PART and not shift and not used & (2 ** (allocated - stored) - 1):
        remarks.append(said.HIGH_BIT)
        return raw >> (allocated - stored), stored
    if share >= _PART:
        remarks.append(said.BITS_STORED)
        return values, allocated - shift if header.PixelRepresentation == 1 else (used >> shift).bit_length()
    remarks.append(said.ANY_BITS if share > _BESIDE else said.MASKED)
    return values & mask, stored


def _extends_sign(values: Cells, bits: int, stored: int) -> bool:
    """Whether the bits above the pixels' are all as the highest of these, as those of a signed number are."""
    top = values >> (stored - 1)
    return bool(((top == 0) | (top == 2 ** (bits - stored + 1) - 1)).all())


def _share_of_higher_bits(values: Cells, stored: int) -> float:
    """Of neighbours that differ above the `stored` bits, the share that these bits bring nearer to each other.

    Where they are a part of the pixels, values that step over a power of 2 lie far apart without them. An overlay's
    bits lie beside a picture that does not know of them.
    """
    pixels = _looked_at(values)
    differ = np.diff(pixels >> stored, axis=1) != 0
    whole_steps = np.abs(np.diff(pixels, axis=1))[differ]
    lower_steps = np.abs(np.diff(pixels & (2**stored - 1), axis=1))[differ]
    return float((whole_steps < lower_steps).mean()) if len(whole_steps) else 0.0


def _is_signed(values: Cells, stored: int, stated: bool, remarks: list[Remark]) -> bool:
    """Whether values of `stored` bits, given without a sign, have one."""
    half, quarter = 2 ** (stored - 1), 2 ** (stored - 2) if stored > 1 else 0
    if stored < 4 or values.max() < half:
        return stated
    pixels = _looked_at(values)
    steps = np.abs(np.diff(pixels, axis=1))[np.diff(pixels >= half, axis=1)]
    as_unsigned, as_signed = int((steps <= half / 4).sum()), int((steps >= 2 * half - half / 4).sum())
    if stated:
        is_wrong = as_unsigned > _FEW and as_unsigned > 10 * as_signed
    else:  # a film of both ends only: not its white letters, but values that go on below zero
        ends = np.unique(pixels[pixels >= half])
        middle = (pixels >= quarter) & (pixels < 3 * quarter)
        is_wrong = as_signed > _FEW and len(ends) >= 64 and not middle.any()
    if is_wrong:
        remarks.append(said.SIGN)
    return stated != is_wrong


def _looked_at(values: Cells) -> npt.NDArray[np.int64]:
    """Some whole rows of `values`, as [rows, columns]."""
    rows = values.reshape(len(values), -1) if values.ndim == 2 else values[..., 0]
    return rows[:: max(1, values.size // _LOOKED_AT)].astype(np.int64)
