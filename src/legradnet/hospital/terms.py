"""Our own terms, where SNOMED CT and LOINC have none for a grade of Kellgren and Lawrence and what belongs to it."""

from typing import NamedTuple

OWN = "99LEGRADNET"  # designator of our coding scheme; private ones begin with 99 (PS3.3 8.2)
OWN_SYSTEM = "urn:legradnet:codes"  # the same in FHIR


class Term(NamedTuple):
    """A concept: its code and its meaning."""

    code: str
    meaning: str


KL = Term("KL", "Kellgren-Lawrence grade")
GRADE = Term("GRADE", "Osteoarthritis grade")  # of another scale than 0 to 4
IN_SET = Term("SET", "Grade in the prediction set")
EXPECTED = Term("EXPECTED", "Expected grade")
REFERRED = Term("REFERRED", "Referred to a reader")
REASON = Term("REASON", "Reason")
BOX = Term("BOX", "Square of the knee in the film: left, top, side in pixels")
LABEL = Term("LABEL", "Grade by a reader")
GATE = Term("GATE", "Gate weight")


def scale_term(classes: int) -> Term:
    """What a grade is a grade of."""
    return KL if classes == 5 else GRADE


def grade_term(grade: int, classes: int) -> Term:
    """A grade."""
    scale = scale_term(classes)
    return Term(f"{scale.code}-{grade}", f"{scale.meaning} {grade}")


def probability_term(grade: int, classes: int) -> Term:
    """The probability of a grade."""
    scale = scale_term(classes)
    return Term(f"P-{scale.code}-{grade}", f"Probability of {scale.meaning} {grade}")
