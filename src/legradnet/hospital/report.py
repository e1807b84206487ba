"""A film's gradings as a DICOM structured report (TID 1500, PS3.16): a measurement group a knee."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian

from legradnet.grading.grading import Grading, NotGraded
from legradnet.hospital.codes import (
    COMMENT,
    KNEE,
    NO,
    NO_UNIT,
    PLAIN_RADIOGRAPHY,
    SCHEME,
    SIDES,
    YES,
    grade_code,
    own,
    probability_code,
)
from legradnet.hospital.graded import GradedFilm
from legradnet.hospital.identity import Identity
from legradnet.hospital.model import NAME, RESEARCH, Model, own_version, plain_text
from legradnet.hospital.placed import placed, stand_in
from legradnet.hospital.terms import EXPECTED, IN_SET, REASON, REFERRED, scale_term

_SERIES_NUMBER = 9101
_DIGITS = 6


def structured_report(graded: GradedFilm, identity: Identity, model: Model, when: datetime) -> Dataset:
    """A structured report of one film, not verified by anybody.

    Args:
        graded: What each of its knees was graded.
        identity: Whose film it is.
        model: What graded it.
        when: When.
    """
    uid = model.uid("report", identity.film)
    observer = ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=model.uid("observer", ""), name=NAME, manufacturer_name=NAME, model_name=NAME
        ),
    )
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer),
        procedure_reported=PLAIN_RADIOGRAPHY,
        imaging_measurements=[
            _group(knee, number, graded, identity, model) for number, knee in enumerate(graded.knees, start=1)
        ],
    )
    _add_text(report[0].ContentSequence, COMMENT, f"{RESEARCH}. Not verified by a reader.")
    document = ComprehensiveSR(
        evidence=[stand_in(identity)],
        content=report,
        series_instance_uid=model.uid("series of the report", identity.film),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=uid,
        instance_number=1,
        manufacturer=NAME,
        manufacturer_model_name=NAME,
        software_versions=own_version(),
        series_description=RESEARCH,
        is_complete=True,
        is_final=False,
        is_verified=False,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        coding_schemes=[SCHEME],
    )
    return placed(document, identity, when)


def _group(
    knee: Grading | NotGraded, number: int, graded: GradedFilm, identity: Identity, model: Model
) -> MeasurementsAndQualitativeEvaluations:
    side = graded.side_of(knee)
    frames = [1] if identity.is_multiframe else None
    referred = isinstance(knee, NotGraded) or knee.referred
    evaluations = [QualitativeEvaluation(own(REFERRED), YES if referred else NO)]
    measurements: list[Measurement] = []
    if isinstance(knee, Grading):
        grade = QualitativeEvaluation(own(scale_term(model.classes)), grade_code(knee.grade, model.classes))
        in_set = [QualitativeEvaluation(own(IN_SET), grade_code(k, model.classes)) for k in knee.prediction_set]
        evaluations = [grade, *in_set, *evaluations]
        measurements = [
            *(
                Measurement(probability_code(k, model.classes), round(float(p), _DIGITS), NO_UNIT)
                for k, p in enumerate(knee.probabilities)
            ),
            Measurement(own(EXPECTED), round(knee.expected_grade, _DIGITS), NO_UNIT),
        ]
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(
            uid=model.uid("knee", identity.film, str(number)), identifier=graded.name_of(knee)
        ),
        algorithm_id=AlgorithmIdentification(NAME, own_version(), parameters=_parameters(model)),
        finding_sites=[FindingSite(KNEE, laterality=SIDES.get(side))],
        measurements=measurements or None,
        qualitative_evaluations=evaluations,
        source_images=[SourceImageForMeasurementGroup(identity.sop_class, identity.film, frames)],
    )
    if knee.reason:
        _add_text(group[0].ContentSequence, own(REASON), knee.reason)
    return group


def _parameters(model: Model) -> Sequence[str]:
    return [f"model: {words}" for words in model.in_words]


def _add_text(items: Any, name: CodedConcept, text: str) -> None:
    items.append(TextContentItem(name=name, value=plain_text(text), relationship_type=RelationshipTypeValues.CONTAINS))
