"""What a header says of whether a film shows knees from the front; what it does not say, the picture tells."""

import re

from legradnet.hospital.identity import Identity
from legradnet.hospital.model import NAME

_MODALITIES = ("CR", "DX", "RG", "OT", "RF", "XA", "")  # as a scanned film or a capture may be called
# PS3.16 annex L, parts on which there is no knee; LEG, HIP and free words may have one
_OTHER_PARTS = re.compile(
    "ABDOMEN(PELVIS)?|ARM|BREAST|CALCANEUS|CHEST(ABDOMEN)?|CLAVICLE|ELBOW|FINGER|FOOT|FOREARM|HAND|HEAD(NECK)?|HUMERUS|JAW|"
    "LUNG|MANDIBLE|MAXILLA|NECK|NOSE|ORBIT|RIBS?|SCAPULA|SHOULDER|SINUS|SKULL|([CLT]|TL)?SPINE|STERNUM|THORAX|THUMB|TOE|"
    "WRIST"
)
_SIDE_VIEWS = ("LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL", "SKYLINE", "SUNRISE", "AXIAL", "MERCHANT")


def why_left_alone(identity: Identity) -> str:
    """Why a film is not to be graded, by its header; "" if nothing speaks against it."""
    if identity.word("ManufacturerModelName") == NAME.upper():
        return f"it is {NAME}'s own"
    if (modality := identity.word("Modality")) not in _MODALITIES:
        return "its modality is none of radiographs" if modality else ""
    if _OTHER_PARTS.fullmatch(identity.word("BodyPartExamined")):
        return "its header names another part of the body"
    if identity.word("ViewPosition") in _SIDE_VIEWS:
        return "its header says that it is not seen from the front"
    return ""
