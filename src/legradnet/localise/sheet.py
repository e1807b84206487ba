"""Sheets of small films with the squares of their knees, to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from legradnet.data.film import Gray
from legradnet.localise.film_knees import FilmKnee

_CELL, _ACROSS, _DOWN = 240, 6, 6  # pixels of a film on a sheet, films on it
_CUT, _NOT_CUT = (90, 220, 90), (255, 150, 40)


class Sheet:
    """Films with their squares, `sheet_1.png` and so on, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._films: list[Image.Image] = []
        self._pages = 0

    def add(self, name: str, gray: Gray, knees: Sequence[FilmKnee]) -> None:
        """Draw a film [H, W]; squares that are left out are orange."""
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
