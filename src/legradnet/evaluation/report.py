"""The page of an evaluation: one HTML file without scripts, and its figures as PNG files."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from legradnet.data.remarks import Said
from legradnet.evaluation import checklist
from legradnet.evaluation.figures import draw_figures
from legradnet.evaluation.graded import Graded, Left
from legradnet.figures import grade_names, picture
from legradnet.files import write_text, written_whole

Metrics = Mapping[str, Mapping[str, float | None]]

# name: what a reader calls it, and what it says; the page's groups of metrics, in its order
METRICS: dict[str, dict[str, tuple[str, str]]] = {
    "Agreement with the true grade": {
        "qwk": (
            "Quadratic weighted kappa",
            "Agreement beyond chance; far misses cost most. 1 is perfect, 0 is chance.",
        ),
        "accuracy": ("Accuracy", "Share of films given exactly their true grade."),
        "balanced_accuracy": ("Balanced accuracy", "Mean over the true grades of the share graded right."),
        "macro_f1": ("Macro F1", "Mean over grades of F1, so that rare grades count as much as frequent ones."),
        "mae": ("Mean absolute error", "Mean distance between given and true grade, in grades; 0 is best."),
        "within_one": ("Within one grade", "Share of films at most one grade away from the truth."),
    },
    "Osteoarthritis, KL 2 or more": {
        "auroc_kl2": ("AUROC, KL ≥ 2", "How often a film with KL ≥ 2 gets a higher P(KL ≥ 2) than one without."),
        "sensitivity_kl2": ("Sensitivity, KL ≥ 2", "Share of films with KL ≥ 2 that are called so at the threshold."),
        "specificity_kl2": (
            "Specificity, KL ≥ 2",
            "Share of films with KL 0 or 1 that are called so at the threshold.",
        ),
        "auroc_kl2_uncalibrated": ("AUROC, KL ≥ 2, uncalibrated", "The same from the network's own probabilities."),
    },
    "Probabilities": {
        "rps": ("Ranked probability score", "Squared distance of all probabilities from the truth; 0 is best."),
        "rps_uncalibrated": ("Ranked probability score, uncalibrated", "The same before calibration."),
        "ece": (
            "Expected calibration error",
            "Mean gap between how sure and how often right; 0 is best. Resampling adds to it: the interval leans high.",
        ),
        "ece_uncalibrated": ("Expected calibration error, uncalibrated", "The same before calibration."),
    },
    "Prediction sets": {
        "coverage": ("Coverage", "Share of prediction sets that hold the true grade."),
        "set_size": ("Set size", "Mean number of grades in a prediction set; smaller says more."),
    },
    "Referral": {
        "referral_rate": ("Films referred", "Share of films handed to a reader instead of graded."),
        "accepted_accuracy": ("Accuracy of the rest", "Share of exactly right grades among films not referred."),
        "accepted_error": ("Error of the rest", "Share of wrong grades among films not referred."),
    },
}
WORDS = {name: words for group in METRICS.values() for name, words in group.items()}
TILES = ("qwk", "accuracy", "mae", "within_one", "auroc_kl2", "coverage")
# columns where there is no room for all
BRIEF = {"qwk": "Kappa", "accuracy": "Accuracy", "mae": "MAE", "within_one": "Within one", "auroc_kl2": "AUROC, KL ≥ 2"}
_ON_A_SHARE_SCALE = set(WORDS) - {"mae", "set_size"}
_PLACES = {  # of the page, for sections of the card that are parts of it
    checklist.NUMBERS: "metrics",
    checklist.GRADES: "grades",
    checklist.CALIBRATION: "calibration",
    checklist.REFERRAL: "referral",
    checklist.SUBGROUPS: "subgroups",
    checklist.JOINT: "shortcut",
    checklist.FAILURES: "grades",
}
_PIXELS = 320  # longer side of a film on the page


@dataclass(frozen=True)
class Mistake:
    """A film whose grade is far off.

    Attributes:
        picture: The film as it is in its file, or the knee's square of a whole one, uint8 gray [H, W].
        filename: Its name in the CSV, of a whole film with the knee.
        label: Its true grade.
        grade: The grade given.
        probabilities: Calibrated, one a grade [K].
        prediction_set: In words, such as "1 2"; "" where there are no sets.
        reason: Why it was referred, and remarks.
        referred: Whether it was.
    """

    picture: npt.NDArray[np.uint8]
    filename: str
    label: int
    grade: int
    probabilities: Sequence[float]
    prediction_set: str = ""
    reason: str = ""
    referred: bool = True


@dataclass(frozen=True)
class Report:
    """What the page shows.

    Attributes:
        title: What was measured, such as "quickstart, test split".
        numbers: From `measure(graded)`.
        graded: The films.
        left: Those that have no grade, and why.
        subgroups: {column: {value: {"films", "patients", "metrics"}}}.
        joint_masked: Metrics of the same films with the central band of the joint blanked out; None if not measured.
        mistakes: The worst ones, worst first.
        remarks: What was said of films' files and look.
        facts: Sections of the model card, {section: {name: text}}.
        own_answers: What the model's author answers to items of the checklist, by their name.
        warnings: What a reader must know before any number.
        comparisons: One for each other run: {"names": [base, other], "metrics": {name: {"a", "b", "difference", "low",
            "high"}}}; the difference is b - a.
    """

    title: str
    numbers: dict[str, Any]
    graded: Graded
    left: Sequence[Left] = ()
    subgroups: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    joint_masked: dict[str, Any] | None = None
    mistakes: list[Mistake] = field(default_factory=list)
    remarks: list[Said] = field(default_factory=list)
    facts: dict[str, dict[str, str]] = field(default_factory=dict)
    own_answers: Mapping[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    comparisons: list[dict[str, Any]] = field(default_factory=list)


def write_report(report: Report, path: Path) -> None:
    """Write the page, whole or not at all; nothing in it needs the network or runs code."""
    environment = Environment(  # names, reasons and CSV cells are other people's text: all of it is escaped
        loader=PackageLoader("legradnet.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "signed": signed, "film": _film_uri}
    numbers, graded = report.numbers, report.graded
    figures = {name: _uri(picture(figure, "svg"), "svg+xml") for name, figure in draw_figures(numbers).items()}
    page = environment.get_template("report.html.j2").render(
        report=report,
        numbers=numbers,
        metrics=numbers["metrics"],
        groups=metric_groups(numbers["metrics"]),
        words=WORDS,
        tiles=[name for name in TILES if name in numbers["metrics"]],
        brief={name: short for name, short in BRIEF.items() if name in numbers["metrics"]},
        shares=_ON_A_SHARE_SCALE,
        grades=grade_names(graded.classes),
        calibrated=not np.array_equal(graded.raw, graded.probabilities),
        backbones=graded.backbones,
        figures=figures,
        findings=findings(numbers),
        answers=checklist.answers(
            {*report.facts, *checklist.measured(report.subgroups, report.joint_masked)},
            report.subgroups,
            report.own_answers,
        ),
        places=_PLACES,
        not_available=checklist.NOT_AVAILABLE,
    )
    write_text(path, page.lstrip().encode(errors="replace").decode())  # names on disk need not be UTF-8


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write each figure there is as `<name>.png` into `folder`; returns the files."""
    files = []
    for name, figure in draw_figures(report.numbers).items():
        files.append(folder / f"{name}.png")
        with written_whole(files[-1], shared=True) as file:
            file.write(picture(figure, "png"))
    return files


