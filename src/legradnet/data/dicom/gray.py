"""Stored DICOM values to gray as they are meant to be seen (PS3.4 N.2): modality, values of interest, inversion.

Ours and not pydicom's `apply_modality_lut` and `apply_voi_lut`, with which it agrees (tests): those fail on tables of
12 bits, wrap around in long or signed ones, turn the window where a slope is negative, and refuse a wrong window.
"""

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Gray, ImageError, stretch_range

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def meant_gray(values: npt.NDArray[Any], header: "Dataset", remarks: list[str]) -> Gray:
    """Turn stored values [H, W] into gray as they are meant to be seen, bone bright."""
    padding = _padding(values, header)
    physical = _modality(values, header, remarks)
    seen = _voi(physical, header, remarks)
    if seen is not None:
        gray = scaled(seen, 1)
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
    value = whole(header, "PixelPaddingValue")
    limit = whole(header, "PixelPaddingRangeLimit", value)
    return (values >= min(value, limit)) & (values <= max(value, limit))


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
        entries, depth = _looked_up(values, header.VOILUTSequence[0], header)
        return entries / (2**depth - 1)
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


def scaled(values: npt.NDArray[Any], top: float) -> Gray:
    """Map `values` from 0 to `top` linearly to 0-255."""
    if top == 255:
        return np.clip(values, 0, 255).astype(np.uint8)
    return np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8)


def whole(header: "Dataset", name: str, default: int | None = None) -> int:
    """An element that is a whole number; `default`, if there is one, where it is missing."""
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
