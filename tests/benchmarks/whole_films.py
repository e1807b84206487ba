"""How well knees are found in composites of known truth, by what was done to them, and what that does to grades.

    python tests/benchmarks/whole_films.py FOLDER OUTPUT.csv COUNT [CHECKPOINT]

FOLDER holds knees cut close in `0/` to `4/`, which trained neither finder nor network; COUNT composites of each kind
are made. A row a kind: `found` is the share of knees whose middle is within 8 % of a side and whose side within 15 % of
the truth; `x`, `y` and `side` are the mean errors, `middle_95` and `side_95` 95 % of their sizes, all shares of the
side; `false` counts squares that are no knee's. With a checkpoint, of the last kind, whose exposure hides no grade:
mean and 95 % of how far the expected grade of the square that was found is from that of the knee's own crop, and the
share of other grades; the same (`..._at_truth`) of the square at the true place. Its curves are drawn beside.
"""

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from legradnet import Grader
from legradnet.figures import COLOURS, MARKERS, picture
from legradnet.localise.composites import Place, compose
from legradnet.localise.knees import SURE, FoundKnee, find_knees

WIDTH, HEIGHT = 600, 640  # pixels
AS_SHARP = 1.25  # times that, where crops keep their own pixels
PLAIN, TURNED, LONE = 0.3, 0.0, 2


SAID = {
    "at all": "found at all",
    "found": "found within both limits",
    "middle_95": "middle off, 95 % at most (of a side)",
    "side_95": "side off, 95 % at most",
}


def noisy(film, rng):
    return (film + rng.normal(0, 15, film.shape)).clip(0, 255).astype(np.uint8)


def compressed(film, rng):
    file = io.BytesIO()
    Image.fromarray(film).save(file, "JPEG", quality=20)
    return np.array(Image.open(file))


def marked(film, rng, places):
    drawn = Image.fromarray(film)
    for place in places:
        x, y = place.x + rng.uniform(-0.3, 0.3) * place.side, place.y + rng.uniform(-0.2, 0.2) * place.side
        ImageDraw.Draw(drawn).text((x, y), str(rng.choice(["R", "L"])), fill=255, font_size=0.25 * place.side)
    return np.array(drawn)


KINDS = {  # share of the width that a knee's square has, degrees that it is turned by, knees, what is done to the film
    "plain": (PLAIN, TURNED, LONE, None),
    **{f"{100 * share:.0f} % of the width": (share, TURNED, 2 if share < 0.45 else 1, None)
       for share in (0.08, 0.12, 0.2, 0.4, 0.5, 0.6)},
    **{f"turned by {degrees} degrees": (PLAIN, float(degrees), 2, None) for degrees in (5, 10, 15)},
    "black and white exchanged": (PLAIN, TURNED, 2, lambda film, rng, places: 255 - film),
    "noise of 15 grays": (PLAIN, TURNED, 2, lambda film, rng, places: noisy(film, rng)),
    "JPEG of quality 20": (PLAIN, TURNED, 2, lambda film, rng, places: compressed(film, rng)),
    "one knee missing": (PLAIN, TURNED, 1, None),
    "a letter over the joint": (PLAIN, TURNED, 2, marked),
    "no knee": (PLAIN, TURNED, 0, None),
    (KEPT := "exposure as it was"): (PLAIN, TURNED, 2, None),
}  # fmt: skip


def composite(crops, share, turned, knees, alter, rng, exposed=True):
    """A film, and the places of its knees from left to right."""
    width, height = (round(side * (1 if exposed else AS_SHARP)) for side in (WIDTH, HEIGHT))
    side = share * width * rng.uniform(0.95, 1.05)
    middles = (0.27, 0.73) if share < 0.45 else (0.5,)
    places = [
        Place(
            width * middle + rng.uniform(-0.02, 0.02) * width,
            height * rng.uniform(0.42, 0.58),
            side,
            turned * rng.choice([-1, 1]),
        )
        for middle in middles
    ]
    if knees == 0:
        crops = [np.repeat(crop[:1], len(crop), axis=0) for crop in crops]
    if knees == 1 and len(places) == 2:
        places = [places[int(rng.integers(2))]]
    film = compose(crops[: len(places)], places, (height, width), rng, exposed=exposed)
    if alter:
        film = alter(film, rng, places)
    return film, places if knees else []


