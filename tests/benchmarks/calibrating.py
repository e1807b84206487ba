"""What calibrating at a site mends, and what the watch on drift sees: real knees with shifts made on purpose.

    python tests/benchmarks/calibrating.py best.ckpt FILMS FILMS/knees.csv

Patients of the validation split are halved by `--seed`; a site calibrates on `--films` films of the first half, and all
of the second half are measured, by the model as it came and by the site's. Each shift is a site of its own. Drift: the
second half without labels against the first half as it is. Prints rows of Markdown.
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from legradnet.data.inputs import InputFilm
from legradnet.data.synthetic import write_knees
from legradnet.evaluation.drift import ACCURACY, compare_samples, sample_of, sample_of_reference
from legradnet.evaluation.films import load_films
from legradnet.evaluation.graded import graded_films
from legradnet.evaluation.numbers import metric_intervals
from legradnet.evaluation.settings import MeasuredFilms
from legradnet.grading.grader import Grader
from legradnet.grading.predictions import record
from legradnet.grading.reference import reference_films
from legradnet.site.films import graded_site, regraded
from legradnet.site.fit import Aims, fit_site

NUMBERS = ("accuracy", "ece", "coverage", "set_size", "referral_rate", "accepted_error")


def coarse(film):
    """A third of the resolution."""
    small = Image.fromarray(film).resize((film.shape[1] // 3, film.shape[0] // 3), Image.Resampling.BILINEAR)
    return np.array(small)


def exposed(film):
    """Overexposed: darker bone and background, gamma 1.8."""
    return np.rint(255 * (film / 255) ** 1.8).astype(np.uint8)


def cropped(film):
    """Cut closer: the middle three quarters of each side."""
    down, across = film.shape[0] // 8, film.shape[1] // 8
    return np.ascontiguousarray(film[down:-down, across:-across])


def looked_up(film):
    """A vendor's S-shaped look-up table."""
    steep = 1 / (1 + np.exp(-9 * (film / 255 - 0.5)))
    low, high = 1 / (1 + np.exp(4.5)), 1 / (1 + np.exp(-4.5))
    return np.rint(255 * (steep - low) / (high - low)).astype(np.uint8)


def blurred(film):
    """Gaussian, 2 pixels."""
    return np.array(Image.fromarray(film).filter(ImageFilter.GaussianBlur(2)))


def compressed(film):
    """JPEG of quality 10."""
    Image.fromarray(film).save(file := BytesIO(), "JPEG", quality=10)
    return np.array(Image.open(file))


SHIFTS = {
    "none": lambda film: film,
    "resolution, a third": coarse,
    "exposure, gamma 1.8": exposed,
    "crop, 3/4": cropped,
    "S-shaped LUT": looked_up,
    "blur, 2 px": blurred,
    "JPEG, quality 10": compressed,
    "inverted": lambda film: 255 - film,
    "generated knees": None,
}


def halves(path, seed):
    """Rows of the validation split, patients in random order, and how many films the first half of them has."""
    with Path(path).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "val"]
    patients = sorted({row["patient"] for row in rows})
    place = {patients[number]: at for at, number in enumerate(np.random.default_rng(seed).permutation(len(patients)))}
    rows.sort(key=lambda row: (place[row["patient"]], row["side"]))
    return rows, sum(place[row["patient"]] < len(patients) // 2 for row in rows)


def written(folder, films, rows, change):
    """Changed copies of films and their CSV."""
    with (folder / "films.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label", "patient", "side"])
        for number, row in enumerate(rows):
            with Image.open(Path(films) / row["filename"]) as picture:
                Image.fromarray(change(np.array(picture.convert("L")))).save(folder / f"{number}.png")
            writer.writerow([f"{number}.png", row["label"], row["patient"], row["side"]])
    return folder / "films.csv"


def loaded(folder, path, network):
    data = MeasuredFilms(source="csv", dataset_path=str(folder), csv_path=str(path))
    return load_films(data, network.path, split="all", num_classes=network.classes, image_size=network.image_size)


def half(films, rows):
    """Some of the films."""
    table = films.table.iloc[rows].reset_index(drop=True)
    return replace(films, table=table, requests=[films.requests[row] for row in rows])


