"""Where the knees are in a film of any size: a search from coarse to fine, and the square that cuts each close."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from legradnet.data.film import Gray
from legradnet.localise.detector import WINDOW, Seen, see
from legradnet.localise.second_look import SecondLook, Square, look_closer, look_exactly

SURE = 0.55  # score from which a square is a knee, chosen on composites and on the whole films of a few hospitals
LIKELY = 0.75  # below which a grade is referred to a reader: some feet and side views reach it
CERTAIN = 0.9  # and from which it needs no second opinion
MAYBE = 0.2  # and from which it may be one
MOST_OUTSIDE = 0.12  # share of a square that the film's edge may cut off

_SMALLEST = 0.08  # side of a knee cut close, share of the film's width
_CLOSE = 0.7  # a knee that fills more of the film's longer side is cut close
_STEP = 1.25  # from one size of the picture to the next
_MOST_PIXELS = 1_000_000  # of the largest picture that is looked at
_LEAST_LOGIT = -3.0  # of a first look, from which there is a second one
_CANDIDATES = 8
_AROUND = 1.1  # sides around a square's middle that are looked at for its final place
_APART = 0.6  # sides between the middles of two knees, at least
_OTHER_LEG = 1.1, 1.5, 1.9, 2.3  # sides from one leg's knee, where the other's may be
_UNSEEN = -1.5  # logit of the first look there
_BIAS, _FIRST, _SECOND, _SPREAD = -0.15, 0.7, 0.9, 150.0  # what both looks weigh in a score
_WORTH_KEEPING = 0.04  # score of what may be the other leg's
_SMALL, _SMALL_SCORE = (
    0.18,
    0.96,
)  # of the film's shorter side, and the score below which so little is no knee: vertebrae
_LOWER = (
    0.04  # sides: squares lie lower than the crops that were learned from, where readers put the joint in the middle
)
_ALIKE = 1.45  # the larger of two knees by the smaller, at most
_EDGE = 0.5 * MOST_OUTSIDE  # share of a square off the film from which not all of the knee can be seen
_NEARLY = 1.12  # and up to which both are taken to be as large as each other
_PAIR, _PAIR_LOGIT = 1.2, 2.5  # and up to which a sure knee speaks for what lies beside it, and how much


_Pixel = TypeVar("_Pixel", np.uint8, np.uint16)


class Box(NamedTuple):
    """A square on a film, pixels: top left corner and side. It may reach over the film's edge."""

    x: int
    y: int
    side: int

    def __str__(self) -> str:
        return " ".join(map(str, self))

    def outside(self, shape: tuple[int, ...]) -> float:
        """Share of the square that is off a film [H, W]."""
        width = min(self.x + self.side, shape[1]) - max(self.x, 0)
        height = min(self.y + self.side, shape[0]) - max(self.y, 0)
        return 1 - max(width, 0) * max(height, 0) / self.side**2

    def cut(self, gray: npt.NDArray[_Pixel]) -> npt.NDArray[_Pixel]:
        """The square [side, side] of a film [H, W]; black beyond its edge."""
        cut = np.zeros((self.side, self.side), gray.dtype)
        top, left = max(self.y, 0), max(self.x, 0)
        inner = gray[top : max(self.y + self.side, 0), left : max(self.x + self.side, 0)]
        cut[top - self.y : top - self.y + inner.shape[0], left - self.x : left - self.x + inner.shape[1]] = inner
        return cut


class FoundKnee(NamedTuple):
    """What may be a knee.

    Attributes:
        x: Middle of its square, pixels of the film.
        y: Same downwards.
        side: Of the square that cuts it as networks learned it, pixels.
        score: How sure it is that there is a knee, seen from the front, 0-1; see `SURE`.
    """

    x: float
    y: float
    side: float
    score: float

    @property
    def box(self) -> Box:
        """The square in whole pixels."""
        side = max(1, round(self.side))
        return Box(round(self.x - side / 2), round(self.y - side / 2), side)


