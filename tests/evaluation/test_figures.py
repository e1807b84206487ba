from itertools import pairwise
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from legradnet.evaluation.figures import draw_figures
from legradnet.figures import picture

BACKBONES = ("densenet", "swin", "convnext", "vit", "xception")


def measured(value, width=0.03):
    """A metric as `measure` gives it."""
    return {
        "value": float(value),
        "low": max(float(value) - width, 0),
        "high": float(value) + 0.8 * min(width, abs(1 - value)),
    }


def numbers_of(labels, probabilities, backbones=BACKBONES, sets=True, seed=0):
    """Numbers shaped like those of `measure`, plausible but not checked: figures and page take them as they are."""
    random = np.random.default_rng(seed)
    films, classes = probabilities.shape
    grades = probabilities.argmax(axis=1)
    wrong, confidence = grades != labels, probabilities.max(axis=1)
    confusion = np.zeros((classes, classes), int)
    np.add.at(confusion, (labels, grades), 1)
    away = np.abs(grades - labels)
    names = {"accuracy": 1 - wrong.mean(), "balanced_accuracy": 0.691, "macro_f1": 0.684, "mae": away.mean()}
    names |= {f"f1_{grade}": value for grade, value in enumerate((0.81, 0.34, 0.69, 0.80, 0.88)[:classes])}
    names |= {"qwk": 0.842, "within_one": (away < 2).mean(), "rps": 0.061, "ece": 0.024}
    names |= {"rps_uncalibrated": 0.066, "ece_uncalibrated": 0.091}
    names |= {"referral_rate": 0.18, "accepted_accuracy": 0.781, "accepted_error": 0.219}
    roc = None
    if classes == 5:
        names |= {"auroc_kl2": 0.941, "sensitivity_kl2": 0.83, "specificity_kl2": 0.91, "auroc_kl2_uncalibrated": 0.94}
        rate = np.linspace(0, 1, 80)
        roc = {"false_positive_rate": rate, "true_positive_rate": rate**0.09, "thresholds": 1 - rate}
    if sets:
        names |= {"coverage": 0.904, "set_size": 1.62}
    ends = np.linspace(0, 1, 16)
    reliability = {}
    for kind, gap in (("calibrated", 0.01), ("uncalibrated", 0.08)):
        reliability[kind] = []
        for low, high in pairwise(ends):
            inside = int(((confidence > low) & (confidence <= high)).sum())
            values = {"confidence": (low + high) / 2, "accuracy": max((low + high) / 2 - gap, 0)} if inside else {}
            empty = {"low": low, "high": high, "films": inside, "confidence": None, "accuracy": None}
            reliability[kind].append(empty | values)
    curve = [0.05 + 0.26 * (1 - rate) ** 1.6 for rate in np.linspace(0, 0.95, 20)]
    return {
        "films": films,
        "patients": (films + 1) // 2,
        "by_grade": np.bincount(labels, minlength=classes).tolist(),
        "resamples": 2000,
        "seed": 0,
        "confidence_level": 0.95,
        "threshold": 0.5,
        "metrics": {name: measured(value) for name, value in names.items()},
        "coverage_by_grade": [
            {"grade": grade, "films": int(count)} | measured(0.93 - 0.03 * (grade == 1), 0.05)
            for grade, count in enumerate(np.bincount(labels, minlength=classes))
        ]
        if sets
        else None,
        "confusion": confusion.tolist(),
        "roc": roc,
        "reliability": reliability,
        "referral_curve": [
            {"referral_rate": rate, "error": error, "low": error - 0.03, "high": error + 0.03}
            for rate, error in zip(np.linspace(0, 0.95, 20), curve, strict=True)
        ],
        "gate_by_grade": dict(
            zip(backbones, random.dirichlet(np.full(len(backbones), 30), classes).T.tolist(), strict=True)
        )
        if backbones
        else None,
    }


