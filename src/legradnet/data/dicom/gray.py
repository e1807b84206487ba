"""Stored DICOM values to gray as they are meant to be seen (PS3.4 N.2): modality, values of interest, inversion.

Ours and not pydicom's `apply_modality_lut` and `apply_voi_lut`, with which it agrees (tests): those fail on tables of
12 bits, wrap around in long or signed ones, turn the window where a slope is negative, and refuse a wrong window.

What a header says is tried in turn, each VOI LUT before each window as PS3.3 C.11.2.1.1 has it, until the picture shows
something: a window beside the values, or far wider, gives a black or white film, which nobody meant. So does a table
that leaves out much of the film.

All of that asks only what a pixel's value is, so it is done with each value that there is, once, and how often it is
there (`Levels`): a film has some thousands, and floats for each of its pixels would be gigabytes.
"""

from collections.abc import Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.data.dicom import remarks as said
from legradnet.data.dicom.elements import items, numbers, real
from legradnet.data.dicom.levels import Counts, Levels, levels_of
from legradnet.data.dicom.remarks import Remark
from legradnet.data.dicom.tables import table_of
from legradnet.data.film import DEEP_PERCENTILES, Gray, by_rows, deep_percentiles, stretch_range

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_LEAST_SPAN = 16  # of 256 grays, that a picture has between its darkest and brightest `DEEP_PERCENTILES`
_LEAST_BETWEEN = 0.02  # share of its pixels that are neither black nor white
_LEAST_VALUES = 1 / 64  # of the range of its bits, that a picture's values have
_LEAST_LEFT = 0.05  # share of its pixels that are no padding

Values = npt.NDArray[Any]
Seen = npt.NDArray[np.float64]


def meant_gray(values: Values, header: "Dataset", remarks: list[Remark]) -> Gray:
    """Turn stored values [H, W], whole numbers, into gray as they are meant to be seen, bone bright."""
    levels = levels_of(values)
    return levels.picture(_gray_of_levels(levels, header, remarks))


def _gray_of_levels(levels: Levels, header: "Dataset", remarks: list[Remark]) -> Gray:
    padding = _padding(levels, header, remarks)
    physical = _modality(levels, header, padding, remarks)
    gray = _gray_of_interest(physical, levels, header, padding, remarks)
    # PS3.3 C.7.6.3.1.2: the lowest value of MONOCHROME1 is shown white. PS3.3 C.8.11.3 states the same turn a second
    # time, as PresentationLUTShape INVERSE. It is one turn; and IDENTITY says that the values are turned already.
    first_is_white = header.PhotometricInterpretation == "MONOCHROME1"
    shape = header.get("PresentationLUTShape")
    inverted = shape == "INVERSE" if shape in ("IDENTITY", "INVERSE") else first_is_white
    if inverted != first_is_white:
        remarks.append(said.POLARITY)
    if inverted:
        gray = 255 - gray
    if not padding.all():
        gray[padding] = 0
    return gray


def _padding(levels: Levels, header: "Dataset", remarks: list[Remark]) -> npt.NDArray[np.bool_]:
    """Which levels are no picture (PS3.3 C.7.5.1.1.2)."""
    values, counts = levels.values, levels.counts
    nowhere = np.zeros(values.shape, np.bool_)
    value = real(header, "PixelPaddingValue")
    if not numbers(header, "PixelPaddingValue"):
        return nowhere
    limit = real(header, "PixelPaddingRangeLimit", value)
    padding = (values >= min(value, limit)) & (values <= max(value, limit))
    left = values[~padding]
    if np.isfinite([value, limit]).all() and (
        not padding.any() or (counts[~padding].sum() >= _LEAST_LEFT * counts.sum() and left.min() < left.max())
    ):
        return padding
    if values.min() < values.max():
        remarks.append(said.PADDING)
    return nowhere


