"""Films made of knees cut close: each crop becomes the knee of a leg whose shafts and soft parts go on from its edges.

What goes on is the crop's own border, narrowed like a shaft, so that no seam tells where the crop ends. Around it lie
what films have: other things than knees, markers, rulers, balls, metal, collimation. Where the knees are is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

from legradnet.data.film import Gray

_Layer = npt.NDArray[np.float32]


class Place(NamedTuple):
    """Where a crop lies on a composite: centre and side in pixels, and its turn in degrees."""

    x: float
    y: float
    side: float
    turn: float = 0.0


@dataclass(frozen=True)
class Composite:
    """A made-up film and the squares of its knees, each of which a crop was laid on."""

    gray: Gray
    knees: tuple[Place, ...]


def compose(
    crops: Sequence[Gray],
    places: Sequence[Place],
    shape: tuple[int, int],
    rng: np.random.Generator,
    *,
    replaced: float = 0.0,
    exposed: bool = True,
) -> Gray:
    """A film [H, W] of one leg a crop, each crop [S, S] lying at its place.

    Args:
        crops: Knees cut close.
        places: One for each.
        shape: Of the film.
        rng: Source of all that is not given.
        replaced: Chance that a knee is drawn over with a prosthesis.
        exposed: Whether exposure, blur and noise are drawn, which may hide a grade; else those of the crops stay.
    """
    film = _ground(shape, rng)
    for crop, place in zip(crops, places, strict=True):
        if rng.random() < replaced:
            crop = with_prosthesis(crop, rng)
        room = min((abs(place.x - other.x) / 2 / place.side for other in places if other is not place), default=2.0)
        leg, cover = _leg(crop, place, shape, rng, max(room, 0.5))
        film = film * (1 - cover) + leg * cover
    film = _with_things(film, places, rng)
    return _exposed(film, rng) if exposed else np.asarray(np.clip(np.rint(film), 0, 255), np.uint8)


def distracting(crop: Gray, shape: tuple[int, int], rng: np.random.Generator) -> Gray:
    """A film [H, W] without a knee: shafts, ribs, fingers, ellipses; or a knee as no film from the front has it."""
    film = _ground(shape, rng)
    kind = rng.integers(8)
    side = float(np.exp(rng.uniform(np.log(0.3), np.log(1.2)))) * min(shape)
    place = Place(rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), side, rng.uniform(-15, 15))
    half = slice(0, len(crop) // 2) if rng.random() < 0.5 else slice(len(crop) // 2, None)
    if kind < 5:
        odd = (
            lambda: np.repeat(crop[:1] if rng.random() < 0.5 else crop[-1:], len(crop), axis=0),  # a shaft
            lambda: np.rot90(crop, int(rng.integers(1, 4))),  # upside down, on its side
            lambda: _stretched(crop[:, half]),  # one condyle as wide as two, as from the side
            lambda: _stretched(crop[half]),  # one bone alone, as at a hip, an ankle, a shoulder
            lambda: _squeezed(crop, rng),  # far narrower or wider than a knee, as an ankle or a wrist
        )[kind]()
        leg, cover = _leg(np.ascontiguousarray(odd), place, shape, rng)
        film = film * (1 - cover) + leg * cover
    else:  # ribs, fingers, organs
        for _ in range(int(rng.integers(1, 4))):
            film = _strange(film, rng)
    return _exposed(_with_things(film, [], rng, largest=0.5), rng)


def _stretched(part: Gray) -> Gray:
    side = max(part.shape)
    return np.array(Image.fromarray(part).resize((side, side), Image.Resampling.BILINEAR))


def _squeezed(crop: Gray, rng: np.random.Generator) -> Gray:
    share = rng.uniform(0.4, 0.62)
    narrow, side = round(share * len(crop)), len(crop)
    if rng.random() < 0.5:  # as wide as before, of less height: the middle alone, stretched
        start = rng.integers(side - narrow + 1)
        return np.array(
            Image.fromarray(crop[:, start : start + narrow]).resize((side, side), Image.Resampling.BILINEAR)
        )
    inner = np.array(Image.fromarray(crop).resize((narrow, side), Image.Resampling.BILINEAR))
    before = (side - narrow) // 2
    return np.pad(inner, ((0, 0), (before, side - narrow - before)), mode="edge")


def with_prosthesis(crop: Gray, rng: np.random.Generator) -> Gray:
    """The knee of `crop` [S, S] with a femoral cap, a tray and a stem drawn over it, or those of one compartment."""
    size = len(crop)
    canvas = Image.new("L", (4 * size, 4 * size))
    pen = ImageDraw.Draw(canvas)
    middle = rng.uniform(0.47, 0.53)
    line = rng.uniform(0.54, 0.62)  # the joint's height
    width, cap, tray = rng.uniform(0.34, 0.42), rng.uniform(0.2, 0.42), rng.uniform(0.03, 0.06)
    low, high = (middle - width, middle + width) if rng.random() < 0.75 else (middle - width, middle - 0.06)
    gap = rng.uniform(0.015, 0.05)

    def shape(points: Sequence[tuple[float, float]]) -> None:
        pen.polygon([(4 * size * x, 4 * size * y) for x, y in points], fill=255)

    notch = (low + high) / 2, line - rng.uniform(0.06, 0.5) * cap
    shape(
        [
            *[(low + 0.03, line - cap), (low - 0.02, line - 0.12), (low, line - 0.05), (low + 0.07, line - gap)],
            notch,
            *[(high - 0.07, line - gap), (high, line - 0.05), (high + 0.02, line - 0.12), (high - 0.03, line - cap)],
        ]
    )
    shape([(low, line + gap), (high, line + gap), (high - 0.01, line + gap + tray), (low + 0.01, line + gap + tray)])
    stem, foot = rng.uniform(0.04, 0.09), rng.uniform(0.12, 0.4)
    centre = (low + high) / 2
    shape(
        [
            (centre - stem, line + gap),
            (centre + stem, line + gap),
            (centre + stem / 2, line + gap + foot),
            (centre - stem / 2, line + gap + foot),
        ]
    )
    metal = np.asarray(canvas.reduce(4), np.float32) / 255
    bright = rng.uniform(225, 255)
    return (
        np.asarray(crop * (1 - metal) * rng.uniform(0.5, 1) + bright * metal, np.float32).clip(0, 255).astype(np.uint8)
    )


def _leg(
    crop: Gray, place: Place, shape: tuple[int, int], rng: np.random.Generator, room: float = 2.0
) -> tuple[_Layer, _Layer]:
    """A leg, at most `room` sides wide to either side, and how much of the film it covers, both [H, W]."""
    size = int(np.clip(round(place.side), 8, len(crop)))
    small = np.asarray(Image.fromarray(crop).resize((size, size), Image.Resampling.BOX), np.float32)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    angle = np.deg2rad(place.turn)
    x, y = (columns + 0.5 - place.x) / place.side, (rows + 0.5 - place.y) / place.side
    u, v = np.cos(angle) * x + np.sin(angle) * y, -np.sin(angle) * x + np.cos(angle) * y  # 0 at the centre, 1 a side
    above, below = np.maximum(-0.5 - v, 0), np.maximum(v - 0.5, 0)
    lean = rng.uniform(-0.2, 0.2, 2)
    narrow = (
        1
        + rng.uniform(0.9, 1.8) * np.minimum(above, rng.uniform(0.5, 1.0))
        + rng.uniform(0.3, 1.2) * np.minimum(below, 0.8)
    )
    across = (u - lean[0] * above - lean[1] * below) * narrow
    inner_u = np.clip(across, -0.5, 0.5)
    beyond = np.abs(across) - np.abs(inner_u)
    depth = 0.02 + 0.03 * rng.random()
    inner_v = np.clip(v, -0.5 + depth * (above > 0), 0.5 - depth * (below > 0))
    # A border that goes on is smoothed more the farther it goes: no streaks.
    at = [(inner_v + 0.5) * size - 0.5, (inner_u + 0.5) * size - 0.5]
    sharp = map_coordinates(small, at, order=1, mode="nearest")
    along = map_coordinates(gaussian_filter1d(small, 0.06 * size, axis=0), at, order=1, mode="nearest")
    mix = np.clip(beyond * 12, 0, 1)
    leg = sharp * (1 - mix) + along * mix
    leg -= np.minimum(beyond, 1.0) * rng.uniform(10, 90)
    leg -= rng.uniform(-15, 25) * np.minimum(above + below, 1.0)
    bent = rng.uniform(-0.3, 0.3)
    left, right = np.minimum(rng.uniform(0.55, 1.1, 2), room)
    swell = 0.12 * (above - 0.3 * below)
    offset = u - lean[0] * above - lean[1] * below + 0.1 * bent * v
    soft = rng.uniform(0.01, 0.12)
    cover = 1 / (1 + np.exp(np.clip((np.abs(offset) - np.where(offset < 0, left, right) - swell) / soft, -30, 30)))
    if rng.random() < 0.5:  # the fibula goes on downwards, the patella upwards
        reach = np.clip(below * 8, 0, 1)
        bar = np.exp(-(((offset - rng.choice([-1, 1]) * rng.uniform(0.25, 0.4)) / rng.uniform(0.05, 0.09)) ** 4))
        leg += bar * reach * rng.uniform(10, 50)
    return leg.astype(np.float32), cover.astype(np.float32)


def _ground(shape: tuple[int, int], rng: np.random.Generator) -> _Layer:
    film = np.full(shape, rng.choice([rng.uniform(0, 30), rng.uniform(0, 110)]), np.float32)
    rows, columns = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    return np.asarray(film + rng.uniform(-20, 20) * rows + rng.uniform(-20, 20) * columns, np.float32)


def _strange(film: _Layer, rng: np.random.Generator) -> _Layer:
    height, width = film.shape
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    kind = rng.integers(4)
    side = min(film.shape)
    for number in range(int(rng.integers(2, 14))):
        x, y = rng.uniform(-0.2, 1.2) * width, rng.uniform(-0.2, 1.2) * height
        w, h = (rng.uniform(0.05, 0.7, 2) * side).tolist()
        bright = int(rng.integers(40, 255))
        if kind == 0:  # ribs
            y = (number + 0.5) / 10 * height
            pen.arc((-0.1 * width, y - h, 1.1 * width, y + h), 180, 360, fill=bright, width=max(1, round(0.04 * side)))
        elif kind == 1:  # fingers
            x = (number + 0.5) / 7 * width
            for joint in np.arange(0, 1, 0.22):
                pen.rounded_rectangle(
                    (x, height * joint, x + 0.08 * side, height * (joint + 0.19)), 0.03 * side, fill=bright
                )
        elif kind == 2:
            pen.ellipse((x - w, y - h, x + w, y + h), fill=bright)
        else:
            pen.line(
                (x, y, x + 2 * w * rng.choice([-1, 1]), y + 2 * h),
                fill=bright,
                width=max(1, round(rng.uniform(0.02, 0.2) * side)),
            )
    layer = gaussian_filter(np.asarray(canvas, np.float32), rng.uniform(0.003, 0.03) * side)
    coarse = gaussian_filter(rng.standard_normal(film.shape).astype(np.float32), rng.uniform(0.01, 0.1) * side)
    return np.asarray(
        film + rng.uniform(0.2, 0.9) * layer + coarse / (coarse.std() + 1e-6) * rng.uniform(0, 25), np.float32
    )


def _with_things(film: _Layer, places: Sequence[Place], rng: np.random.Generator, largest: float = 0.12) -> _Layer:
    """Letters, a ruler, a ball, bright or dark margins, more often than on films; letters up to a share of the film."""
    height, width = film.shape
    side = min(film.shape)
    canvas = Image.fromarray(film)
    pen = ImageDraw.Draw(canvas)
    for _ in range(rng.poisson(0.8)):
        x, y = rng.uniform(-0.1, 1) * width, rng.uniform(-0.1, 1) * height
        size = float(np.exp(rng.uniform(np.log(0.03), np.log(largest)))) * side
        if rng.random() < 0.4:
            pen.rectangle((x, y, x + 3 * size, y + size), fill=0.0)
        pen.text(
            (x, y),
            str(rng.choice(["R", "L", "RIGHT", "LEFT", "AP", "2", "A", "8", "]"])),
            fill=255.0,
            font_size=max(4.0, size),
        )
    if rng.random() < 0.12:
        x = rng.uniform(0, width)
        pen.line(
            (x, 0, x + rng.uniform(-0.1, 0.1) * width, height),
            fill=rng.uniform(120, 255),
            width=max(1, round(0.02 * side)),
        )
        for y in np.arange(0, height, max(3, 0.05 * side)):
            pen.line((x, y, x + 0.05 * side, y), fill=230.0)
    if rng.random() < 0.12:
        x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.02, 0.5 * largest) * side
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=rng.uniform(180, 255))
    for _ in range(int(rng.random() < 0.3) + int(rng.random() < 0.15)):  # collimated: no knee's middle lies there
        reach = rng.uniform(0.02, 0.3)
        band = [(0, 0, reach * width, height), ((1 - reach) * width, 0, width, height),
                (0, 0, width, reach * height), (0, (1 - reach) * height, width, height)][rng.integers(4)]  # fmt: skip
        if not any(
            band[0] - 0.45 * p.side < p.x < band[2] + 0.45 * p.side
            and band[1] - 0.45 * p.side < p.y < band[3] + 0.45 * p.side
            for p in places
        ):
            pen.rectangle(band, fill=float(rng.choice([0, 5, 250])))
    return np.asarray(canvas, np.float32)


def _exposed(film: _Layer, rng: np.random.Generator) -> Gray:
    unit = np.clip(film / 255, 0, 1) ** np.float32(np.exp(rng.uniform(-0.5, 0.5)))
    if rng.random() < 0.15:
        unit = np.clip(rng.uniform(0.8, 1.3) * unit - rng.uniform(0, 0.2), 0, 1)
    low, high = rng.uniform(0, 0.15), rng.uniform(0.6, 1)
    if rng.random() < 0.35:  # a thick leg, a short exposure
        low = rng.uniform(0, 0.6)
        high = low + rng.uniform(0.12, 0.4)
    haze = gaussian_filter(rng.standard_normal((6, 6)).astype(np.float32), 1)
    rows, columns = np.mgrid[0 : 5 : film.shape[0] * 1j, 0 : 5 : film.shape[1] * 1j]
    unit = np.clip(unit + rng.uniform(0, 0.4) * map_coordinates(haze, [rows, columns], order=1), 0, 1)
    exposed = 255 * (low + (high - low) * unit)
    if rng.random() < 0.3:
        exposed = gaussian_filter(exposed, rng.uniform(0.3, 0.9))
    exposed = exposed + rng.standard_normal(film.shape) * rng.uniform(0, 5) * (high - low)
    return np.asarray(np.clip(np.rint(exposed), 0, 255), np.uint8)
