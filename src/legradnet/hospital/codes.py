"""The coded concepts of reports: SNOMED CT where it has a code, else our own scheme, which the room's README lists."""

from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from legradnet.data.sides import Side
from legradnet.hospital.terms import OWN, Term, grade_term, probability_term

SCHEME = CodingSchemeIdentificationItem(designator=OWN, name="LegRadNet's own codes, listed in its documentation")
KNEE = CodedConcept.from_code(codes.SCT.Knee)
SIDES: dict[Side, CodedConcept] = {
    "R": CodedConcept.from_code(codes.SCT.Right),
    "L": CodedConcept.from_code(codes.SCT.Left),
}
PLAIN_RADIOGRAPHY = CodedConcept.from_code(codes.SCT.PlainRadiography)
YES, NO = CodedConcept.from_code(codes.SCT.Yes), CodedConcept.from_code(codes.SCT.No)
COMMENT = CodedConcept.from_code(codes.DCM.Comment)
NO_UNIT = CodedConcept.from_code(codes.UCUM.NoUnits)


def own(term: Term) -> CodedConcept:
    """One of our own terms."""
    return CodedConcept(value=term.code, meaning=term.meaning, scheme_designator=OWN)


def grade_code(grade: int, classes: int) -> CodedConcept:
    """A grade."""
    return own(grade_term(grade, classes))


def probability_code(grade: int, classes: int) -> CodedConcept:
    """The probability of a grade."""
    return own(probability_term(grade, classes))
