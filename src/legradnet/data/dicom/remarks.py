"""All that the reader of DICOM may have to say of a film, and which of it refers the film.

The one rule: what a film looks like is decided by what its data have. Where a header contradicts them, the next
statement of the header is tried, and last the values alone; and that is said. A film is referred (`doubts`) where
nothing in the file settles which picture was meant; where something does, the film is as right as any other and the
remark is only told (`remarks`).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from legradnet.data.film import Film
from legradnet.data.sides import Side


class Remark(NamedTuple):
    """What is said of a film, and whether it refers the film."""

    text: str
    refers: bool = False


# How many pixels there are.
EXCESS = Remark("its pixel data are far longer than its rows and columns say", refers=True)


def first_of(frames: int) -> Remark:
    """Of several frames the first is a picture as it should be; which of them to grade is the reader's to say."""
    return Remark(f"the first of {frames} frames")


SIDES_DIFFER = Remark("its elements of laterality contradict each other, and that of the image was believed")

# Which bits of a cell are the pixel's (PS3.5 8.1.1), and their sign.
HIGH_BIT = Remark("its HighBit contradicts its pixels and was ignored")
BITS_STORED = Remark("its pixels have more bits than its BitsStored says")
MASKED = Remark("bits outside of its BitsStored, perhaps an overlay, were left out")
ANY_BITS = Remark("its pixels have bits outside of its BitsStored that may be an overlay or part of them", refers=True)
SIGN = Remark("its PixelRepresentation contradicts its pixels and was ignored")

# From values to gray (PS3.4 N.2).
PADDING = Remark("its padding value can't be used and was ignored")
MODALITY_TABLE = Remark("its modality LUT can't be used and was ignored")
RESCALE = Remark("its rescale slope and intercept can't be used and were ignored")
VOI_TABLE = Remark("its VOI LUT can't be used and was ignored")
TABLE_RANGE = Remark("its VOI LUT holds other values than it says and was scaled by those that it holds")
WINDOW = Remark("its window can't be used and was ignored")
PALETTE = Remark("its palette holds other values than it says and was scaled by those that it holds")
LITTLE_CONTRAST = Remark("it has hardly any contrast, which was stretched", refers=True)
NO_POLARITY = Remark("its photometric interpretation does not say what is black; MONOCHROME2 was assumed", refers=True)
POLARITY = Remark("its PresentationLUTShape contradicts its photometric interpretation and was believed", refers=True)
BLANK = Remark("blank: all its pixels are the same", refers=True)


def film_with(film: Film, side: Side, remarks: Iterable[Remark]) -> Film:
    """The film with its side, and each remark once and in its place."""
    said = list(dict.fromkeys(remarks))
    doubts = tuple(remark.text for remark in said if remark.refers)
    return replace(film, side=side, remarks=tuple(remark.text for remark in said), doubts=doubts)
