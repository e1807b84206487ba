"""Which pictures a network was trained on: by a few bytes of each one's fingerprint, no name and no pixel."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from typing import Annotated

from pydantic import AfterValidator, Field

from legradnet.settings import Settings

_BYTES = 6  # of 10,000 training films and 1,000 others none is taken for another by chance: 4e-8
_FILMS_A_TEXT = 10_000  # 80,000 characters: texts of metadata have at most 100,000
MOST = 400_000  # films whose fingerprints are kept


def _prints(text: str) -> str:
    try:
        whole = len(base64.b64decode(text, validate=True)) % _BYTES == 0
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise ValueError(f"must be fingerprints of {_BYTES} bytes in base 64")
    return text


class SeenFilms(Settings):
    """The training films' pictures: the first bytes of their fingerprints, sorted and joined, in base 64."""

    fingerprints: list[Annotated[str, AfterValidator(_prints)]] = Field(max_length=MOST // _FILMS_A_TEXT + 1)

    def among(self, fingerprints: Sequence[bytes]) -> list[int]:
        """Which of some pictures, by their places in the list, were training films; b"" is none."""
        joined = b"".join(base64.b64decode(text) for text in self.fingerprints)
        known = {joined[at : at + _BYTES] for at in range(0, len(joined), _BYTES)}
        return [place for place, whole in enumerate(fingerprints) if whole and whole[:_BYTES] in known]


def seen_films(fingerprints: Iterable[bytes]) -> SeenFilms | None:
    """What is kept of training films with these fingerprints; None where no picture is known, or there are too many."""
    known = sorted({whole[:_BYTES] for whole in fingerprints if whole})
    if not 0 < len(known) <= MOST:
        return None
    starts = range(0, len(known), _FILMS_A_TEXT)
    texts = [base64.b64encode(b"".join(known[at : at + _FILMS_A_TEXT])).decode("ascii") for at in starts]
    return SeenFilms(fingerprints=texts)
