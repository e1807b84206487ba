"""Whose a film is, as far as its file tells: films of one patient tell the same, and nobody learns who that is.

What a DICOM file says of its patient is hashed in the process that reads it, with a key that is drawn anew by each
command and written nowhere: the digest tells which films belong together while the command runs, and nothing else.
"""

import hashlib
import re
import secrets

_keys = [secrets.token_bytes(32)]
_NOBODY = re.compile(r"[\W_0]*|anon\w*|unknown|none|null|na|removed|deleted|deidentified|de-identified|patient|test|x+")


def key() -> str:
    """The key of this process, for those that read films for it."""
    return _keys[0].hex()


def take_key(text: str) -> None:
    """Hash with this key from now on: that of the process whose films are read."""
    _keys[0] = bytes.fromhex(text)


def digest_of(patient: object, issuer: object = "") -> str:
    """What stands for a patient's id, 32 letters; "" for what names nobody, as the words that are put in its place."""
    told, by = (str(text or "").strip(" \0") for text in (patient, issuer))
    if _NOBODY.fullmatch(told.casefold()):
        return ""
    text = f"{by}\0{told}"
    return hashlib.blake2b(text.encode("utf-8", "replace"), key=_keys[0], digest_size=16).hexdigest()
