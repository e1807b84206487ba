"""Heat maps for the page: made when they are asked for, one at a time."""

import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from legradnet.data.film import ImageError
from legradnet.data.images import read_film
from legradnet.data.sides import Side
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Knee
from legradnet.grading.preparing import prepare_film
from legradnet.localise.knees import Box
from legradnet.viewer.kept import Kept
from legradnet.viewer.pictures import path_of
from legradnet.viewer.worklist import Row

if TYPE_CHECKING:
    from legradnet.explain.film import FilmExplanation

_SIDES: dict[str, Side] = {"L": "L", "R": "R"}
_LONGEST = 512  # pixels of a side
_FAINTEST = 2.0  # as in the pictures of `legradnet-explain`: the scale reaches at least twice an even spread


class NotReadyError(UserError):
    """The model isn't loaded."""


@dataclass(frozen=True)
class HeatMap:
    """One map.

    Attributes:
        png: 8-bit gray, of the film's aspect.
        scale: What 255 stands for, times an even spread; the same for all maps of a film by one method.
        share: Of the backbone in the fused map, 0-1.
    """

    png: bytes
    scale: float
    share: float


class Maps:
    """Makes and keeps heat maps.

    Args:
        grader: Gives the grader, None as long as it isn't loaded.
    """

    def __init__(self, grader: Callable[[], Grader | None]) -> None:
        self._grader = grader
        self._one = threading.Lock()
        self._kept: Kept[dict[str, HeatMap]] = Kept(64 * 2**20)

    def about(self) -> tuple[list[dict[str, Any]], str]:
        """The methods there are, each with `name` and `slow`; or why there are none."""
        grader = self._grader()
        if grader is None:
            return [], "The model is being loaded."
        from legradnet.explain.film import only_checkpoint  # late: torch is slow to import, and an export needs none
        from legradnet.explain.methods import METHODS

        try:
            only_checkpoint(grader.networks)
        except UserError as reason:
            return [], str(reason)
        return [{"name": name, "slow": method.slow} for name, method in METHODS.items()], ""

    def map(self, row: Row, method: str, backbone: str) -> HeatMap:
        """The map of a knee.

        Raises:
            NotReadyError: The model isn't loaded.
            ImageError: The film can't be read.
            UserError: Unknown method or backbone, or one that has no such map.
        """
        if (maps := self._kept.get((row.id, method))) is None:
            with self._one:
                if (maps := self._kept.get((row.id, method))) is None:
                    maps = self._make(row, method)
                    size = sum(len(heat.png) + 200 for heat in maps.values())
                    self._kept.put((row.id, method), maps, size)
        if backbone not in maps:
            raise UserError(f"{method} has no map of {backbone[:40]!r}: it has {', '.join(maps)}.")
        return maps[backbone]

    def _make(self, row: Row, method: str) -> dict[str, HeatMap]:
        grader = self._grader()
        if grader is None:
            raise NotReadyError("The model is not loaded yet: a heat map is there when it is.")
        path = path_of(row)
        try:
            if row.box is None:
                explained = grader.explain(path, row.side, method=method)
                part = np.s_[:, :]
            else:
                explained, part = _explain_square(grader, row, path, Box(*row.box), method)
        except ImageError as error:
            raise ImageError(str(error).removeprefix(f"{path}: ")) from None
        top = max(_FAINTEST, *(float(np.quantile(evidence[part], 0.995)) for evidence in explained.maps.values()))
        return {
            key: HeatMap(_png(evidence / top), top, explained.shares.get(key, 1.0))
            for key, evidence in explained.maps.items()
        }


def _explain_square(
    grader: Grader, row: Row, path: Path, box: Box, method: str
) -> tuple["FilmExplanation", tuple[slice, slice]]:
    """The maps of a knee on its whole film, and where on this its square is."""
    from legradnet.explain.film import explain_one, only_checkpoint  # late, as above

    film = read_film(path)
    if box.outside(film.gray.shape) >= 1 or box.side > 2 * max(film.gray.shape):
        raise UserError("There is no heat map: the square of this knee is not on its film.")
    cut = replace(film, gray=box.cut(film.gray))
    prepared = prepare_film(grader.networks, cut, _SIDES.get(row.knee, row.side), ())
    prepared = prepared._replace(knee=Knee(prepared.side, box), whole=film)
    network = only_checkpoint(grader.networks)
    explained = explain_one(network, prepared, grader.grade_prepared, method=method, target="predicted")
    return explained, np.s_[max(0, box.y) : box.y + box.side, max(0, box.x) : box.x + box.side]


def _png(strength: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    gray = Image.fromarray(np.rint(strength.clip(0, 1) * 255).astype(np.uint8))
    gray.thumbnail((_LONGEST, _LONGEST), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    gray.save(file, "PNG", compress_level=3)
    return file.getvalue()
