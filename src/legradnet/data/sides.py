"""Which knee a film shows."""

import re

from legradnet.data.film import Film

_SIDE_IN_NAME = re.compile(r"(?<![A-Za-z])(left|right|[LR])(?![A-Za-z0-9])", re.IGNORECASE)


def find_side(given: str, film: Film, name: str) -> tuple[str, list[str]]:
    """The side of a film (L, R, or "") from what was given, its DICOM tag, or its file name; and what to remark."""
    if given and film.side and given != film.side:
        return given, [f"taken as {given}, though its DICOM tag says {film.side}"]
    return given or film.side or side_from_name(name), []


def side_from_name(name: str) -> str:
    """L or R if exactly one stands in a file name on its own (`9001695L.png`, `knee_left.dcm`), else ""."""
    found = {match[1][0].upper() for match in _SIDE_IN_NAME.finditer(name)}
    return found.pop() if len(found) == 1 else ""
