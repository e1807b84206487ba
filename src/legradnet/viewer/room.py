"""All of a reading: films, readers, marks, grading, and what of it each may be told."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from legradnet.data.film import ImageError
from legradnet.data.images import patient_in
from legradnet.data.inputs import InputFilm
from legradnet.data.sides import Side, side_from_name
from legradnet.errors import UserError
from legradnet.localise.film_knees import film_knees
from legradnet.localise.knees import find_knees, is_cut_close
from legradnet.viewer.background import BackgroundGrading
from legradnet.viewer.entry import Entry
from legradnet.viewer.events import Events
from legradnet.viewer.journal import Journal, Mark
from legradnet.viewer.kept import Kept
from legradnet.viewer.labels import Tables, tables
from legradnet.viewer.maps import Maps
from legradnet.viewer.order import listed
from legradnet.viewer.pictures import Pictures
from legradnet.viewer.sight import Sight
from legradnet.viewer.uploads import UPLOAD_LIMIT, Uploads
from legradnet.viewer.worklist import Row, Worklist, digest_of, new_row

NOTICE = "Research use only, not a medical device."
_BYTES_A_ROW = 8
_SAID = ("grade", "probabilities", "prediction_set", "referred")  # of the model, noted with each mark


class NotYetError(UserError):
    """What is asked for can't be done before the film was graded."""


@dataclass(frozen=True)
class Model:
    """What is known of the model before it is loaded.

    Attributes:
        name: As the page calls it.
        classes: Grades K.
        backbones: Their keys, [] where nobody knows yet.
    """

    name: str
    classes: int
    backbones: tuple[str, ...] = ()


