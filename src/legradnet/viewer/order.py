"""Sorting and filtering the list, on the server: films may be many, and a blind study's order must tell nothing."""

import hashlib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from legradnet.viewer.sight import Sight
from legradnet.viewer.worklist import Row

SortKey = Callable[[Row], Any]  # None: has none, and is last either way

_RANGE = re.compile(r"(\d?\.?\d*)-(\d?\.?\d*)")


class AskedError(ValueError):
    """What was asked for makes no sense."""


class HiddenError(AskedError):
    """What was asked for would tell the model's answer."""


def _answer(name: str) -> SortKey:
    return lambda row: None if row.record is None or row.status == "error" else row.record.get(name)


def _probability(row: Row) -> float | None:
    return None if row.record is None or row.grade is None else float(row.record["probabilities"][row.grade])


def _set(row: Row) -> tuple[int, int] | None:
    grades = _answer("prediction_set")(row)
    return (len(grades), grades[0]) if grades else None


def _natural(row: Row) -> list[tuple[int, int, str]]:
    """So that knee10 stands behind knee9."""
    parts = re.split(r"(\d{1,18})", row.film.filename.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part]


_OF_THE_MODEL: dict[str, SortKey] = {
    "uncertainty": _probability,
    "grade": lambda row: row.grade,
    "probability": _probability,
    "set": _set,
    "referred": _answer("referred"),
    "reason": lambda row: _answer("reason")(row) or None,
}
_OF_THE_FILM: dict[str, SortKey] = {
    "listed": lambda row: row.number,
    "name": _natural,
    "side": lambda row: row.knee or row.side or None,
}
_MODEL_FILTERS = ("grade", "probability", "set", "referred", "reason")


def listed(sight: Sight, asked: Mapping[str, str], *, seed: int) -> list[Row]:
    """The rows that were asked for, in the order that was asked for.

    Args:
        sight: Who asks.
        asked: `sort`, `order` and filters, as the page writes them.
        seed: Of the order of a blind study.

    Raises:
        AskedError: There is no such sort, order or filter, or the reader may not know what it would tell.
    """
    rows = list(sight.worklist.rows)
    for test in _filters(sight, asked):
        rows = [row for row in rows if test(row)]
    key = _sort_key(sight, asked.get("sort"), seed)
    falling = {"asc": False, "desc": True}.get(asked.get("order") or "asc")
    if falling is None:
        raise AskedError("order is asc or desc.")
    keyed = [(key(row), row) for row in rows]
    there = sorted((pair for pair in keyed if pair[0] is not None), key=lambda pair: pair[0], reverse=falling)
    without = sorted((row for own, row in keyed if own is None), key=lambda row: (row.error is not None, row.number))
    return [row for _, row in there] + without


def _sort_key(sight: Sight, name: str | None, seed: int) -> SortKey:
    name = name or ("order" if sight.blind else "uncertainty")
    if name == "order" and sight.blind:
        return lambda row: hashlib.blake2b(f"{seed}|{sight.reader}|{row.number}".encode(), digest_size=8).digest()
    if name == "mark":
        return lambda row: None if (mark := sight.mark(row)) is None else math.inf if mark.grade is None else mark.grade
    if name in _OF_THE_FILM:
        return _OF_THE_FILM[name]
    if name not in _OF_THE_MODEL:
        known = ["order", *_OF_THE_FILM, "mark"] if sight.blind else [*_OF_THE_MODEL, *_OF_THE_FILM, "mark"]
        raise AskedError(f"sort is one of {', '.join(known)}.")
    if sight.blind:
        raise HiddenError("In a blind study films are not sorted by what the model says of them.")
    return _OF_THE_MODEL[name]


def _filters(sight: Sight, asked: Mapping[str, str]) -> list[Callable[[Row], bool]]:
    tests: list[Callable[[Row], bool]] = []
    for name, value in asked.items():
        if name in ("offset", "limit", "sort", "order") or not value:
            continue
        if sight.blind and (name in _MODEL_FILTERS or (name, value) == ("mark", "differs")):
            raise HiddenError("In a blind study films are not chosen by what the model says of them.")
        if name not in _FILTERS:
            raise AskedError(f"{name[:40]!r} is no filter: there are {', '.join(_FILTERS)}.")
        tests.append(_FILTERS[name](value, sight))
    return tests


def _of_words(value: str, words: Mapping[str, Any], name: str) -> Any:
    if value not in words:
        raise AskedError(f"{name} is one of {', '.join(words)}.")
    return words[value]


def _wanted_grades(value: str, sight: Sight) -> Callable[[Row], bool]:
    wanted = {_whole(part, "grade") for part in value.split(",")}
    return lambda row: row.grade in wanted


def _wanted_probability(value: str, sight: Sight) -> Callable[[Row], bool]:
    found = _RANGE.fullmatch(value)
    try:
        low, high = (float(end) for end in found.groups()) if found else (math.nan, math.nan)
    except ValueError:
        low = high = math.nan
    if not low <= high:
        raise AskedError("probability is a range, 0.3-0.6.")
    return lambda row: low <= (-1 if (own := _probability(row)) is None else own) <= high


def _wanted_set(value: str, sight: Sight) -> Callable[[Row], bool]:
    grade = _whole(value, "set")
    return lambda row: grade in (_answer("prediction_set")(row) or ())


def _wanted_referred(value: str, sight: Sight) -> Callable[[Row], bool]:
    wanted = _of_words(value, {"yes": True, "no": False}, "referred")
    return lambda row: _answer("referred")(row) is wanted


def _wanted_side(value: str, sight: Sight) -> Callable[[Row], bool]:
    wanted = _of_words(value, {"L": "L", "R": "R", "none": ""}, "side")
    return lambda row: (row.knee or row.side) == wanted


def _wanted_mark(value: str, sight: Sight) -> Callable[[Row], bool]:
    if value == "none":
        return lambda row: sight.mark(row) is None
    if value == "any":
        return lambda row: sight.mark(row) is not None
    if value == "differs":
        return lambda row: (mark := sight.mark(row)) is not None and row.grade is not None and mark.grade != row.grade
    grade = None if value == "ungradable" else _whole(value, "mark")
    return lambda row: (mark := sight.mark(row)) is not None and mark.grade == grade


def _wanted_status(value: str, sight: Sight) -> Callable[[Row], bool]:
    wanted = _of_words(value, {name: name for name in ("graded", "waiting", "error")}, "status")
    return lambda row: row.status == wanted


def _wanted_patient(value: str, sight: Sight) -> Callable[[Row], bool]:
    number = _whole(value, "patient")
    return lambda row: row.patient == number


def _whole(value: str, name: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) < 10):
        raise AskedError(f"{name} has no {value[:40]!r}.")
    return int(value)


_FILTERS: dict[str, Callable[[str, Sight], Callable[[Row], bool]]] = {
    "q": lambda value, sight: lambda row: value.casefold() in row.film.filename.casefold(),
    "side": _wanted_side,
    "grade": _wanted_grades,
    "probability": _wanted_probability,
    "set": _wanted_set,
    "referred": _wanted_referred,
    "reason": lambda value, sight: lambda row: value.casefold() in (_answer("reason")(row) or "").casefold(),
    "mark": _wanted_mark,
    "status": _wanted_status,
    "patient": _wanted_patient,
}