def metric_groups(metrics: Metrics) -> dict[str, dict[str, tuple[str, str]]]:
    """The metrics that there are, {group: {name: (label, explanation)}}; every one is in some group."""
    of_grades = [name for name in metrics if name.startswith("f1_")]
    scores = {
        name: (f"F1 of {grade}", f"Harmonic mean of sensitivity and precision for {grade}.")
        for name, grade in zip(of_grades, grade_names(len(of_grades)), strict=True)
    }
    (agreement, first), *others = METRICS.items()
    groups = {agreement: first, "Each grade": scores, **dict(others)}
    groups["Other"] = {name: (name, "") for name in metrics if name not in WORDS and name not in scores}
    measured = {
        title: {name: text for name, text in group.items() if name in metrics} for title, group in groups.items()
    }
    return {title: group for title, group in measured.items() if group}


def number(value: float | None) -> str:
    """Three decimals; "n/a" where there is no number."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3f}"


def interval(metric: Mapping[str, float | None], signs: bool = False) -> str:
    """A metric's interval as "0.790-0.834"; with `signs` as "-0.012 to +0.034"; "n/a" where there is none."""
    low, high = (signed(metric[end]) if signs else number(metric[end]) for end in ("low", "high"))
    if "n/a" in (low, high):
        return "n/a"
    return f"{low} to {high}" if signs or low.startswith("-") else f"{low}-{high}"