def find_knees(gray: Gray) -> tuple[FoundKnee, ...]:
    """Find at most two knees with a score of at least `MAYBE` in a film [H, W], that at the left first.

    A knee is sought whose square has 8 % of the film's width or more, on a small picture of the film; where the film as
    it is shows none that is certain, also with black and white exchanged.
    """
    picture, scale = _picture(gray)
    seen = picture
    best = _search(picture)
    if not any(knee.score >= CERTAIN for knee in best):
        exchanged = _search(255 - picture)
        if _best_score(exchanged) > _best_score(best):
            seen, best = 255 - picture, exchanged
    knees = _alike([_exact(seen, knee) for knee in sorted(best, key=lambda knee: knee.x)], picture.shape)
    return tuple(
        FoundKnee(knee.x / scale, (knee.y + _LOWER * knee.side) / scale, knee.side / scale, knee.score)
        for knee in knees
    )


def _alike(knees: Sequence[FoundKnee], shape: tuple[int, ...]) -> Sequence[FoundKnee]:
    """Two knees of one patient, in one film, as large as each other, if they can be seen whole and nearly are."""
    if len(knees) < 2 or any(knee.box.outside(shape) > _EDGE for knee in knees):
        return knees
    left, right = (knee.side for knee in knees)
    if max(left, right) > _NEARLY * min(left, right):
        return knees
    return [knee._replace(side=float(np.sqrt(left * right))) for knee in knees]


def _best_score(knees: Sequence[FoundKnee]) -> float:
    return max((knee.score for knee in knees), default=0.0)


def _exact(picture: Gray, knee: FoundKnee) -> FoundKnee:
    if knee.box.outside(picture.shape) > _EDGE:  # only the inside of films was learned from
        return knee
    x, y, side = look_exactly(picture, Square(*knee[:3]))
    return FoundKnee(x, y, side, knee.score)


def is_cut_close(gray: Gray) -> bool:
    """Whether a film [H, W] is surely one knee cut close: a quick look at it as a whole."""
    longer = max(gray.shape)
    if longer > 2 * min(gray.shape):
        return False
    picture = _resized(gray, min(1.0, 2 * WINDOW / longer))
    scales = [WINDOW / share / max(picture.shape) for share in (0.8, 1.0)]
    candidates = _candidates([(see(_resized(picture, scale)), scale) for scale in scales], 2, -2.5)
    return any(knee.score >= SURE and fills(knee, picture) for knee in _looked_into(picture, candidates))


def fills(knee: FoundKnee, gray: Gray) -> bool:
    """Whether a knee fills so much of its film that this is cut close."""
    return knee.side >= _CLOSE * max(gray.shape)


def _picture(gray: Gray) -> tuple[Gray, float]:
    """The film in the size in which its smallest knee is as large as the detector wants it, and by what it shrank."""
    scale = min(1.0, 1.6 * WINDOW / (_SMALLEST * gray.shape[1]), float(np.sqrt(_MOST_PIXELS / gray.size)))
    return _resized(gray, scale), scale


def _resized(gray: Gray, scale: float) -> Gray:
    if scale == 1:
        return gray
    height, width = (max(8, round(side * scale)) for side in gray.shape)
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(gray).resize((width, height), how, reducing_gap=3.0))


def _search(picture: Gray) -> list[FoundKnee]:
    knees = _plausible(_apart(_looked_at_again(picture, _candidates(_levels(picture), _CANDIDATES, _LEAST_LOGIT))))
    if len(knees) == 1 and (others := _looked_at_again(picture, _beside(knees[0], picture.shape[1]))):
        knees = _plausible([knees[0], *_apart(others)])
    return [knee for knee in knees if knee.score >= MAYBE]


def _looked_at_again(picture: Gray, candidates: Iterable[FoundKnee]) -> list[FoundKnee]:
    """What a second look leaves of candidates whose score is a logit, the best first."""
    knees = []
    for candidate in candidates:
        look = look_closer(picture, Square(*candidate[:3]))
        score = _score(candidate.score, look)
        if score >= (_WORTH_KEEPING if look.square.side >= _SMALL * min(picture.shape) else _SMALL_SCORE):
            knees.append(FoundKnee(*look.square, score))
    return sorted(knees, key=lambda knee: -knee.score)


def _beside(knee: FoundKnee, width: int) -> Iterator[FoundKnee]:
    """Where the other leg's knee may be that no first look saw."""
    for sides in _OTHER_LEG:
        for x in (knee.x - sides * knee.side, knee.x + sides * knee.side):
            if 0 < x < width:
                yield knee._replace(x=x, score=_UNSEEN)


