"""`legradnet-crop`: the knees of whole films as squares, a table that training takes, and a sheet to look at."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from legradnet.claims import filled_whole
from legradnet.data.checks import COLUMNS, KNEE, SHOWN
from legradnet.data.depth import depth_kept
from legradnet.data.film import Film, ImageError
from legradnet.data.film_names import output_names
from legradnet.data.images import read_film
from legradnet.data.inputs import InputFilm, list_films, listed_table
from legradnet.data.remarks import by_kind
from legradnet.data.sides import find_side
from legradnet.files import write_text
from legradnet.localise.film_knees import FilmKnee, film_knees, none_of
from legradnet.localise.knees import SURE, Box, FoundKnee, find_knees, is_cut_close
from legradnet.localise.metal import PROSTHESIS, find_metal
from legradnet.localise.settings import CropSettings
from legradnet.localise.sheet import Sheet
from legradnet.localise.squares import write_square
from legradnet.settings import checked
from legradnet.tables import table_line

log = logging.getLogger(__name__)

_TABLE = "knees.csv"
_COLUMNS, _OWN = ("filename", "label", "patient", "side"), ("film", "box", "score", "remarks")
_LEFT_OUT = "left_out.csv"
_LEFT_COLUMNS = ("film", "knee", "label", "box", "score", "reason")
_TWICE = "listed twice"
_CLOSE = "the film was cut close already"


def crop(config: Mapping[str, Any] | CropSettings) -> bool:
    """Cut the knees out of the films of `input`, as `conf/crop.yaml` composes it.

    A knee's square is a PNG of 8 bits, or of 16 where its film has more than 8; beyond the film's edge it is black.
    What is found not to be a knee that can be graded is in `left_out.csv`, with the reason. Other columns of a CSV are
    those of its knees too.

    Returns:
        Whether every film could be read, and there is a knee.

    Raises:
        UserError: A mistake in the config or the list of films; a folder that is not empty or can't be written.
    """
    settings = checked(CropSettings, config)
    dataset_path = settings.data.dataset_path
    films = list_films(Path(settings.input), Path(dataset_path) if dataset_path else None)
    others = _other_columns(Path(settings.input), len(films))
    with filled_whole(Path(settings.output), last=_TABLE, durable=False) as folder:
        work = _Cropping(settings, folder, films, *others)
        work.cut()
        write_text(folder / _LEFT_OUT, "".join(work.left))
        write_text(folder / _TABLE, "".join(work.lines))
    work.tell(Path(settings.output))
    print(Path(settings.output) / _TABLE)
    return work.unread == 0 and work.count > 0


def _other_columns(source: Path, films: int) -> tuple[list[str], list[list[str]]]:
    """Names of the columns that nobody here knows, and their cells for each film."""
    table = listed_table(source)
    if table is None:
        return [], [[] for _ in range(films)]
    known = {*COLUMNS, *_OWN, KNEE, ""} - {"split"}
    names = [name for name in table.header if name not in known]
    columns = [table.column(name) for name in names]
    return names, [[column[row] for column in columns] for row in range(films)]


@dataclass
class _Cropping:
    """Films on their way to squares, and what became of them so far.

    Attributes:
        settings: As asked.
        folder: Where squares are written.
        films: As listed; one of a whole film may be for each knee.
        others: Names of the columns that are kept.
        cells: Of these, of each film.
        lines: Of the table.
        left: Lines of what is left out.
        reasons: Why, with names.
        unread: Films that can't be read.
        unread_rows: Rows that list them.
        unlabelled: Knees without a label.
    """

    settings: CropSettings
    folder: Path
    films: Sequence[InputFilm]
    others: list[str]
    cells: list[list[str]]
    lines: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    reasons: list[tuple[str, list[str]]] = field(default_factory=list)
    unread: int = 0
    unread_rows: int = 0
    unlabelled: int = 0

    @property
    def columns(self) -> list[str]:
        return [*_COLUMNS, *self.others, *_OWN]

    @property
    def count(self) -> int:
        """Knees that were cut."""
        return len(self.lines) - 1

    def cut(self) -> None:
        """Cut the knees of all films."""
        self.lines.append(table_line(self.columns))
        self.left.append(table_line(_LEFT_COLUMNS))
        rows: dict[str, list[int]] = {}
        for row, film in enumerate(self.films):
            rows.setdefault(film.filename, []).append(row)
        names = output_names([*rows], ("_L.png", "_R.png", ".png"))
        sheet = Sheet(self.folder)
        patients: dict[str, str] = {}  # by what DICOM files tell of them: the name of their first film
        progress = tqdm(rows.values(), unit="film", disable=not sys.stderr.isatty())
        for name, of_film in zip(names, progress, strict=True):
            film = self.films[of_film[0]]
            try:
                read = _read(film)
            except ImageError as error:
                self.unread += 1
                self.unread_rows += len(of_film)
                self._leave(of_film, str(error))
                continue
            patient = patients.setdefault(read.patient, film.filename) if read.patient else film.filename
            found = find_knees(read.gray)
            places: set[str] = set()
            seen: dict[str, FilmKnee] = {}
            for row in of_film:
                asked = [*_asked(self.films[row], self.settings, read, found)]
                if not asked:
                    self._leave([row], none_of(found, self.films[row].knee))
                for knee in asked:
                    seen[knee.side] = knee
                    place = f"knees/{name}_{knee.side}.png" if knee.side else f"knees/{name}.png"
                    if knee.left_out or place in places:
                        self._leave([row], knee.left_out or _TWICE, knee)
                    else:
                        places.add(place)
                        write_square(self.folder / place, read, knee.box, self.settings.image_size)
                        self._keep(row, knee, place, patient, read.remarks, is_only=len(asked) == 1)
            sheet.add(film.filename, read.gray, [*seen.values()])
        sheet.close()

    def _keep(
        self, row: int, knee: FilmKnee, place: str, patient: str, remarks: Sequence[str], *, is_only: bool
    ) -> None:
        film = self.films[row]
        label = film.label if film.knee or is_only else None
        self.unlabelled += label is None
        which = [place, label, film.patient or patient, knee.side]
        about = [film.filename, knee.box, f"{knee.score:.3f}", "; ".join([*remarks, *knee.remarks])]
        self.lines.append(table_line([*which, *self.cells[row], *about], self.columns))

    def _leave(self, rows: Sequence[int], reason: str, knee: FilmKnee | None = None) -> None:
        for row in rows:
            film = self.films[row]
            box, score = (knee.box, f"{knee.score:.3f}") if knee else (None, None)
            side = knee.side if knee else film.knee
            label = film.label if film.knee or knee is None else None
            self.left.append(table_line([film.filename, side, label, box, score, reason], _LEFT_COLUMNS))
            self.reasons.append((f"{film.filename} ({side})" if side else film.filename, [reason]))

    def tell(self, output: Path) -> None:
        """Say how many there are, and what was left out, in sentences."""
        films = len({film.filename for film in self.films})
        log.info("%d films: %d knees cut, %d left out (%s), %d films could not be read",
                 films, self.count, len(self.reasons) - self.unread_rows, _LEFT_OUT, self.unread)  # fmt: skip
        for said in by_kind(self.reasons):
            log.warning("%d left out, %s: %s", len(said.names), said.text, said.few(SHOWN))
        if not self.count:
            log.error("No knee was cut, so that there is nothing to train on: see %s", output / _LEFT_OUT)
        elif self.unlabelled:
            log.info("%d of %d knees have no label: fill in the column label of %s before they train",
                     self.unlabelled, self.count, output / _TABLE)  # fmt: skip


def _read(film: InputFilm) -> Film:
    if isinstance(film.film, ImageError):
        raise film.film
    try:
        with depth_kept():
            return read_film(film.film)
    except ImageError as error:
        raise ImageError(str(error).removeprefix(f"{film.film}: ")) from None


def _asked(film: InputFilm, settings: CropSettings, read: Film, found: Sequence[FoundKnee]) -> Iterator[FilmKnee]:
    """The knees of a film that its row is for; a replaced one is left out, and one that is cut close stays so."""
    side, _ = find_side(film.side or settings.side or "", read.side, Path(film.filename).name)
    if is_cut_close(read.gray):
        height, width = read.gray.shape
        whole = max(height, width)
        box = Box((width - whole) // 2, (height - whole) // 2, whole)
        yield FilmKnee(side or film.knee, box, max([SURE, *(knee.score for knee in found)]), "", (_CLOSE,))
        return
    for knee in film_knees(found, read.gray.shape, "" if film.knee and len(found) == 2 else side):
        if film.knee and knee.side not in (film.knee, ""):
            continue
        is_replaced = not knee.left_out and find_metal(knee.box.cut(read.gray)) == "prosthesis"
        yield knee._replace(side=knee.side or film.knee, left_out=PROSTHESIS if is_replaced else knee.left_out)
