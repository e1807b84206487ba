"""`legradnet-crop`: the knees of whole films as squares, a table that training takes, and a sheet to look at."""

import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from legradnet.claims import filled_whole
from legradnet.data.film import MIN_SIDE, Film, Gray, ImageError
from legradnet.data.film_names import output_names
from legradnet.data.images import read_film
from legradnet.data.inputs import InputFilm, list_films
from legradnet.data.sides import find_side
from legradnet.files import make_folder, write_text
from legradnet.localise.film_knees import NO_KNEE, FilmKnee, film_knees
from legradnet.localise.knees import Box, find_knees
from legradnet.localise.settings import CropSettings
from legradnet.settings import checked
from legradnet.tables import table_line

log = logging.getLogger(__name__)

_TABLE = "knees.csv"
_COLUMNS = ("filename", "label", "patient", "side", "film", "box", "score", "remarks")
_LEFT_OUT = "left_out.csv"
_LEFT_COLUMNS = ("film", "knee", "box", "score", "reason")
_CELL, _ACROSS, _DOWN = 240, 6, 6  # pixels of a film on a sheet, films on it
_CUT, _NOT_CUT = (90, 220, 90), (255, 150, 40)


def crop(config: Mapping[str, Any] | CropSettings) -> bool:
    """Cut the knees out of the films of `input`, as `conf/crop.yaml` composes it.

    A knee's square is an 8-bit PNG, as films are read; beyond the film's edge it is black. What is found not to be a
    knee that can be graded is in `left_out.csv`, with the reason.

    Returns:
        Whether every film could be read.

    Raises:
        UserError: A mistake in the config or the list of films; a folder that is not empty or can't be written.
    """
    settings = checked(CropSettings, config)
    dataset_path = settings.data.dataset_path
    films = list_films(Path(settings.input), Path(dataset_path) if dataset_path else None)
    names = _names(films)
    cut = unread = 0
    lines, left = [table_line(_COLUMNS)], [table_line(_LEFT_COLUMNS)]
    with filled_whole(Path(settings.output), last=_TABLE, durable=False) as folder:
        sheet = _Sheet(folder)
        for film, name in zip(tqdm(films, unit="film", disable=not sys.stderr.isatty()), names, strict=True):
            try:
                read = _read(film)
            except ImageError as error:
                unread += 1
                left.append(table_line([film.filename, film.knee, "", "", str(error)], _LEFT_COLUMNS))
                continue
            knees = list(_asked(film, settings, read))
            sheet.add(film.filename, read.gray, knees)
            if not knees:
                left.append(table_line([film.filename, film.knee, "", "", NO_KNEE], _LEFT_COLUMNS))
            for knee in knees:
                score = f"{knee.score:.3f}"
                if knee.left_out:
                    left.append(table_line([film.filename, knee.side, knee.box, score, knee.left_out], _LEFT_COLUMNS))
                    continue
                place = f"{name}_{knee.side}.png" if knee.side else f"{name}.png"
                _save(knee.box, read.gray, settings.image_size, folder / "knees" / place)
                label = film.label if film.knee or len(knees) == 1 else None
                said = "; ".join([*read.remarks, *knee.remarks])
                patient = film.patient or film.filename
                cells = [f"knees/{place}", label, patient, knee.side, film.filename, knee.box, score, said]
                lines.append(table_line(cells, _COLUMNS))
                cut += 1
        sheet.close()
        write_text(folder / _LEFT_OUT, "".join(left))
        write_text(folder / _TABLE, "".join(lines))
    log.info("%d films: %d knees cut, %d left out (%s), %d films could not be read",
             len(films), cut, len(left) - 1 - unread, _LEFT_OUT, unread)  # fmt: skip
    print(Path(settings.output) / _TABLE)
    return unread == 0


def _names(films: Sequence[InputFilm]) -> list[str]:
    """Of the squares of each film, without side and ending; films that are listed twice, a knee a row, share theirs."""
    listed = list(dict.fromkeys(film.filename for film in films))
    names = dict(zip(listed, output_names(listed, ("_L.png", "_R.png", ".png")), strict=True))
    return [names[film.filename] for film in films]


def _read(film: InputFilm) -> Film:
    if isinstance(film.film, ImageError):
        raise film.film
    return read_film(film.film)


def _asked(film: InputFilm, settings: CropSettings, read: Film) -> Iterator[FilmKnee]:
    side, _ = find_side(film.side or settings.side or "", read.side, Path(film.filename).name)
    for knee in film_knees(find_knees(read.gray), read.gray.shape, side):
        if not film.knee or knee.side in (film.knee, ""):
            yield knee._replace(side=knee.side or film.knee)


def _save(box: Box, gray: Gray, size: int | None, path: Path) -> None:
    make_folder(path.parent, mode=0o700)
    square = Image.fromarray(box.cut(gray))
    if size or box.side < MIN_SIDE:
        square = square.resize((size or MIN_SIDE,) * 2, Image.Resampling.BILINEAR, reducing_gap=2.0)
    square.save(path)


class _Sheet:
    """Films with their squares, `sheet_1.png` and so on, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._films: list[Image.Image] = []
        self._pages = 0

    def add(self, name: str, gray: Gray, knees: Sequence[FilmKnee]) -> None:
        """Draw a film [H, W]; squares that are not cut are orange."""
        scale = _CELL / max(gray.shape)
        size = max(1, round(gray.shape[1] * scale)), max(1, round(gray.shape[0] * scale))
        film = Image.fromarray(gray).resize(size, Image.Resampling.BOX, reducing_gap=2.0).convert("RGB")
        cell = Image.new("RGB", (_CELL, _CELL), (40, 40, 60))
        cell.paste(film)
        pen = ImageDraw.Draw(cell)
        for knee in knees:
            corners = np.array([knee.box.x, knee.box.y, knee.box.x + knee.box.side, knee.box.y + knee.box.side]) * scale
            pen.rectangle(corners.tolist(), outline=_NOT_CUT if knee.left_out else _CUT, width=2)
            told = f"{knee.side or '?'} {knee.score:.2f}"
            pen.text((corners[0] + 4, corners[1] + 3), told, fill=(255, 255, 0))
        pen.text((3, _CELL - 14), name[-38:].encode("ascii", "replace").decode(), fill=(255, 255, 0))
        self._films.append(cell)
        if len(self._films) == _ACROSS * _DOWN:
            self.close()

    def close(self) -> None:
        """Write what is drawn."""
        if not self._films:
            return
        self._pages += 1
        rows = -(-len(self._films) // _ACROSS)
        page = Image.new("RGB", (_ACROSS * _CELL, rows * _CELL), (40, 40, 60))
        for number, cell in enumerate(self._films):
            page.paste(cell, (number % _ACROSS * _CELL, number // _ACROSS * _CELL))
        page.save(self._folder / f"sheet_{self._pages}.png")
        self._films = []