def _score(logit: float, look: SecondLook) -> float:
    sure = _BIAS + _FIRST * np.clip(logit, -3, 3) + _SECOND * np.clip(look.logit, -8, 8) - _SPREAD * look.spread
    return float(1 / (1 + np.exp(-sure)))


def _levels(picture: Gray) -> Iterator[tuple[Seen, float]]:
    """What is seen in the picture in each size, and the size as a share."""
    smallest = max(_SMALLEST * picture.shape[1], WINDOW / 1.3)
    scale = WINDOW / smallest
    while scale * max(picture.shape) >= 0.9 * WINDOW:
        yield see(_resized(picture, scale)), scale
        scale /= _STEP


def _candidates(levels: Iterable[tuple[Seen, float]], most: int, least: float) -> list[FoundKnee]:
    """The likeliest places, each once, in pixels of the picture."""
    found = []
    for seen, scale in levels:
        chosen = seen.logit >= least
        rows = (seen.x[chosen] / scale, seen.y[chosen] / scale, seen.side[chosen] / scale, seen.logit[chosen])
        found += [FoundKnee(*map(float, row)) for row in zip(*rows, strict=True)]
    return _apart(found)[:most]


def _apart(found: Sequence[FoundKnee]) -> list[FoundKnee]:
    """The best of those that are near each other, the best first."""
    kept: list[FoundKnee] = []
    for knee in sorted(found, key=lambda knee: -knee.score):
        if all(np.hypot(knee.x - k.x, knee.y - k.y) > _APART * max(knee.side, k.side) for k in kept):
            kept.append(knee)
    return kept


def _looked_into(picture: Gray, candidates: Sequence[FoundKnee]) -> list[FoundKnee]:
    """Each candidate once more, in the size that it wants, twice: its final place, size and score."""
    knees = []
    for knee in candidates:
        for _ in range(2):
            knee = _refined(picture, knee)
        knees.append(knee)
    return _apart([knee for knee in knees if knee.score >= MAYBE])


def _refined(picture: Gray, knee: FoundKnee) -> FoundKnee:
    around = _AROUND * knee.side
    left, top = max(0.0, knee.x - around), max(0.0, knee.y - around)
    right, bottom = min(picture.shape[1], knee.x + around), min(picture.shape[0], knee.y + around)
    if right - left < 8 or bottom - top < 8:
        return knee._replace(score=0.0)
    scale = WINDOW / knee.side
    size = max(8, round((right - left) * scale)), max(8, round((bottom - top) * scale))
    part = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
    small = np.array(part)
    answers = []
    for is_mirrored in (False, True):
        seen = see(small[:, ::-1] if is_mirrored else small)
        x = small.shape[1] - seen.x if is_mirrored else seen.x
        middle = np.hypot(x - (knee.x - left) * scale, seen.y - (knee.y - top) * scale) <= WINDOW / 4
        if not middle.any():
            return knee._replace(score=0.0)
        best = float(seen.logit[middle].max())
        weights = np.where(middle, np.exp(np.clip(seen.logit - best, -30, 0)), 0)
        answers.append([float((weights * values).sum() / weights.sum()) for values in (x, seen.y, seen.side)] + [best])
    x, y, side, logit = np.mean(answers, axis=0).tolist()
    return FoundKnee(left + x / scale, top + y / scale, side / scale, float(1 / (1 + np.exp(-logit))))


def _plausible(knees: Sequence[FoundKnee]) -> list[FoundKnee]:
    """The best knee, and the next that can be the other leg's: as large, at its height, beside it."""
    if not knees:
        return []
    first = knees[0]
    others = (
        knee
        for knee in knees[1:]
        if max(knee.side, first.side) <= _ALIKE * min(knee.side, first.side)
        and abs(knee.y - first.y) <= first.side
        and abs(knee.x - first.x) >= abs(knee.y - first.y)
    )
    second = next(others, None)
    if second is None:
        return [first]
    if first.score >= SURE and max(second.side, first.side) <= _PAIR * min(second.side, first.side):
        odds = second.score / max(1 - second.score, 1e-6) * np.exp(_PAIR_LOGIT)
        second = second._replace(score=max(second.score, min(first.score, float(odds / (1 + odds)))))
    return [first, second]
