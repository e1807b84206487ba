"""A DICOM film of 12 bits whose header says what a test wants, and whether it looks as it should."""

import io

import numpy as np
from dicom_films import KNEE, film_of
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from hostile_films import dicom, dicom_bytes
from legradnet.data.dicom.film import film_of_dicom, open_dicom
from legradnet.data.film import Film

NOISE = np.random.default_rng(1).integers(0, 16, KNEE.shape)
PIXELS = (KNEE.astype(np.uint16) * 16 + NOISE).astype(np.uint16)  # 12 bits in 16
WINDOW = {"BitsStored": 12, "WindowCenter": "2048", "WindowWidth": "4096"}
RIGHT = film_of(PIXELS, **WINDOW).gray
LINE = np.arange(4096)
EMPTY = Sequence([Dataset()])


def film(pixels: np.ndarray = PIXELS, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Film:
    given_elements = {name: value for name, value in {**WINDOW, **elements}.items() if value is not None}
    return film_of(pixels, syntax, **given_elements)


def written_as(text: str, name: str, vr: str = "DS", **elements: object) -> Film:
    """A film with an element that has this text, which pydicom would not write."""
    dataset = dicom(PIXELS, **{**WINDOW, **elements})
    content = text.encode() + b" " * (len(text) % 2)
    dataset[Tag(name)] = RawDataElement(Tag(name), vr, len(content), content, 0, False, True)
    return film_of_dicom(*open_dicom(io.BytesIO(dicom_bytes(dataset))))


def lut(entries: object, descriptor: list[int] | None, dtype: str = "<u2", vr: str = "OW") -> Sequence:
    item = Dataset()
    if descriptor is not None:
        item.add_new("LUTDescriptor", "US", descriptor)
    if entries is not None:
        item.add_new("LUTData", vr, np.array(entries, dtype).tobytes() if vr == "OW" else list(map(int, entries)))
    return Sequence([item])


def is_right(read: Film, off: int = 1) -> bool:
    return bool(np.abs(read.gray.astype(int) - RIGHT).max() <= off)
