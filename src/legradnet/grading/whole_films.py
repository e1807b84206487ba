"""Films that are more than one knee cut close: which of their knees are graded, and why the others are not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Literal, TypeVar, get_args

from legradnet.data.film import Film, Gray, ImageError, fingerprint
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grading.grading import Knee, NotGraded, Prepared, Request, check_request
from legradnet.grading.look import look_at
from legradnet.grading.lookers import look_apart
from legradnet.grading.networks import GradingNetwork
from legradnet.grading.preparing import Alter, SidedFilm, prepare_film, read
from legradnet.localise.film_knees import NO_KNEE, UNSURE, film_knees, none_of
from legradnet.localise.knees import CERTAIN, LIKELY, SURE, FoundKnee, fills, find_knees, is_cut_close
from legradnet.localise.metal import PROSTHESIS
from legradnet.memory import give_back_freed_memory

FilmKind = Literal["auto", "crop", "whole"]

_Seen = TypeVar("_Seen")
_MOST_KEPT = 8192  # looks at films that are remembered
_kept: dict[tuple[str, bytes], Any] = {}
_keeping = Lock()


def check_film_kind(kind: str) -> None:
    """Raise UserError if this is no `FilmKind`."""
    if kind not in get_args(FilmKind):
        raise UserError(f"film={kind!r} is not one of {', '.join(get_args(FilmKind))}.")


def prepare_knees(
    networks: Sequence[GradingNetwork], request: Request, kind: FilmKind = "auto", alter: Alter | None = None
) -> list[Prepared | NotGraded | ImageError]:
    """Read a film and prepare each of its knees, the patient's right one first; what can't be graded is told.

    A film that is one knee cut close is prepared as `prepare` does, with `knee` None; unless it is of a replaced joint.
    """
    check_request(request)
    if isinstance(request.film, ImageError):
        return [request.film]
    try:
        sided = read(request)
        places = None if kind == "crop" else _places(sided.film, networks, is_whole=kind == "whole")
        if places is None:
            sided = sided._replace(side=sided.side or request.knee)
            close = prepare_film(networks, *sided, alter)
            is_replaced = kind != "crop" and PROSTHESIS in close.refer  # who says that it is a crop has its grade
            return [
                NotGraded(Knee(sided.side, None), "; ".join([PROSTHESIS, *sided.remarks])) if is_replaced else close
            ]
        if request.knee and len(places) == 2:  # a side that is told of a film with two knees would only confuse
            sided = sided._replace(side="")
        knees: list[Prepared | NotGraded | ImageError] = [*_prepared(networks, sided, places, request.knee, alter)]
        give_back_freed_memory()  # what was made of a whole film is a hundred times what a knee needs
    except ImageError as error:
        return [error]
    if request.knee:
        asked = [knee for knee in knees if isinstance(knee, ImageError) or _is_asked(knee, request.knee)]
        return asked if places and asked else [NotGraded(Knee(request.knee, None), none_of(places, request.knee))]
    return knees


def _is_asked(knee: Prepared | NotGraded, side: Side) -> bool:
    return knee.knee is not None and knee.knee.side in (side, "")


def _places(film: Film, networks: Sequence[GradingNetwork], is_whole: bool) -> tuple[FoundKnee, ...] | None:
    """Where the knees of a film are; None if it is one knee cut close.

    A film in which no knee is sure is taken for one that its networks know better, unless it looks odd to them.
    """
    picture = fingerprint(film.gray)
    if not is_whole and _once(is_cut_close, film.gray, picture):
        return None
    found = _once(find_knees, film.gray, picture)
    sure = [knee for knee in found if knee.score >= SURE]
    if is_whole or (sure and not any(fills(knee, film.gray) for knee in sure)):
        return found
    return found if not sure and look_apart(look_at, film, [network.film_check for network in networks]).refer else None


def _once(look: Callable[[Gray], _Seen], gray: Gray, picture: bytes) -> _Seen:
    """What `look` sees in a film, which is looked at once, however often its knees are asked for."""
    key = look.__name__, picture
    if (seen := _kept.get(key)) is None:
        seen = look_apart(look, gray)
        with _keeping:
            _kept[key] = seen
            while len(_kept) > _MOST_KEPT:
                _kept.pop(next(iter(_kept)))
    return seen


def forget_looks() -> None:
    """Forget what was seen of films, for who measures how long looking takes."""
    with _keeping:
        _kept.clear()


def _looks_odd(networks: Sequence[GradingNetwork], cut: Film) -> str:
    """What a network's own check of looks has against a square; "" if nothing."""
    return next((odd for network in networks if network.film_check and (odd := network.film_check.reason(cut))), "")


def _prepared(
    networks: Sequence[GradingNetwork],
    sided: SidedFilm,
    found: Sequence[FoundKnee],
    asked: Side,
    alter: Alter | None,
) -> Iterator[Prepared | NotGraded]:
    """A knee whose side nobody knows is the one that is `asked` for; of others that alone makes no other side."""
    film = sided.film
    if not found:
        metal = [PROSTHESIS] if PROSTHESIS in look_apart(look_at, film, [None]).refer else []
        yield NotGraded(Knee(sided.side, None), "; ".join([NO_KNEE, *metal]))
    for place in film_knees(found, film.gray.shape, sided.side):
        place = place._replace(side=place.side or asked)
        knee, remarks = Knee(place.side, place.box), [*sided.remarks, *place.remarks]
        cut = replace(film, gray=place.box.cut(film.gray))
        if place.left_out:
            metal = [PROSTHESIS] if PROSTHESIS in look_apart(look_at, cut, [None]).refer else []
            yield NotGraded(knee, "; ".join([*metal, place.left_out, *remarks]))
            continue
        prepared = prepare_film(networks, cut, place.side, remarks, alter)
        if PROSTHESIS in prepared.refer:
            yield NotGraded(knee, "; ".join([PROSTHESIS, *remarks]))
        elif place.score < CERTAIN and (odd := _looks_odd(networks, cut)):
            yield NotGraded(knee, "; ".join([UNSURE, odd, *remarks]))
        else:
            doubt = UNSURE if place.score < LIKELY else ""
            refer = "; ".join(filter(None, [prepared.refer, doubt]))
            yield prepared._replace(refer=refer, knee=knee, whole=film)
