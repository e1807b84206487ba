"""A line of `predictions.jsonl` as a FHIR Observation, valid in R4, R4B and R5; the room's README has the mapping."""

import hashlib
import json
from typing import Any

from legradnet.grading.predictions import BOX, KNEE, Record
from legradnet.hospital.model import RESEARCH, Model, own_version
from legradnet.hospital.terms import (
    BOX as BOX_TERM,
)
from legradnet.hospital.terms import (
    EXPECTED,
    GATE,
    IN_SET,
    LABEL,
    OWN_SYSTEM,
    REASON,
    REFERRED,
    Term,
    grade_term,
    probability_term,
    scale_term,
)

_SNOMED = "http://snomed.info/sct"
_KNEE = {"system": _SNOMED, "code": "72696002", "display": "Knee region structure"}
_LATERALITY = {"system": _SNOMED, "code": "272741003", "display": "Laterality"}
_SIDES = {
    "R": {"system": _SNOMED, "code": "24028007", "display": "Right"},
    "L": {"system": _SNOMED, "code": "7771000", "display": "Left"},
}
_WORDS = {"R": "right knee", "L": "left knee"}
_IMAGING = {
    "system": "http://terminology.hl7.org/CodeSystem/observation-category",
    "code": "imaging",
    "display": "Imaging",
}
_NOT_DONE = {"system": "http://terminology.hl7.org/CodeSystem/data-absent-reason", "code": "not-performed"}
Resource = dict[str, Any]


def observation(row: Record, model: Model) -> Resource:
    """A knee's Observation; of a knee without a grade one that says why there is none."""
    side = row.get(KNEE) or ""
    film = {"display": row["filename"]}
    made: Resource = {
        "resourceType": "Observation",
        "id": _id(row, model),
        "status": "preliminary",
        "category": [{"coding": [_IMAGING]}],
        "code": _concept(scale_term(model.classes)),
        "bodySite": {"coding": [_KNEE], "text": _WORDS.get(side, "knee")},
        "method": {"text": f"LegRadNet {own_version()}; {'; '.join(model.in_words)}"},
        "derivedFrom": [film],
        "note": [{"text": f"{RESEARCH}. Not verified by a reader."}],
    }
    parts: list[Resource] = []
    if side:
        parts.append({"code": {"coding": [_LATERALITY]}, "valueCodeableConcept": {"coding": [_SIDES[side]]}})
    if row["grade"] is None:
        made["dataAbsentReason"] = {"coding": [_NOT_DONE]}
    else:
        made["valueCodeableConcept"] = _concept(grade_term(row["grade"], model.classes))
        parts += [
            {"code": _concept(probability_term(grade, model.classes)), "valueQuantity": _number(probability)}
            for grade, probability in enumerate(row["probabilities"])
        ]
        parts.append({"code": _concept(EXPECTED), "valueQuantity": _number(row["expected_grade"])})
        parts += [
            {"code": _concept(IN_SET), "valueCodeableConcept": _concept(grade_term(grade, model.classes))}
            for grade in row["prediction_set"]
        ]
        parts += [
            {"code": _concept(GATE) | {"text": f"{GATE.meaning} of {key}"}, "valueQuantity": _number(weight)}
            for key, weight in row["gate_weights"].items()
        ]
    parts.append({"code": _concept(REFERRED), "valueBoolean": bool(row["referred"])})
    if row["reason"]:
        parts.append({"code": _concept(REASON), "valueString": row["reason"]})
    if row.get(BOX):
        parts.append({"code": _concept(BOX_TERM), "valueString": " ".join(map(str, row[BOX]))})
    if row["label"] is not None:
        parts.append({"code": _concept(LABEL), "valueInteger": row["label"]})
    made["component"] = parts
    return made


def as_json(resource: Resource) -> str:
    """A resource as a file."""
    return json.dumps(resource, ensure_ascii=False, indent=1) + "\n"


def _id(row: Record, model: Model) -> str:
    parts = [row["filename"], row.get(KNEE) or "", *sorted(model.digests)]
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]


def _concept(term: Term) -> Resource:
    return {"coding": [{"system": OWN_SYSTEM, "code": term.code, "display": term.meaning}]}


def _number(value: float) -> Resource:
    return {"value": value, "unit": "no units", "system": "http://unitsofmeasure.org", "code": "1"}
