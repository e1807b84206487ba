"""What is to be said of a film before it is graded: metal, a film that is not cut close, a look unlike training's."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from legradnet.data.film import THUMBNAIL, Film
from legradnet.grades import Floats
from legradnet.grading.film_check import FilmCheck, mean_look_of
from legradnet.grading.joint_search import search_joint
from legradnet.localise.metal import PROSTHESIS, find_metal

SMALL_METAL = "metal, as of a screw or a staple"
_LIKELY = 0.7  # likeness from which a part of a film may be its joint
_DRAWN_KNEES = 40


class Look(NamedTuple):
    """Why a film is referred, () if for nothing; and what is told without that."""

    refer: tuple[str, ...]
    remarks: tuple[str, ...]


def look_at(film: Film, checks: Sequence[FilmCheck | None]) -> Look:
    """Look at a film as read, for the networks whose `checks` these are.

    Metal, and whether the film is a joint cut close, are looked for whatever a network has learned; one without a check
    of its own is taken to know films like those that `legradnet-synthesize` draws.
    """
    remarks: tuple[str, ...] = ()
    reasons: list[str] = []
    for number, check in enumerate(checks):
        odd = check.reason(film) if check else ""
        joint = search_joint(film.gray, check.mean_film if check else _drawn_look())
        if number == 0:
            gray = 255 - film.gray if joint.is_inverted else film.gray
            metal = find_metal(gray, joint.share if joint.part >= _LIKELY else 1.0)
            reasons += [PROSTHESIS] if metal == "prosthesis" else []
            remarks = (SMALL_METAL,) if metal == "small" else ()
        if reason := joint.why_not_close(looks_odd=bool(odd)) or odd:
            return Look((*reasons, reason), remarks)
    return Look(tuple(reasons), remarks)


@lru_cache(maxsize=1)
def _drawn_look() -> Floats:
    from legradnet.data.synthetic import synthesize  # late: nearly every network has a check

    films, _ = synthesize(_DRAWN_KNEES, size=4 * THUMBNAIL)
    return mean_look_of([Film(film) for film in films])