def records_of(site):
    """What `legradnet-predict` would have written of a site's films."""
    told = site.films.table.to_dict("records")
    return [
        record(InputFilm(row["filename"], Path(), patient=row["patient"]), grading)
        for row, grading in zip(told, site.gradings, strict=True)
    ]


def alarmed(records, known, patients, weeks, seed):
    """Share of weeks of `patients` drawn from all, that raise an alarm."""
    rng = np.random.default_rng(seed)
    there = sorted({one["patient"] for one in records})
    raised = 0
    for _ in range(weeks):
        drawn = {there[at] for at in rng.permutation(len(there))[:patients]}
        (drift,) = compare_samples([sample_of("", [one for one in records if one["patient"] in drawn])], *known)
        raised += bool(drift.alarms)
    return raised / weeks


def as_they_are(grader, arguments):
    """The films that a site calibrates on, unchanged, as the reference of drift."""
    rows, first = halves(arguments.csv, arguments.seed)
    with tempfile.TemporaryDirectory() as place:
        kept = rows[: min(first, arguments.films)]
        table = written(Path(place), arguments.films_folder, kept, SHIFTS["none"])
        site = graded_site(grader, loaded(Path(place), table, grader.networks[0]), None)
    known = reference_films(site.gradings, site.before.labels, site.before.patients)
    return sample_of_reference(known, grader.networks[0].calibration)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("films_folder")
    parser.add_argument("csv")
    parser.add_argument("--films", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[*SHIFTS])
    parser.add_argument("--weeks", type=int, default=0)
    arguments = parser.parse_args()
    grader = Grader.load(arguments.checkpoint, precision="f32")
    (network,) = grader.networks
    aims = Aims(network.calibration.coverage or 0.9, network.calibration.target_error or 0.25)
    known = as_they_are(grader, arguments)
    if arguments.weeks:
        print("| shift | 30 patients | 60 | 120 |")
    else:
        print(f"| shift | {' | '.join(NUMBERS)} | scaling | estimated accuracy | alarms |")
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            if SHIFTS[name] is None:
                count = 2 * arguments.films
                write_knees(folder, count, size=224, seed=arguments.seed + 1000)
                films, first = loaded(folder, folder / "knees.csv", network), count // 2
            else:
                rows, first = halves(arguments.csv, arguments.seed)
                films = loaded(folder, written(folder, arguments.films_folder, rows, SHIFTS[name]), network)
            print(name, len(films.table), "films", file=sys.stderr)
            others = graded_site(grader, half(films, np.arange(first, len(films.table))), None)
            records = records_of(others)
            if arguments.weeks:
                shares = [alarmed(records, known, many, arguments.weeks, arguments.seed) for many in (30, 60, 120)]
                print(f"| {name} | {' | '.join(f'{share:.2f}' for share in shares)} |", flush=True)
                continue
            site = graded_site(grader, half(films, np.arange(min(first, arguments.films))), None)
            older = network.learned.reference
            fitted = fit_site(
                site.seen, network.rule, aims, older=older, distance=network.distance, seed=arguments.seed
            )
            after = graded_films(
                others.films.table, regraded(others, range(len(others.gradings)), fitted), grader.backbones
            )
            (drift,) = compare_samples([sample_of(name, records)], *known)
            alarms = ", ".join(one.name for one in drift.alarms) or "none"
            taken = next(one.family for one in fitted.tried if one.chosen)
            for when, graded in (("before", others.before), ("after", after)):
                numbers = metric_intervals(graded, resamples=1000, seed=arguments.seed)
                cells = [
                    f"{of['value']:.3f} ({of['low']:.3f}-{of['high']:.3f})"
                    if (of := numbers.get(metric)) and of["value"] is not None
                    else "n/a"
                    for metric in NUMBERS
                ]
                estimate = f"{drift.of(ACCURACY).here[0]:.3f}" if when == "before" else ""
                more = [taken if when == "after" else "", estimate, alarms if when == "before" else ""]
                print(f"| {name}, {when} | {' | '.join([*cells, *more])} |", flush=True)


if __name__ == "__main__":
    main()
