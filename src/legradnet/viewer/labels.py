"""Readers' marks as tables: one that training and evaluation take as it is, and one of what has no grade."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from legradnet.localise.knees import Box
from legradnet.tables import table_line
from legradnet.viewer.journal import Journal, Mark
from legradnet.viewer.worklist import Row

LABELS = ["filename", "label", "patient", "side", "readers", "note"]
UNGRADABLE = ["filename", "patient", "side", "why", "note"]
_AFTER_A_SEPARATOR = re.compile(r"([;|]\s*)(?=[=+\-@\uff1d\uff0b\uff0d\uff20])")  # where some programs begin a cell


@dataclass(frozen=True)
class Tables:
    """Two CSV files as text.

    Attributes:
        labels: A row for each knee that has a grade.
        ungradable: A row for each that was marked and has none, with the reason.
    """

    labels: str
    ungradable: str


def tables(rows: Sequence[Row], journal: Journal, readers: Sequence[str]) -> Tables:
    """What these readers say of each knee: what more of them say than anything else.

    Where no answer has the most voices the knee has no label, and is among the ungradable with all that was said.

    Args:
        rows: All knees.
        journal: All marks.
        readers: Whose marks count.
    """
    of_a_whole_film = ["knee", "box"] if any(row.knee or row.box for row in rows) else []
    names = LABELS[:4] + of_a_whole_film + LABELS[4:], UNGRADABLE[:3] + of_a_whole_film + UNGRADABLE[3:]
    labels, ungradable = ([table_line(columns)] for columns in names)
    patients = _patients(rows)
    for row in rows:
        marks = [mark for name in readers if row.digest and (mark := journal.current(name, row.key)) is not None]
        if not marks:
            continue
        grade, why = _majority(marks)
        note = "; ".join(_noted(mark, len(readers) > 1) for mark in marks if mark.note)
        box = Box(*row.box) if row.box else None
        which = [
            row.film.patient or patients.get(row.patient),
            row.knee or row.side or None,
            *([row.knee, box] if of_a_whole_film else []),
        ]
        if grade is None:
            ungradable.append(table_line([row.film.filename, *which, why, note or None], names[1]))
        else:
            labels.append(table_line([row.film.filename, grade, *which, len(marks), note or None], names[0]))
    return Tables("".join(labels), "".join(ungradable))


def _patients(rows: Sequence[Row]) -> dict[int | None, str]:
    """What patients of several rows are called whom the list itself doesn't name: as their first film is."""
    counts = Counter(row.patient for row in rows)
    return {
        row.patient: row.film.filename for row in reversed(rows) if row.patient is not None and counts[row.patient] > 1
    }


def _majority(marks: Sequence[Mark]) -> tuple[int | None, str]:
    """The grade that most give, or None and why there is none."""
    voices = Counter(mark.grade for mark in marks).most_common(2)
    if len(voices) == 1 or voices[0][1] > voices[1][1]:
        return voices[0][0], "" if voices[0][0] is not None else "ungradable"
    said = ", ".join(f"{mark.reader}: {'ungradable' if mark.grade is None else mark.grade}" for mark in marks)
    return None, f"no majority ({said})"


def _noted(mark: Mark, is_named: bool) -> str:
    note = _AFTER_A_SEPARATOR.sub(r"\1'", " ".join(mark.note.split()))
    return f"{mark.reader}: {note}" if is_named else note