def measured(paths, kind, count, grader):
    """A row of the table."""
    share, turned, knees, alter = KINDS[kind]
    errors, changes, grades, false = [], [], [], 0
    for number in range(count):
        rng = np.random.default_rng([list(KINDS).index(kind), number])
        crops = [np.array(Image.open(paths[i])) for i in rng.choice(len(paths), 2, replace=False)]
        film, places = composite(crops, share, turned, knees, alter, rng, kind != KEPT)
        found = [knee for knee in find_knees(film) if knee.score >= SURE]
        for place, crop in zip(places, crops, strict=False):
            near = [knee for knee in found if np.hypot(knee.x - place.x, knee.y - place.y) < 0.5 * place.side]
            if not near:
                errors.append((np.nan,) * 3)
                continue
            knee = near[0]
            found.remove(knee)
            x, y = (knee.x - place.x) / place.side, (knee.y - place.y) / place.side
            errors.append((x, y, knee.side / place.side - 1))
            if grader:
                true = FoundKnee(*place[:3], 1.0)
                own, *others = grader.grade([crop, *(one.box.cut(film) for one in (knee, true))], "R")
                changes.append([abs(own.expected_grade - other.expected_grade) for other in others])
                grades.append([own.grade != other.grade for other in others])
        false += len(found)
    x, y, side = np.array(errors).reshape(-1, 3).T
    middle = np.maximum(abs(x), abs(y))
    row = {"kind": kind, "knees": len(errors), "false": false}
    if errors:
        row |= {"found": float(np.mean((middle <= 0.08) & (abs(side) <= 0.15))), "at all": float(np.mean(~np.isnan(x)))}
    if errors and not np.isnan(x).all():
        row |= {"x": np.nanmean(x), "y": np.nanmean(y), "side": np.nanmean(side)}
        row |= {"middle_95": np.nanquantile(middle, 0.95), "side_95": np.nanquantile(abs(side), 0.95)}
    if changes:
        for name, change, other in zip(("", "_at_truth"), np.transpose(changes), np.transpose(grades), strict=True):
            row |= {f"expected{name}": np.mean(change), f"expected_95{name}": np.quantile(change, 0.95)}
            row |= {f"other{name}": np.mean(other)}
    return row


def draw_curves(table, path):
    """What is found and how far off it is, by size and by turn, and for all else."""
    rows = {row["kind"]: row for row in table.to_dict("records")}
    plain = rows["plain"]
    by_size = {100 * KINDS[kind][0]: rows[kind] for kind in KINDS if kind == "plain" or "of the width" in kind}
    by_turn = {KINDS[kind][1]: rows[kind] for kind in KINDS if kind == "plain" or kind.startswith("turned")}
    others = [kind for kind in KINDS if kind not in (KEPT, "no knee") and rows[kind] not in by_size.values()]
    others = [kind for kind in others if rows[kind] not in by_turn.values()]
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    by_size_axes, by_turn_axes, others_axes = figure.subplots(1, 3, width_ratios=(3, 2, 3))
    for axes, curve, title in (
        (by_size_axes, by_size, "side, % of the film's width"),
        (by_turn_axes, by_turn, "turned, degrees"),
    ):
        for number, (column, said) in enumerate(SAID.items()):
            values = [100 * curve[at][column] for at in sorted(curve)]
            axes.plot(sorted(curve), values, marker=MARKERS[number], color=COLOURS[number], label=said)
        axes.set(xlabel=title, ylim=(0, 103))
        axes.grid(alpha=0.3)
    by_size_axes.set_ylabel("%")
    by_size_axes.legend(loc="center right", fontsize=8)
    height = 0.8 / len(SAID)
    for number, column in enumerate(SAID):
        values = [100 * row[column] for row in (plain, *(rows[kind] for kind in others))]
        others_axes.barh(np.arange(len(values)) + number * height, values, height, color=COLOURS[number])
    others_axes.set_yticks(np.arange(1 + len(others)) + 1.5 * height, ["plain", *others], fontsize=8)
    others_axes.invert_yaxis()
    others_axes.set(xlabel="%", xlim=(0, 103))
    path.write_bytes(picture(figure, "png"))


if __name__ == "__main__":
    folder, output, count, *checkpoint = sys.argv[1:]
    paths = sorted(Path(folder).glob("[0-4]/*.png"))
    grader = Grader.load(checkpoint[0]) if checkpoint else None
    table = pd.read_csv(output) if Path(output).exists() else pd.DataFrame()
    for kind in KINDS:
        if table.empty or kind not in set(table["kind"]):  # a run that was cut goes on
            row = measured(paths, kind, int(count), grader if kind == KEPT else None)
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True).round(4)
            table.to_csv(output, index=False)
    print(table.to_string(index=False))
    draw_curves(table, Path(output).with_suffix(".png"))
