"""A knee as DICOM, written to a file or read in memory."""

import io
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
)

from hostile_films import dicom, dicom_bytes
from legradnet.data.dicom import film as dicom_film
from legradnet.data.drawn_knee import draw_knee
from legradnet.data.film import Film

KNEE = draw_knee(0.4, "L", np.random.default_rng(0), size=64)[:60]  # not square


DEEP = KNEE.astype(np.uint16) * 16


def film_of(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **elements: object) -> Film:
    """Read in this process, which is quicker and shows its errors."""
    return dicom_film.film_of_dicom(*dicom_film.open_dicom(io.BytesIO(dicom_bytes(dicom(pixels, syntax, **elements)))))


def written(path: Path, dataset: Dataset) -> Path:
    path.write_bytes(dicom_bytes(dataset))
    return path
