"""DICOM films of drawn knees with a patient, and what the checkers of Debian say of objects."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from hostile_films import dicom, dicom_bytes
from legradnet.data.drawn_knee import draw_knee
from whole_films import CLEAR, LEFT, RIGHT, whole_film

SECRETS = ("Geheim", "SECRET-77", "19570413", "ACC-4711", "Referent", "1.2.826.77")
PATIENT = {
    "PatientName": "Geheim^Jörg",
    "PatientID": "SECRET-77",
    "PatientBirthDate": "19570413",
    "PatientSex": "M",
    "PatientAge": "063Y",
    "SpecificCharacterSet": "ISO_IR 100",
    "StudyInstanceUID": "1.2.826.77.1",
    "SeriesInstanceUID": "1.2.826.77.1.1",
    "StudyDate": "20200102",
    "StudyTime": "101112",
    "StudyID": "S1",
    "StudyDescription": "Knee",
    "AccessionNumber": "ACC-4711",
    "ReferringPhysicianName": "Referent^Doctor",
    "Modality": "DX",
}
UID = "1.2.826.77.1.1"
KNEE = draw_knee(0.7, "L", np.random.default_rng(0), size=64)


def film(path, number=1, pixels=KNEE, syntax="1.2.840.10008.1.2.1", **elements):
    """Write a film, the so-manieth of a study; `elements` replace or add, None leaves one out."""
    values = {"ImageLaterality": "L", **PATIENT, "SOPInstanceUID": f"{UID}.{number}", **elements}
    lacking = [name for name in values if values[name] is None]
    dataset = dicom(pixels, syntax, **{name: value for name, value in values.items() if value is not None})
    for name in lacking:
        if name in dataset:
            del dataset[name]
    dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"] or "1.2.3"
    path.write_bytes(dicom_bytes(dataset))
    return path


def both_knees(path, **elements):
    return film(path, pixels=whole_film(RIGHT, LEFT, seed=CLEAR), ImageLaterality=None, **elements)


def checked_by(tool, *paths):
    """What a checker has to say of files."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, *map(str, paths)], capture_output=True, timeout=60, check=False)
    return (done.stdout + done.stderr).decode("latin-1")


def faults(path: Path) -> list[str]:
    """What dciodvfy calls an error."""
    return [line for line in checked_by("dciodvfy", path).splitlines() if "Error" in line or "Abort" in line]


def items(dataset):
    """All content items of a report."""
    for item in dataset.get("ContentSequence", []):
        yield item
        yield from items(item)


def named(dataset, meaning):
    """The content items that are called so."""
    return [item for item in items(dataset) if item.ConceptNameCodeSequence[0].CodeMeaning == meaning]
