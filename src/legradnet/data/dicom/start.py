"""Where the data of a DICOM file begin: PS3.10 7.1 wants 128 bytes and "DICM" before them, which some programs omit."""

from typing import Literal

_PREAMBLE, _PREFIX = 128, b"DICM"
_VRS = {b"AE", b"CS", b"DA", b"DT", b"IS", b"LO", b"LT", b"OB", b"PN", b"SH", b"SQ", b"ST", b"TM", b"UI", b"UL", b"UN"}
_VRS |= {b"US"}


def is_dicom(head: bytes) -> bool:
    """Whether the first 132 bytes of a file are DICOM's, with its preamble or without."""
    return start_of(head) is not None


def start_of(head: bytes) -> int | None:
    """Where the first element stands in a file of which `head` are the first 132 bytes; None for what is not DICOM."""
    if head[_PREAMBLE : _PREAMBLE + 4] == _PREFIX:
        return _PREAMBLE + 4
    if head[:4] == _PREFIX and _is_element(head[4:]):
        return 4
    if not any(head[:_PREAMBLE]) and _tag(head[_PREAMBLE:]):
        return _PREAMBLE
    return 0 if _is_element(head) else None


def _tag(head: bytes) -> tuple[int, int] | None:
    """Group and element of a tag that can be a file's first, of the group 0002 or 0008."""
    order: Literal["little", "big"] = "big" if head[:2] == b"\0\x08" else "little"
    if len(head) < 4:
        return None
    group, element = int.from_bytes(head[:2], order), int.from_bytes(head[2:4], order)
    return (group, element) if (group == 2 and element <= 0x102) or (group == 8 and element <= 0x3000) else None


def _is_element(head: bytes) -> bool:
    """Whether `head` begins with such a tag, and then a VR, or, in little endian, a length."""
    if _tag(head) is None:
        return False
    is_little = head[0] != 0
    return head[4:6] in _VRS or (is_little and len(head) > 8 and int.from_bytes(head[4:8], "little") < 256)