def _modality(levels: Levels, header: "Dataset", padding: npt.NDArray[np.bool_], remarks: list[Remark]) -> Values:
    """Give the values in the units that windows are in (PS3.3 C.11.1)."""
    values = levels.values
    is_flat = values.min() == values.max()
    for item in items(header, "ModalityLUTSequence"):
        if table := table_of(item, header):
            table = table.matched(values)
            looked_up = table.look_up(values)
            is_missed = table.misses(values[~padding], levels.counts[~padding], header.BitsStored)
            if is_flat or (looked_up.min() < looked_up.max() and not is_missed):
                return looked_up
        remarks.append(said.MODALITY_TABLE)
    slope, intercept = real(header, "RescaleSlope", 1.0), real(header, "RescaleIntercept", 0.0)
    if (slope, intercept) == (1, 0):
        return values
    with np.errstate(all="ignore"):
        physical = values * slope + intercept
    if np.isfinite(physical).all() and (is_flat or physical.min() < physical.max()):
        return physical
    remarks.append(said.RESCALE)
    return values


def _gray_of_interest(
    physical: Values, levels: Levels, header: "Dataset", padding: npt.NDArray[np.bool_], remarks: list[Remark]
) -> Gray:
    """The first choice of the header that shows something, else all values that there are."""
    values, counts = levels.values, levels.counts
    is_flat = physical.min() == physical.max()
    first: tuple[Gray, list[Remark]] | None = None
    tried: list[Remark] = []
    for remark, seen, about in _choices(physical, counts, header, padding):
        if seen is not None and (is_flat or seen.min() < seen.max()):
            gray = scaled(seen, 1)
            first = first or (gray, [*tried, *about])
            if is_flat or _shows_something(gray, counts, padding):
                remarks += [*tried, *about]
                return gray
        tried.append(remark)
    if physical is values and values.min() >= 0 and header.get("BitsStored") == 8:
        gray = values.astype(np.uint8)
    else:
        gray = stretch_range(physical, padding, counts)
    if first and not _shows_something(gray, counts, padding):
        gray, tried = first
    elif first and _share_of_range(levels, header, padding) < _LEAST_VALUES:
        tried.append(said.LITTLE_CONTRAST)
    remarks += tried
    return gray


def _choices(
    values: Values, counts: Counts, header: "Dataset", padding: npt.NDArray[np.bool_]
) -> Iterator[tuple[Remark, Seen | None, list[Remark]]]:
    """What the header chooses to be seen (PS3.3 C.11.2), as 0-1; how it is said that it can't; what is to be said."""
    for item in items(header, "VOILUTSequence"):
        table = table_of(item, header)
        if table is None or table.entries.min() == table.entries.max():
            yield said.VOI_TABLE, None, []
            continue
        table = table.matched(values)
        if values.min() < values.max() and table.misses(values[~padding], counts[~padding], header.BitsStored):
            yield said.VOI_TABLE, None, []
            continue
        low, high = table.range
        about = [] if (low, high) == (0, 2**table.bits - 1) else [said.TABLE_RANGE]
        yield said.VOI_TABLE, (table.look_up(values) - low) / (high - low), about
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    windows = zip_longest(numbers(header, "WindowCenter"), numbers(header, "WindowWidth"), fillvalue=np.nan)
    for centre, width in windows:
        usable = np.isfinite([centre, width]).all() and (width >= 1 if function == "LINEAR" else width > 0)
        usable = usable and function in _FUNCTIONS
        yield said.WINDOW, windowed(values, centre, width, function) if usable else None, []


def _shows_something(gray: Gray, counts: Counts, padding: npt.NDArray[np.bool_]) -> bool:
    """Whether there are grays in a picture; a film is not only black and white, nor only one gray."""
    of_grays = np.bincount(gray[~padding], counts[~padding], 256)
    total = of_grays.sum()
    low, high = np.searchsorted(of_grays.cumsum(), np.array(DEEP_PERCENTILES) / 100 * total)
    return bool(high - low >= _LEAST_SPAN and of_grays[1:255].sum() >= _LEAST_BETWEEN * total)


def _share_of_range(levels: Levels, header: "Dataset", padding: npt.NDArray[np.bool_]) -> float:
    low, high = deep_percentiles(levels.values[~padding], levels.counts[~padding])
    return float(high - low) / 2**header.BitsStored


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


def scaled(values: npt.NDArray[Any], top: float) -> Gray:
    """Map `values` from 0 to `top` linearly to 0-255."""
    gray = np.empty(values.shape, np.uint8)
    for place, rows in by_rows(values):
        gray[place] = np.clip(rows, 0, 255) if top == 255 else np.rint(np.clip(rows / top, 0, 1) * 255)
    return gray
