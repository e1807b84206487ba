"""Whose film it is and of what kind: what of its header is copied into the objects made of it, and nowhere else."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from legradnet.data.dicom.film import inflated
from legradnet.data.dicom.start import is_dicom
from legradnet.data.images import HEAD
from legradnet.errors import UserError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge"),
    *("PatientSize", "PatientWeight"),
)
_STUDY = (
    *("StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
    "StudyDescription",
)
_COPIED = ("SpecificCharacterSet", "TimezoneOffsetFromUTC", *_PATIENT, *_STUDY)
_NEVER_LACKING = (  # type 2: there, and perhaps empty
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_MULTIFRAME = ("1.2.840.10008.5.1.4.1.1.12.1", "1.2.840.10008.5.1.4.1.1.12.2")  # XA and RF, beside those called so
_LOOKED_AT = (
    *("Modality", "BodyPartExamined", "ViewPosition", "BurnedInAnnotation", "ManufacturerModelName"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_AS_THEY_ARE = ("LO", "SH", "PN")  # a patient under another name or number would be another patient
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_LONGEST_UID = 64
_SEXES = ("M", "F", "O", "")


class NoIdentityError(UserError):
    """A film of which no objects can be made; says why without a word of whose it is."""


@dataclass(frozen=True)
class Identity:
    """What a film's header says of whose it is and what kind.

    Attributes:
        copied: Patient and study, as the film has them, what is not valid left empty.
        header: What else was looked at.
        sop_class: UID of the kind of object.
        film: UID of the film, its SOP Instance UID.
        series: UID of its series.
        study: UID of its study.
        is_multiframe: Whether it is of a kind that holds many pictures, of which the first was graded.
    """

    copied: "Dataset"
    header: "Dataset"
    sop_class: str
    film: str
    series: str
    study: str
    is_multiframe: bool

    def word(self, keyword: str) -> str:
        """An element that is a word, in capitals; "" without."""
        value = self.header.get(keyword)
        return value.strip().upper() if isinstance(value, str) else ""


def is_uid(text: object) -> bool:
    """Whether a text can stand for a UID; zeros in front of a part, which the standard forbids, are not minded."""
    return isinstance(text, str) and len(text) <= _LONGEST_UID and _UID.fullmatch(text) is not None


def read_identity(path: Path) -> Identity:
    """Read whose film a DICOM file is.

    Raises:
        NoIdentityError: It is none, or does not say which film of which study it is.
    """
    import pydicom

    before = pydicom.config.settings.reading_validation_mode
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE  # as where films are read
    wanted = [*_COPIED, *_UIDS, *_LOOKED_AT]
    try:
        with path.open("rb") as file:
            if not is_dicom(file.read(HEAD)):
                raise NoIdentityError("is no DICOM file")
            file.seek(0)
            header = pydicom.dcmread(inflated(file), stop_before_pixels=True, force=True, specific_tags=wanted)
            return _identity(header)
    except NoIdentityError:
        raise
    except Exception as error:  # its text may quote a patient's data
        raise NoIdentityError(f"has no readable header ({type(error).__name__})") from None
    finally:
        pydicom.config.settings.reading_validation_mode = before


def _identity(header: "Dataset") -> Identity:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

    uids = {name: str(header.get(name) or "").strip() for name in _UIDS}
    if lacking := [name for name, uid in uids.items() if not is_uid(uid)]:
        raise NoIdentityError(f"has no valid {', '.join(lacking)}")
    copied = Dataset()
    for name in _COPIED:
        if (value := _valid(header, name)) is not None:
            copied.add(value)
        elif name in _NEVER_LACKING:
            setattr(copied, name, "")
    if copied.PatientSex not in _SEXES:
        copied.PatientSex = ""
    return Identity(
        copied=copied,
        header=header,
        sop_class=uids["SOPClassUID"],
        film=uids["SOPInstanceUID"],
        series=uids["SeriesInstanceUID"],
        study=uids["StudyInstanceUID"],
        is_multiframe=uids["SOPClassUID"] in _MULTIFRAME or "Multi-frame" in UID(uids["SOPClassUID"]).name,
    )


def _valid(header: "Dataset", name: str) -> Any:
    """An element of the header as it may stand in an object of ours; None if it may not."""
    from pydicom.config import RAISE
    from pydicom.datadict import dictionary_VM, dictionary_VR
    from pydicom.valuerep import validate_value

    if name not in header:
        return None
    element = header[name]
    if dictionary_VR(element.tag) != element.VR or (element.VM > 1 and dictionary_VM(element.tag) == "1"):
        return None
    if element.VR in _AS_THEY_ARE or name == "SpecificCharacterSet":
        return element
    try:
        for value in [element.value] if element.VM < 2 else element.value:
            validate_value(element.VR, value if isinstance(value, str) else str(value), RAISE)
    except (ValueError, TypeError):
        return None
    return element
