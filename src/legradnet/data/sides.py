"""Which knee a film shows."""

import re
from typing import Literal

Side = Literal["L", "R", ""]  # "" where nobody knows
SIDES: tuple[Side, Side] = ("L", "R")
SIDE_WORDS: dict[str, Side] = {"": "", "l": "L", "left": "L", "r": "R", "right": "R"}  # in a table, in small letters

_SIDE_IN_NAME = re.compile(r"(?<![A-Za-z])(left|right|[LR])(?![A-Za-z0-9])", re.IGNORECASE)


def find_side(given: Side, dicom_tag: Side, name: str) -> tuple[Side, list[str]]:
    """The side of a film from what was given, its DICOM tag, or its file name; and what to remark."""
    if given and dicom_tag and given != dicom_tag:
        return given, [f"taken as {given}, though its DICOM tag says {dicom_tag}"]
    named = side_from_name(name)
    if not given and dicom_tag and named and named != dicom_tag:
        return dicom_tag, [f"taken as {dicom_tag} by its DICOM tag, though its name says {named}"]
    return given or dicom_tag or named, []


def side_from_name(name: str) -> Side:
    """L or R if exactly one stands in a file name on its own (`9001695L.png`, `knee_left.dcm`), else ""."""
    sides = {SIDE_WORDS[match[1].lower()] for match in _SIDE_IN_NAME.finditer(name)}
    return sides.pop() if len(sides) == 1 else ""
