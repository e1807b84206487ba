"""Drawing the film of a made-up knee, whose grade shows in the anatomy alone.

A knee is a few outlines in knee units (u from medial to lateral, v downwards, the joint line at v = 0, a film about 2
high), placed on the film, filled, and shaded like a radiograph: soft tissue, bone, cortex, trabeculae, exposure, noise.
Severity moves only what Kellgren and Lawrence read (Ann Rheum Dis 1957;16:494, doi:10.1136/ard.16.4.494): joint space,
osteophytes, sclerosis and deformity. Every other trait is drawn without knowing it.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from legradnet.data.film import Gray
from legradnet.data.sides import SIDES, Side
from legradnet.errors import UserError

_Layer = npt.NDArray[np.float32]
_Points = npt.NDArray[np.float64]
_Stroke = tuple[_Points, float, float]  # line, width in knee units, value 0-1

# What a grade of 0, 1, 2, 3, 4 looks like; a severity between two grades lies between their values.
MEDIAL_SPACE = (1.0, 0.87, 0.68, 0.40, 0.05)  # share of the healthy joint space
LATERAL_SPACE = (1.0, 0.97, 0.92, 0.86, 0.78)
OSTEOPHYTE = (0.0, 0.28, 0.55, 0.85, 1.2)  # lips, in 0.13 knee units
SCLEROSIS = (0.0, 0.02, 0.25, 0.65, 1.0)
DEFORMITY = (0.0, 0.0, 0.05, 0.3, 1.0)  # flat condyle, sunken medial plateau, varus

# Control points (u, v) of a left knee; a joint surface runs from the medial to the lateral margin.
CONDYLES = np.array(
    [(-0.79, -0.22), (-0.775, -0.13), (-0.72, -0.075), (-0.60, -0.015), (-0.43, 0.015), (-0.29, -0.020)]
    + [(-0.18, -0.085), (-0.09, -0.10), (0.01, -0.10), (0.12, -0.10), (0.22, -0.075)]
    + [(0.33, -0.015), (0.46, 0.010), (0.62, -0.010), (0.73, -0.075), (0.785, -0.14), (0.79, -0.22)]
)
FEMORAL_SIDES = np.array(
    [(0.77, -0.31), (0.82, -0.45), (0.78, -0.58), (0.67, -0.76), (0.56, -0.98), (0.49, -1.25), (0.44, -1.7)]
    + [(-0.40, -1.7), (-0.46, -1.25), (-0.55, -0.98), (-0.70, -0.76), (-0.84, -0.60), (-0.85, -0.45), (-0.81, -0.33)]
)
PLATEAU = np.array(
    [(-0.76, 0.095), (-0.77, 0.045), (-0.72, 0.022), (-0.58, 0.022), (-0.43, 0.028), (-0.28, 0.0), (-0.18, -0.07)]
    + [(-0.105, -0.135), (-0.06, -0.115), (0.02, -0.085), (0.085, -0.105), (0.13, -0.120)]
    + [(0.20, -0.06), (0.31, 0.0), (0.46, 0.022), (0.62, 0.012), (0.72, 0.010), (0.775, 0.035), (0.765, 0.09)]
)
TIBIAL_SIDES = np.array(
    [(0.75, 0.20), (0.69, 0.38), (0.59, 0.58), (0.49, 0.82), (0.42, 1.15), (0.38, 1.7)]
    + [(-0.40, 1.7), (-0.43, 1.15), (-0.50, 0.82), (-0.60, 0.58), (-0.69, 0.38), (-0.74, 0.20)]
)
FIBULA = np.array(
    [(0.63, 0.34), (0.69, 0.28), (0.77, 0.33), (0.84, 0.43), (0.85, 0.55), (0.80, 0.70), (0.76, 0.92), (0.74, 1.2)]
    + [(0.73, 1.7), (0.54, 1.7), (0.55, 1.2), (0.57, 0.92), (0.56, 0.70), (0.53, 0.54), (0.56, 0.42)]
)
PATELLA = np.array(
    [(-0.33, -0.04), (-0.24, -0.24), (0.02, -0.29), (0.27, -0.23)]
    + [(0.35, -0.02), (0.22, 0.22), (0.0, 0.31), (-0.22, 0.21)]
)
SCLEROTIC_PATCH = np.array([(-0.33, -0.05), (0.27, -0.05), (0.22, 0.05), (-0.27, 0.06)])
# How a large osteophyte moves the three points at a lateral margin, from the side to the joint.
FEMORAL_LIP = np.array([(0.02, 0.0), (0.13, 0.05), (0.04, 0.025)])
TIBIAL_LIP = np.array([(0.03, 0.02), (0.13, -0.03), (0.03, 0.0)])
MEDIAL = np.array([-1.0, 1.0])


@dataclass(frozen=True)
class Traits:
    """What the two knees of a patient share."""

    scale: float  # half films to a knee unit
    width: float  # of the bones, about 1
    joint_space: float  # when healthy, knee units
    notch: float  # height of the intercondylar notch, about 1
    tissue: float  # half width of the leg, knee units
    density: float  # of bone against soft tissue, about 1
    black: float  # film values without and with full attenuation, 0-1
    white: float
    gamma: float


def draw_traits(rng: np.random.Generator) -> Traits:
    """Build and exposure of one patient."""
    return Traits(
        scale=rng.uniform(0.90, 1.04),
        width=rng.uniform(0.95, 1.05),
        joint_space=rng.uniform(0.105, 0.130),
        notch=rng.uniform(0.85, 1.2),
        tissue=rng.uniform(0.98, 1.25),
        density=rng.uniform(0.65, 0.95),
        black=rng.uniform(0.02, 0.16),
        white=rng.uniform(0.70, 1.0),
        gamma=rng.uniform(0.9, 1.9),
    )


def _femur(lips: _Points, spaces: tuple[float, float], flat: float, notch: float) -> _Points:
    """Femoral outline [31, 2], condyles first; `lips` and `spaces` are of the medial and the lateral compartment."""
    condyles = CONDYLES.copy()
    condyles[:3] += lips[0] * FEMORAL_LIP * MEDIAL
    condyles[:-4:-1] += lips[1] * FEMORAL_LIP
    condyles[[3, 5], 1] += 0.02 * flat
    condyles[7:10, 1] -= notch * np.array((0.09, 0.13, 0.08))
    outline = np.concatenate([condyles, FEMORAL_SIDES])
    outline[:, 1] -= np.interp(outline[:, 0], (-0.45, 0.45), spaces)
    return outline


def _tibia(lips: _Points, varus: float, spines: float) -> _Points:
    """Tibial outline [31, 2], plateau first; `lips` are of the medial and the lateral margin."""
    plateau = PLATEAU.copy()
    plateau[:3] += lips[0] * TIBIAL_LIP * MEDIAL
    plateau[:-4:-1] += lips[1] * TIBIAL_LIP
    plateau[[7, 11], 1] -= 0.03 * spines
    outline = np.concatenate([plateau, TIBIAL_SIDES])
    outline[:, 0] -= 0.10 * varus * outline[:, 1].clip(0)
    return outline


def _bright_lines(femur: _Points, tibia: _Points, patella: _Points, sclerosis: float, wobble: _Points) -> list[_Stroke]:
    """Joint surfaces, back rim of the plateau, growth scars, walls of the notch and spines, edge of the patella."""
    down = np.array((0.0, 0.012))
    along = np.linspace(-1, 1, 9)
    tibial_scar = np.stack([0.62 * along, 0.36 + 0.05 * along**2], 1) + wobble[:9]
    femoral_scar = np.stack([0.72 * along, -0.52 - 0.06 * np.cos(3 * along)], 1) + wobble[9:18]
    medial_wall = np.array([(-0.17, -0.18), (-0.25, -0.30), (-0.28, -0.44), (-0.24, -0.58)]) + wobble[18:22]
    lateral_wall = np.array([(0.20, -0.18), (0.27, -0.30), (0.29, -0.42), (0.25, -0.56)]) + wobble[22:26]
    lines = [
        (femur[1:7] - down, 0.018 + 0.03 * sclerosis, 0.45 + 0.35 * sclerosis),
        (femur[6:11] - down, 0.014, 0.30),
        (femur[10:16] - down, 0.018, 0.45),
        (tibia[1:7] + down, 0.028 + 0.04 * sclerosis, 0.80 + 0.2 * sclerosis),
        (tibia[6:13] + down, 0.016, 0.50),
        (tibia[12:18] + down, 0.026, 0.75),
        (tibia[2:7] + 4.5 * down, 0.012, 0.35),
        (tibia[12:17] + 4.5 * down, 0.012, 0.35),
        (tibial_scar, 0.014, 0.25),
        (femoral_scar, 0.014, 0.25),
        (medial_wall, 0.014, 0.25),
        (lateral_wall, 0.014, 0.25),
        (np.array([(-0.10, -0.10), (-0.08, 0.02), (-0.16, 0.10)]) + wobble[26:29], 0.012, 0.25),
        (np.array([(0.13, -0.09), (0.11, 0.03), (0.17, 0.11)]) + wobble[29:32], 0.012, 0.25),
        (np.concatenate([patella, patella[:1]]), 0.014, 0.25),
    ]
    lines.sort(key=lambda line: line[2])
    return [(_curve(points, closed=False), width, value) for points, width, value in lines]


@lru_cache
def _catmull_rom(steps: int = 6) -> _Points:
    """Weights [steps, 4] of four neighbouring points on the stretch between the middle two."""
    t = np.linspace(0, 1, steps, endpoint=False)
    return np.stack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2], 1) / 2


def _curve(points: _Points, *, closed: bool = True) -> _Points:
    """Smooth curve [M, 2] through `points` [N, 2]."""
    n = len(points)
    order = np.arange(-1, n + 2) % n if closed else np.arange(-1, n + 2).clip(0, n - 1)
    windows = points[order[np.arange(n)[:, None] + np.arange(4)]]
    return np.asarray((_catmull_rom() @ windows).reshape(-1, 2), dtype=np.float64)


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[_Layer, _Layer]:
    """Columns [1, size] and rows [size, 1], -1 to 1, at the middle of the pixels."""
    axis = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    return axis[None, :], axis[:, None]


def _paint(size: int, fills: list[tuple[_Points, float]], strokes: list[_Stroke]) -> _Layer:
    """Antialiased layer [size, size], 0-1, of filled outlines and then lines; points are in films, 0-1."""
    fine = size * max(2, min(6, 720 // size))
    canvas = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(canvas)
    for points, value in fills:
        pen.polygon((points * fine).ravel().tolist(), fill=round(255 * value))
    for points, width, value in strokes:
        pen.line((points * fine).ravel().tolist(), fill=round(255 * value), width=max(1, round(width * fine / 2)))
    return np.asarray(canvas.reduce(fine // size), dtype=np.float32) / np.float32(255)


def _resize(layer: _Layer, size: int) -> _Layer:
    return np.asarray(Image.fromarray(layer).resize((size, size), Image.Resampling.BILINEAR))


def _blur(layer: _Layer, size: int, across: float, along: float) -> _Layer:
    """`layer` blurred (sigmas in films) at a quarter of the film's resolution, where nobody sees the difference."""
    low = max(24, size // 4)
    return _resize(gaussian_filter(_resize(layer, low), (along * low, across * low), truncate=3), size)


def _trabeculae(rng: np.random.Generator, size: int) -> _Layer:
    """Streaks along the shaft over a coarser mottle: [size, size], about 0 and of deviation about 1."""
    fine = gaussian_filter1d(rng.standard_normal((size, size), dtype=np.float32), size / 60, axis=0, truncate=3)
    coarse = gaussian_filter(rng.standard_normal((max(8, size // 5),) * 2, dtype=np.float32), (1.3, 0.7))
    return np.asarray(fine * (0.7 / fine.std()) + _resize(coarse * (0.7 / coarse.std()), size), dtype=np.float32)


def _expose(attenuation: _Layer, traits: Traits, grain: float, unsharpness: float, rng: np.random.Generator) -> Gray:
    """Film of an attenuation map [size, size]: characteristic curve, quantum noise, unsharpness."""
    size = len(attenuation)
    film = 1 - np.exp(-1.6 * np.maximum(attenuation, 0) ** np.float32(traits.gamma))
    film = np.float32(traits.black) + np.float32((traits.white - traits.black) / 0.76) * film
    # A pixel of half the width catches a quarter of the quanta: twice the noise.
    film += np.float32(grain * size / 224) * (0.5 + film) * rng.standard_normal((size, size), dtype=np.float32)
    film = gaussian_filter(film, size / 224 * unsharpness, truncate=3)
    return np.asarray(np.clip(film * 255 + 0.5, 0, 255), dtype=np.uint8)


def film_of_knee(severity: float, side: Side, traits: Traits, rng: np.random.Generator, size: int) -> Gray:
    """One knee of the patient with these `traits`; as `draw_knee`, without its checks."""
    medial_space, lateral_space, osteophyte, sclerosis, deformity = (
        float(np.interp(severity, range(5), grades))
        for grades in (MEDIAL_SPACE, LATERAL_SPACE, OSTEOPHYTE, SCLEROSIS, DEFORMITY)
    )
    lips = osteophyte * rng.uniform(0.8, 1.2, (2, 2)) * (1.0, 0.85)
    space = traits.joint_space * rng.uniform(0.96, 1.04)
    spaces = (space * medial_space, space * lateral_space * rng.uniform(0.95, 1.1))
    angle, scale = rng.normal(0, 0.03), traits.scale * rng.uniform(0.97, 1.03)
    shift = rng.normal((0, 0.06), (0.035, 0.05))
    wobble = rng.normal(0, 0.010, (32, 2))
    patella = PATELLA * rng.uniform(0.9, 1.1, 2) + rng.normal((0.06, -0.66), 0.05)
    fibula = FIBULA + rng.normal(0, (0.03, 0.04))
    tilt = rng.normal(0, 0.05, 2).astype(np.float32)
    grain, unsharpness = rng.uniform((0.010, 0.45), (0.024, 0.85))

    femur = _femur(lips[0], spaces, deformity, traits.notch)
    tibia = _tibia(lips[1], deformity, osteophyte)
    femur[17:] += wobble[:14]
    tibia[6:] += wobble[:25]  # not the medial plateau, whose joint space is measured
    for bone in (femur, tibia):  # the medial plateau gives way and the condyle follows
        bone[:, 1] += 0.05 * deformity * np.clip(-bone[:, 0] / 0.6, 0, 1)

    stretch = scale * np.array([traits.width if side == "L" else -traits.width, 1.0])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])

    def place(points: _Points) -> _Points:
        return np.asarray(((points * stretch) @ turn + shift + 1) / 2, dtype=np.float64)

    bones = _paint(size, [(place(_curve(bone)), 1.0) for bone in (femur, tibia)], [])
    others = _paint(size, [(place(_curve(fibula)), 0.5), (place(_curve(patella)), 0.18)], [])
    lines = _bright_lines(femur, tibia, patella, sclerosis, wobble)
    plates = _paint(size, [], [(place(line), width * scale, value) for line, width, value in lines])
    patches = [SCLEROTIC_PATCH + (-0.43, v) for v in (0.10 + 0.03 * deformity, -0.08 - spaces[0])]
    sclerotic = _paint(max(24, size // 4), [(place(_curve(patch)), sclerosis) for patch in patches], [])

    stack = bones + others * (1 - 0.5 * bones)
    trabeculae = _trabeculae(rng, size)
    cortex = np.maximum(stack - gaussian_filter(stack, size * 0.007, truncate=3), 0) * (1 + 0.3 * trabeculae)
    shell = np.maximum(stack - _blur(stack, size, 0.02, 0.02), 0)
    depth = np.minimum(_blur(stack, size, 0.07, 0.025), 1)
    columns, rows = _grid(size)
    across = ((columns - np.float32(shift[0])) / np.float32(traits.tissue * scale)) ** 2 * (1 + 0.12 * rows)
    muscle = np.clip((0.75 - across) * 4, 0, 1)

    dense = stack * (0.04 + 0.34 * depth * depth) + 0.34 * cortex + 0.20 * shell + 0.28 * plates
    dense += bones * (0.22 * _blur(sclerotic, size, 0.014, 0.014) + 0.034 * trabeculae)
    soft = 0.38 * np.sqrt(np.maximum(1 - across, 0)) + 0.06 * muscle + 0.05
    attenuation = soft + np.float32(traits.density) * dense + tilt[0] * columns + tilt[1] * rows
    return _expose(attenuation, traits, grain, unsharpness, rng)


def draw_knee(severity: float, side: Side, rng: np.random.Generator, size: int = 224) -> Gray:
    """One AP knee film, uint8 [size, size], bright bone on a dark ground.

    The same state of `rng` gives the same leg and exposure at any severity, so that a disease can be seen to progress.

    Args:
        severity: On the Kellgren-Lawrence scale, 0.0-4.0.
        side: Whose fibula is on the right of the film for "L" and on the left for "R".
        rng: Source of all variation between knees.
        size: Pixels a side, at least 32.

    Raises:
        UserError: `severity`, `side` or `size` is out of range.
    """
    if not 0 <= severity <= 4:
        raise UserError(f"severity is a number from 0 to 4, not {severity}.")
    if side not in SIDES:
        raise UserError(f"side is one of {' or '.join(SIDES)}, not {side!r}.")
    check_size(size)
    return film_of_knee(severity, side, draw_traits(rng), rng, size)


def check_size(size: int) -> None:
    """Raise UserError for a film that is too small for a knee."""
    if size < 32:
        raise UserError(f"size is at least 32 pixels, not {size}.")
