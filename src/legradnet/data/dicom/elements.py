"""Numbers out of the elements of a DICOM header, as programs in the field write them."""

import math
import re
from collections.abc import MutableSequence
from typing import TYPE_CHECKING, Any

from legradnet.data.film import ImageError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:E[+-]?\d+)?")


def numbers(header: "Dataset", name: str) -> list[float]:
    """All values of an element; NaN for one that is no number, [] for an element that is missing or empty.

    Texts are read as PS3.5 6.2 has them (DS, IS), and also with the decimal comma that it forbids.
    """
    try:
        value = header.get(name)
    except (TypeError, ValueError, OverflowError):
        return [math.nan]
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str):
        value = value.split("\\") if value.strip(" \0") else []
    elif value is None:
        return []
    values = value if isinstance(value, (list, tuple)) or hasattr(value, "__iter__") else [value]
    return [_number(one) for one in values]


def items(header: "Dataset", name: str) -> "list[Dataset]":
    """The items of a sequence; [] where it is missing, empty or no sequence."""
    value = header.get(name)
    return [item for item in value if hasattr(item, "items")] if isinstance(value, MutableSequence) else []


def whole(header: "Dataset", name: str, default: int | None = None) -> int:
    """An element that is one whole number; `default`, if there is one, where it is missing.

    Raises:
        ImageError: It is missing or no whole number.
    """
    values = numbers(header, name)
    if not values and default is not None:
        return default
    if len(values) != 1 or not math.isfinite(values[0]) or values[0] != int(values[0]):
        raise ImageError(f"its {name} is {'not a whole number' if values else 'missing'}")
    return int(values[0])


def real(header: "Dataset", name: str, default: float = math.nan) -> float:
    """The first value of an element; `default` where it is missing, NaN for what is no number."""
    return next(iter(numbers(header, name)), default)


def _number(value: Any) -> float:
    if isinstance(value, (str, bytes)):
        text = (value if isinstance(value, str) else value.decode("latin-1")).strip(" \0").upper()
        if "," in text:  # the last of two kinds of marks is the decimal one
            group, mark = (",", ".") if text.rfind(".") > text.rfind(",") else (".", ",")
            text = text.replace(group, "").replace(mark, ".")
        return float(text) if _NUMBER.fullmatch(text) else math.nan
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
