"""What a reader may see of a knee: in a blind study nothing of the model before their own mark, or of others."""

from typing import Any

from legradnet.viewer.journal import Journal, Mark
from legradnet.viewer.worklist import Row, Worklist


class Sight:
    """The rows of a list as one reader may see them.

    Args:
        reader: Who looks.
        others: The other readers.
        worklist: The list.
        journal: All marks.
        blind: Whether this is a blind study.
    """

    def __init__(self, reader: str, others: tuple[str, ...], worklist: Worklist, journal: Journal, blind: bool) -> None:
        self.reader, self.others, self.blind = reader, others, blind
        self.worklist, self.journal = worklist, journal

    def mark(self, row: Row) -> Mark | None:
        """This reader's own."""
        return self.journal.current(self.reader, row.key) if row.digest else None

    def is_shown(self, row: Row) -> bool:
        """Whether the model's answer is this reader's to see."""
        return not self.blind or self.mark(row) is not None

    def was_shown(self, row: Row) -> bool:
        """Whether a mark that is made now is made by someone who has seen the model's answer, in a blind study."""
        return self.journal.has_marked(self.reader, row.key)

    def brief(self, row: Row) -> dict[str, Any]:
        """A row of the list."""
        shown = self.is_shown(row)
        answer = row.record if shown and row.status == "graded" else None
        width, height, depth = row.size or (None, None, None)
        return {
            "id": row.id,
            "name": row.film.filename,
            "side": row.knee or row.side,
            "patient_group": row.patient,
            "status": row.status,
            "shown": shown,
            "grade": None if answer is None else row.grade,
            "probability": None if answer is None or row.grade is None else answer["probabilities"][row.grade],
            "prediction_set": None if answer is None else answer.get("prediction_set"),
            "referred": None if answer is None else answer.get("referred"),
            "reason": None if answer is None else answer.get("reason"),
            "error": row.error,
            "mark": _mark(self.mark(row)),
            "marks": self._others(row),
            "knee": row.knee,
            "box": None if row.box is None else list(row.box),
            "width": width,
            "height": height,
            "depth": depth,
        }

    def whole(self, row: Row) -> dict[str, Any]:
        """All of a knee."""
        answer = row.record if self.is_shown(row) and row.status == "graded" else None
        of_patient = [] if row.patient is None else list(self.worklist.by_patient.get(row.patient, ()))
        side = row.knee or row.side
        same = [other.id for other in of_patient if other is not row and (other.knee or other.side) == side]
        return self.brief(row) | {
            "probabilities": None if answer is None else answer.get("probabilities"),
            "expected_grade": None if answer is None else answer.get("expected_grade"),
            "gate_weights": None if answer is None else answer.get("gate_weights") or None,
            "reasons": [] if answer is None else [part for part in (answer.get("reason") or "").split("; ") if part],
            "other_knee": [other.id for other in of_patient if (other.knee or other.side) != side],
            "earlier": same,
        }

    def _others(self, row: Row) -> list[dict[str, Any]]:
        if self.blind or not row.digest:
            return []
        marks = [self.journal.current(other, row.key) for other in self.others]
        return [{"reader": mark.reader, **(_mark(mark) or {})} for mark in marks if mark is not None]


def _mark(mark: Mark | None) -> dict[str, Any] | None:
    if mark is None:
        return None
    return {
        "grade": mark.grade,
        "ungradable": mark.grade is None,
        "note": mark.note,
        "time": mark.time,
        "shown": mark.shown,
    }