class ReadingRoom:
    """A reading. Its methods may be called from any thread.

    Args:
        worklist: The films.
        journal: The marks.
        grading: What grades films that wait.
        uploads: Where dropped films go.
        entry: Who may enter.
        readers: Their names.
        model: What is known of it.
        blind: Whether this is a blind study.
        seed: Of a blind study's order, and of the bootstrap.
        side: Of films without a side of their own.
    """

    def __init__(
        self,
        worklist: Worklist,
        journal: Journal,
        grading: BackgroundGrading,
        uploads: Uploads,
        entry: Entry,
        *,
        readers: Sequence[str],
        model: Model,
        blind: bool = False,
        seed: int = 0,
        side: Side = "",
    ) -> None:
        self.worklist, self.journal, self.grading, self.uploads, self.entry = worklist, journal, grading, uploads, entry
        self.model, self.blind, self.seed, self.side = model, blind, seed, side
        before = sorted(journal.readers - set(readers))
        self.readers = (*readers, *before)  # who has read before counts too
        self.events = Events(self.progress)
        self.pictures = Pictures(worklist)
        self.maps = Maps(lambda: grading.grader)
        self.sights = {
            name: Sight(name, tuple(o for o in self.readers if o != name), worklist, journal, blind) for name in readers
        }
        self._orders: Kept[tuple[tuple[int, int], list[Row]]] = Kept(16 * 2**20)
        self._ordering = threading.Lock()
        self._counting = threading.Lock()
        self._adding = threading.Lock()
        self._summaries: dict[str, tuple[tuple[int, int], dict[str, Any]]] = {}
        self._is_given = not all(self._is_dropped(row) for row in worklist.rows)
        worklist.changed = self.events.tell  # which is made of the list, and tells of it

    def progress(self) -> dict[str, Any]:
        """Data of the event `progress`."""
        return {
            "finished": self.worklist.finished,
            "total": len(self.worklist.rows),
            "graded": self.worklist.graded,
            "failed": self.worklist.failed,
            "state": self.grading.state,
            "error": self.grading.error,
            "ready": self.grading.grader is not None,
            "revision": sum(self._revisions()),
        }

    @property
    def classes(self) -> int:
        """Grades K."""
        return self.model.classes if self.grading.grader is None else self.grading.grader.classes

    def session(self, reader: str) -> dict[str, Any]:
        """What a page has to know first."""
        grader = self.grading.grader
        methods, no_maps = self.maps.about()
        coverage = None if grader is None else grader.networks[0].calibration.coverage
        weighs = grader is None or bool(grader.weighed)
        progress = self.progress()
        del progress["revision"]
        return {
            "reader": reader,
            "readers": list(self.readers),
            "study": "blind" if self.blind else None,
            "model": self.model.name,
            "version": _version(),
            "classes": list(range(self.classes)),
            "words": {
                "notice": NOTICE,
                "weights": "" if weighs else "The gate of this model gives no weights.",
                "maps": self.grading.error or no_maps,
                "adding": self.no_more_films(),
            },
            "methods": methods,
            "backbones": list(self.model.backbones if grader is None else grader.backbones),
            "coverage": coverage,
            "upload_limit": UPLOAD_LIMIT,
            **progress,
        }

    def kept_order(self, reader: str, asked: Mapping[str, str]) -> list[Row] | None:
        """What `order` gives, if it is known already."""
        kept = self._orders.get((reader, *sorted(asked.items())))
        return kept[1] if kept is not None and kept[0] == self._revisions() else None

    def order(self, reader: str, asked: Mapping[str, str]) -> list[Row]:
        """The rows that a reader asks for, by `sort`, `order` and filters.

        Raises:
            AskedError: There is no such order or filter, or not for this reader.
        """
        with self._ordering:  # who asks for the same meanwhile has it then
            rows = self.kept_order(reader, asked)
            if rows is None:
                revisions = self._revisions()
                rows = listed(self.sights[reader], asked, seed=self.seed)
                kept = revisions, rows
                self._orders.put((reader, *sorted(asked.items())), kept, _BYTES_A_ROW * len(rows) + 500)
            return rows

    def part(self, reader: str, rows: Sequence[Row], offset: int, limit: int) -> dict[str, Any]:
        """A part of the list."""
        brief = self.sights[reader].brief
        return {
            "total": len(rows),
            "offset": offset,
            "revision": sum(self._revisions()),
            "items": [brief(row) for row in rows[offset : offset + limit]],
        }

    def _revisions(self) -> tuple[int, int]:
        return self.worklist.revision, self.journal.revision

    def mark(self, reader: str, row: Row, grade: int | None, note: str, seconds: float, shown: bool) -> Mark:
        """Store a mark; when this is over it is safe on disk.

        Raises:
            ImageError: The film can't be read.
            NotYetError: It isn't known which knees its film shows.
            NotWrittenError: It can't be stored.
        """
        self.pictures.digest(row)
        self._check_knee(row)
        sight = self.sights[reader]
        told = {} if row.record is None or row.grade is None else row.record
        model: dict[str, Any] = {
            name: told[name] for name in ("grade", "probabilities", "prediction_set", "referred") if name in told
        }
        shown = sight.was_shown(row) if self.blind else shown and bool(model)
        mark = self.journal.mark(
            reader, row.key, row.film.filename, grade, note=note, seconds=seconds, model=model, shown=shown
        )
        self.events.tell(row.id, only=reader if self.blind else None)
        return mark

    def _check_knee(self, row: Row) -> None:
        """Raise `NotYetError` where a mark would be of a whole film whose knees have no rows yet."""
        if row.record is not None or self.grading.kind == "crop" or row.film.knee:
            return
        gray = self.pictures.gray(row)
        if self.grading.kind == "auto" and is_cut_close(gray):
            return
        if any(knee.side for knee in film_knees(find_knees(gray), gray.shape, row.side)):
            raise NotYetError("Not now: this film has a row for each of its knees when the model has looked at it.")

    def undo(self, reader: str) -> Row | None:
        """Take back a reader's last mark; gives its row, None where there is none."""
        rows = {row.key: row for row in self.worklist.rows if row.digest}
        mark = self.journal.undo(reader, rows)
        if mark is None:
            return None
        row = rows[mark.key]
        self.events.tell(row.id, only=reader if self.blind else None)
        return row

    def summary(self, reader: str) -> dict[str, Any]:
        """Numbers of the reading, as this reader may know them."""
        from legradnet.viewer.study import summary  # late: slow to import, and the first film waits for nothing

        revisions = self._revisions()
        with self._counting:
            if reader not in self._summaries or self._summaries[reader][0] != revisions:
                numbers = summary(
                    list(self.worklist.rows),
                    self.journal,
                    reader,
                    self.readers,
                    classes=self.classes,
                    blind=self.blind,
                    seed=self.seed,
                )
                self._summaries[reader] = revisions, numbers
            return self._summaries[reader][1]

    def may_export(self, reader: str, of: str | None) -> bool:
        """Whether a reader may have the marks of another, or with None of all."""
        if not self.blind or of == reader or self.readers == (reader,):
            return True
        sight = self.sights[reader]
        return all(sight.mark(row) is not None for row in list(self.worklist.rows) if row.status != "error")

    def export(self, of: str | None) -> Tables:
        """The marks of a reader, or of all, as tables."""
        return tables(list(self.worklist.rows), self.journal, self.readers if of is None else [of])

    def no_more_films(self) -> str:
        """Why no film is taken, or "": in a blind study a copy of one would tell the answer that is held back."""
        if self.blind and self._is_given:
            return "A blind study has the films that it began with, and no more are taken."
        if self.blind and self.journal.revision:
            return "In a blind study no more films are taken when one has been marked."
        return ""

    def take(self, part: Path, name: str) -> tuple[Row, bool]:
        """Put a film that was dropped into the list; gives its row, and whether it is new."""
        with self._adding:
            digest = digest_of(part)
            if (known := next((row for row in self.worklist.rows if row.digest == digest), None)) is not None:
                return known, False
            taken = {row.film.filename for row in self.worklist.rows}
            path, name = self.uploads.keep(part, name, taken)
            row = new_row(InputFilm(name, path), self.side or side_from_name(name), digest=digest)
            self.worklist.add([row])
        self.grading.add([row])
        self._find_patient(row)
        return row, True

    def recall(self) -> None:
        """Find the films that were marked before, and those of one patient, by what their files tell; may take long."""
        for row in list(self.worklist.rows):
            self._find_patient(row)
            if not row.digest and (self._is_dropped(row) or row.film.filename in self.journal.names):
                try:
                    self.pictures.digest(row)
                except ImageError:
                    continue
                self.worklist.touch(row.id)

    def _is_dropped(self, row: Row) -> bool:
        return isinstance(row.film.film, Path) and row.film.film.parent == self.uploads.folder

    def _find_patient(self, row: Row) -> None:
        if row.is_patient_told or not isinstance(row.film.film, Path):
            return
        with suppress(ImageError):
            self.worklist.group(row, patient_in(row.film.film))


def _version() -> str:
    try:
        return version("legradnet")
    except PackageNotFoundError:
        return ""
