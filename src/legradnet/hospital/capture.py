"""What a reader sees in a viewer: a picture (Secondary Capture) and, if asked for, a page (Encapsulated PDF)."""

from datetime import datetime
from typing import Any

from highdicom.sc import SCImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage, ExplicitVRLittleEndian

from legradnet.hospital.graded import GradedFilm
from legradnet.hospital.identity import Identity
from legradnet.hospital.model import NAME, RESEARCH, Model, own_version
from legradnet.hospital.picture import drawn, page
from legradnet.hospital.placed import placed, referenced

_PICTURE_SERIES, _PAGE_SERIES = 9102, 9103
_LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")


def secondary_capture(graded: GradedFilm, identity: Identity, model: Model, when: datetime) -> Dataset:
    """The picture of a film as a DICOM image in the film's study."""
    made: Any = SCImage(
        pixel_array=drawn(graded, model),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        study_instance_uid=identity.study,
        series_instance_uid=model.uid("series of the picture", identity.film),
        series_number=_PICTURE_SERIES,
        sop_instance_uid=model.uid("picture", identity.film),
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=own_version(),
        series_description=RESEARCH,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    made.Laterality = graded.sides[0] if len(graded.sides) == 1 else None
    made.PatientOrientation = None  # two views and words: no direction holds for all of it
    made.ConversionType = "WSD"
    made.DerivationDescription = f"Film and heat map, graded by {NAME}. {RESEARCH}."
    made.ImageComments = f"{RESEARCH}. Not verified by a reader."
    source = referenced(identity)
    source.PurposeOfReferenceCodeSequence = [_coded(codes.DCM.SourceImageForImageProcessingOperation)]
    made.SourceImageSequence = [source]
    if identity.word("BurnedInAnnotation") in ("YES", "NO"):
        made.BurnedInAnnotation = identity.word("BurnedInAnnotation")
    if identity.word("LossyImageCompression") == "01":  # what was lost once is lost
        for name in _LOSSY:
            if name in identity.header:
                made[name] = identity.header[name]
    return placed(made, identity, when)


def encapsulated_page(graded: GradedFilm, identity: Identity, model: Model, when: datetime) -> Dataset:
    """The same as a PDF of one page, in DICOM (PS3.3 A.45.1)."""
    content = page(graded, model)
    made: Any = Dataset()
    made.preamble = bytes(128)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EncapsulatedPDFStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = model.uid("page", identity.film)
    made.SeriesInstanceUID = model.uid("series of the page", identity.film)
    values: dict[str, Any] = {
        "Modality": "DOC",
        "SeriesNumber": _PAGE_SERIES,
        "SeriesDescription": RESEARCH,
        "InstanceNumber": 1,
        "Manufacturer": NAME,
        "ManufacturerModelName": NAME,
        "SoftwareVersions": own_version(),
        "ConversionType": "WSD",
        "ContentDate": "",
        "ContentTime": "",
        "AcquisitionDateTime": "",
        "BurnedInAnnotation": "NO" if identity.word("BurnedInAnnotation") == "NO" else "YES",
        "DocumentTitle": f"{NAME}: {RESEARCH}",
        "ConceptNameCodeSequence": [],
        "VerificationFlag": "UNVERIFIED",
        "SourceInstanceSequence": [referenced(identity)],
        "MIMETypeOfEncapsulatedDocument": "application/pdf",
        "EncapsulatedDocumentLength": len(content),
        "EncapsulatedDocument": content + bytes(len(content) % 2),
    }
    for name, value in values.items():
        setattr(made, name, value)
    return placed(made, identity, when)


def _coded(code: Any) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item