def graded_knees(films=412, classes=5, seed=0):
    """True grades [N] and probabilities [N, K] of an imagined test split."""
    random = np.random.default_rng(seed)
    labels = random.choice(
        classes, films, p=np.array([0.38, 0.18, 0.27, 0.13, 0.04])[:classes] / [0, 0, 0, 0.83, 0.96, 1][classes]
    )
    seen = labels + random.normal(0, 0.62, films)
    logits = -1.6 * (np.arange(classes) - seen[:, None]) ** 2
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def without_values(numbers):
    """The same numbers where nothing could be measured."""
    nothing = {"value": None, "low": None, "high": None}
    blank = {name: dict(nothing) for name in numbers["metrics"]}
    bins = [each | {"films": 0, "confidence": None, "accuracy": None} for each in numbers["reliability"]["calibrated"]]
    return numbers | {
        "metrics": blank,
        "confusion": np.zeros_like(numbers["confusion"]).tolist(),
        "by_grade": [0] * len(numbers["by_grade"]),
        "coverage_by_grade": [row | nothing | {"films": 0} for row in numbers["coverage_by_grade"]],
        "roc": None,
        "reliability": {"calibrated": bins, "uncalibrated": bins},
        "referral_curve": [row | {"error": None, "low": None, "high": None} for row in numbers["referral_curve"]],
        "gate_by_grade": {name: [None] * len(values) for name, values in numbers["gate_by_grade"].items()},
    }


@pytest.fixture(scope="module")
def numbers():
    return numbers_of(*graded_knees())


def test_every_figure_has_labelled_axes(numbers):
    figures = draw_figures(numbers)
    assert set(figures) == {"confusion", "roc", "reliability", "referral", "gate", "coverage"}
    for name, figure in figures.items():
        assert figure.axes, name
        assert any(axes.get_xlabel() for axes in figure.axes), name
        assert any(axes.get_ylabel() for axes in figure.axes), name
    words = [axes.get_xlabel() + axes.get_ylabel() for axes in figures["reliability"].axes]
    assert sum(map(bool, words)) == 4 - 1  # the upper right one shares both of its neighbours' words


def test_confusion_shows_counts_and_shares_of_the_true_grade():
    numbers = numbers_of(np.array([0, 0, 0, 1]), np.eye(3)[[0, 0, 2, 1]], (), sets=False)
    [axes] = draw_figures(numbers)["confusion"].axes
    words = {tuple(np.round(text.get_position()).astype(int)): [] for text in axes.texts}
    for text in axes.texts:
        words[tuple(np.round(text.get_position()).astype(int))].append(text.get_text())
    assert words[(0, 0)] == ["2", "67%"]
    assert words[(2, 0)] == ["1", "33%"]  # x is the grade given, y the true one
    assert words[(1, 1)] == ["1", "100%"]
    assert words[(0, 2)] == ["0", "n/a"]  # no film has grade 2


def test_operating_point_lies_at_its_sensitivity_and_specificity(numbers):
    [axes] = draw_figures(numbers)["roc"].axes
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    assert points == [pytest.approx((1 - 0.91, 0.83))]


def test_gate_figure_has_a_line_and_a_name_for_each_backbone(numbers):
    figure = draw_figures(numbers)["gate"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(BACKBONES)
    drawn = [line.get_ydata() for line in figure.axes[0].lines if line.get_label() in BACKBONES]
    np.testing.assert_allclose(np.sum(drawn, axis=0), 1)


def test_figures_are_left_out_where_there_is_nothing_to_draw(numbers):
    assert set(draw_figures(without_values(numbers))) == {"confusion", "reliability", "coverage", "gate"}
    plain = numbers_of(*graded_knees(60, classes=3), backbones=(), sets=False)
    assert set(draw_figures(plain)) == {"confusion", "reliability", "referral"}


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_pictures_come_out_whole_whatever_backbones_are_called(kind):
    numbers = numbers_of(*graded_knees(30), backbones=("$x_{$", "<b>&--", "vit", "swin", "a", "b", "c", "d", "e"))
    for figure in [*draw_figures(numbers).values(), *draw_figures(without_values(numbers)).values()]:
        data = picture(figure, kind)
        if kind == "png":
            assert data.startswith(b"\x89PNG")
        else:
            assert b"<text" not in data  # paths: the same letters on machines without the font
            ElementTree.fromstring(data)


def test_drawing_changes_neither_settings_nor_the_next_picture(numbers):
    before = dict(matplotlib.rcParams)
    first, second = (picture(draw_figures(numbers)["gate"], "svg") for _ in range(2))
    assert first == second
    assert dict(matplotlib.rcParams) == before


@pytest.mark.filterwarnings("error")
def test_letters_that_the_font_lacks_are_drawn_as_a_sign_without_a_warning():
    figure = Figure(layout="constrained")
    title = figure.subplots().set_title("膝 ö\t\udcff $x$", parse_math=False)
    assert picture(figure, "png").startswith(b"\x89PNG")
    assert title.get_text() == "\ufffd ö\ufffd\ufffd $x$"
