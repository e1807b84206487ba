"""What all objects made of a film share: they are in its study, are its patient's, and say when they were made."""

from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from legradnet.hospital.identity import Identity

_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName"),
)
_DAYS = ("InstanceCreationDate", "ContentDate", "DateOfSecondaryCapture")
_TIMES = ("InstanceCreationTime", "ContentTime", "TimeOfSecondaryCapture")


def stand_in(identity: Identity) -> Dataset:
    """The film as highdicom wants to see it, without a patient: its log quotes names that are not as they should be."""
    film = Dataset()
    film.SOPClassUID, film.SOPInstanceUID = identity.sop_class, identity.film
    film.SeriesInstanceUID, film.StudyInstanceUID = identity.series, identity.study
    for name in _EMPTY:
        setattr(film, name, "")
    return film


def referenced(identity: Identity) -> Dataset:
    """A reference to the film, of which the first frame was graded."""
    film = Dataset()
    film.ReferencedSOPClassUID, film.ReferencedSOPInstanceUID = identity.sop_class, identity.film
    if identity.is_multiframe:
        film.ReferencedFrameNumber = 1
    return film


def placed(made: Dataset, identity: Identity, when: datetime) -> Dataset:
    """Give an object the patient and study of its film, and the time at which it was made."""
    for name in _EMPTY:
        if name in made:
            del made[name]
    made.update(identity.copied)
    day, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    values: dict[str, Any] = {**dict.fromkeys(_DAYS, day), **dict.fromkeys(_TIMES, time)}
    for name, value in values.items():
        if name in made or name.startswith("Instance"):
            setattr(made, name, value)
    for tool in made.get("ContributingEquipmentSequence", []):  # highdicom names itself, at the time it was called
        tool.ContributionDateTime = f"{day}{time}"
    return made