def signed(value: float | None) -> str:
    """Three decimals and a sign; "n/a" where there is no number."""
    return "n/a" if value is None or math.isnan(value) else f"{value:+.3f}"


def _film_uri(film: npt.NDArray[np.uint8]) -> str:
    """A film [H, W] as a `data:` address, made smaller where it is large."""
    image = Image.fromarray(film)
    image.thumbnail((_PIXELS, _PIXELS))
    file = BytesIO()
    image.save(file, format="PNG", optimize=True)
    return _uri(file.getvalue(), "png")


def findings(numbers: Mapping[str, Any]) -> dict[str, str]:
    """What each figure shows, in a sentence with its numbers; "" where there is nothing to tell."""
    counts = np.asarray(numbers["confusion"])
    names = grade_names(len(counts))
    away = np.abs(np.subtract.outer(np.arange(len(counts)), np.arange(len(counts))))
    films, right = int(counts.sum()), int(counts[away == 0].sum())
    diagonal = f"Of {films} films {right} ({right / max(films, 1):.1%}) lie on the diagonal, "
    diagonal += f"{counts[away == 1].sum()} one grade off, {counts[away > 1].sum()} further."
    missed = np.where(away > 0, counts, 0)
    if missed.any():
        row, column = np.unravel_index(missed.argmax(), missed.shape)
        diagonal += f" The most frequent mistake: {names[row]} graded {names[column]} ({missed.max()})."
    texts = {"confusion": diagonal, "reliability": "", "referral": "", "coverage": "", "gate": ""}

    before, after = (_surer_than_right(numbers["reliability"][kind]) for kind in ("uncalibrated", "calibrated"))
    if before is not None and after is not None:
        texts["reliability"] = (
            f"On average the likeliest grade's probability is {_gap(before)} before calibration, {_gap(after)} after."
        )
    curve = [point for point in numbers["referral_curve"] if point["error"] is not None]
    if curve:
        start, later = curve[0], min(curve, key=lambda point: abs(point["referral_rate"] - 0.2))
        texts["referral"] = f"With {start['referral_rate']:.0%} referred, {start['error']:.1%} of the rest are wrong; "
        texts["referral"] += f"with {later['referral_rate']:.0%} referred, {later['error']:.1%}."
    rows = [row for row in numbers["coverage_by_grade"] or [] if row["value"] is not None]
    if rows:
        least = min(rows, key=lambda row: float(row["value"]))
        texts["coverage"] = f"Least covered is {names[least['grade']]}: {least['value']:.1%} of {least['films']} films."
    heaviest = []
    for grade, name in enumerate(names):
        weights = {key: row[grade] for key, row in (numbers["gate_by_grade"] or {}).items() if row[grade] is not None}
        if weights:
            key = max(weights, key=lambda key: float(weights[key]))
            heaviest.append(f"{name} {key} ({weights[key]:.3f})")
    texts["gate"] = f"Weighs most at {', '.join(heaviest)}." if heaviest else ""
    return texts


def _surer_than_right(bins: Sequence[Mapping[str, Any]]) -> float | None:
    used = [level for level in bins if level["films"] and level["accuracy"] is not None]
    films = sum(level["films"] for level in used)
    return sum(level["films"] * (level["confidence"] - level["accuracy"]) for level in used) / films if films else None


def _gap(surer: float) -> str:
    return f"{abs(surer):.3f} {'above' if surer > 0 else 'below'} the share that is right"


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{b64encode(data).decode()}"
