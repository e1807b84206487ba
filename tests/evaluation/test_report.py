import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from test_figures import BACKBONES, graded_knees, measured, numbers_of, without_values

from legradnet.data.drawn_knee import draw_knee
from legradnet.data.remarks import by_kind
from legradnet.evaluation.graded import Graded
from legradnet.evaluation.report import WORDS, Mistake, Report, findings, interval, number, write_figures, write_report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}"
FACTS = {
    "Data": {
        "films": "generated knees, 224 px",
        "labels": "KL 0-4, drawn with the film",
        "source": "legradnet-synthesize",
    },
    "Split": {
        "rule": "by patient, stratified by grade",
        "train": "1,240 films",
        "val": "264 films",
        "test": "412 films",
    },
    "Model": {"backbones": ", ".join(BACKBONES), "gate": "mha", "feature_dim": "256", "parameters": "12.4 million"},
    "Training": {
        "loss": "corn",
        "epochs": "30, best 24 by val/qwk",
        "optimizer": "AdamW, learning rate 0.001",
        "seed": "0",
    },
    "Calibration": {"films": "264 validation films", "temperature": "1.31", "coverage": "0.9, for each grade"},
    "Versions": {"legradnet": "0.1.0", "torch": "2.14.1", "timm": "1.0.31", "python": "3.11.9"},
}


def graded_of(labels, probabilities, backbones=BACKBONES):
    films = len(labels)
    table = pd.DataFrame({"filename": [f"{index:03}.png" for index in range(films)], "label": labels})
    return Graded(
        table=table.assign(patient="", side=""),
        grades=probabilities.argmax(axis=1),
        probabilities=probabilities,
        raw=probabilities**1.3,
        sets=None,
        referred=np.zeros(films, bool),
        reasons=[""] * films,
        gate_weights=None,
        backbones=tuple(backbones),
    )


def report_of(films=412, classes=5, backbones=BACKBONES, sets=True, **changes):
    """A report as the command fills it, with nothing in it but what `changes` adds."""
    labels, probabilities = graded_knees(films, classes)
    numbers = numbers_of(labels, probabilities, backbones, sets)
    graded = graded_of(labels, probabilities, backbones or ("densenet", "swin"))
    return Report(**({"title": "quickstart, test split", "numbers": numbers, "graded": graded} | changes))


def full_report(name="9001695L.png", value="clinic A", reason="not sure enough: 0.41 of 0.55"):
    """A report with every section; `name`, `value` and `reason` stand for other people's text."""
    report = report_of()
    metrics = report.numbers["metrics"]
    random = np.random.default_rng(1)

    def part(films):
        shifted = {
            key: measured(row["value"] - random.uniform(0, 0.03), 0.9 / films**0.5) for key, row in metrics.items()
        }
        return {"films": films, "patients": films // 2 + 1, "metrics": shifted}

    mistakes = []
    for label, grade in ((0, 3), (3, 0), (4, 1), (1, 4), (2, 0), (0, 2), (3, 1), (1, 3), (2, 4), (4, 2)):
        probabilities = random.dirichlet(1 + 6 * np.exp(-np.square(np.arange(5) - grade)))
        film = draw_knee(label, "L", np.random.default_rng(label * 5 + grade))
        words = reason if len(mistakes) % 2 else ""
        mistakes.append(
            Mistake(film, name, label, grade, probabilities.tolist(), f"{min(label, grade)} to {grade}", words)
        )
    masked = {key: measured(row["value"] * 0.5) for key, row in metrics.items()} | {
        "accuracy": measured(0.412),
        "mae": measured(1.12),
    }
    differences = {
        "accuracy": {"a": 0.711, "b": 0.742, "difference": 0.031, "low": 0.004, "high": 0.058},
        "qwk": {"a": 0.842, "b": 0.851, "difference": 0.009, "low": -0.012, "high": 0.029},
        "mae": {"a": 0.312, "b": 0.281, "difference": -0.031, "low": -0.060, "high": -0.003},
        "coverage": {"a": 0.904, "b": None, "difference": None, "low": None, "high": None},
    }
    return report_of(
        subgroups={
            "side": {"L": part(208), "R": part(204)},
            "site": {value: part(250), "clinic B": part(120), "": part(42)},
            "sex": {"female": part(240), "male": part(172)},
        },
        joint_masked=masked,
        mistakes=mistakes,
        facts=FACTS,
        warnings=[
            "Measured on GENERATED knees: says nothing about real films.",
            "47 of these films were in the training split.",
        ],
        comparisons=[{"names": ["gating=mha", "gating=mean"], "metrics": differences}],
    )


class Page(HTMLParser):
    """Tags, visible text and tables of a page; fails on tags that are not closed in order."""

    VOID = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.words = [], [], []
        self.feed(text)
        assert self.open == []
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def written(report, folder):
    write_report(report, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return written(full_report(), tmp_path_factory.mktemp("page"))


def test_page_loads_nothing_and_runs_nothing(text):
    page = Page(text)
    forbidden = {"script", "link", "iframe", "object", "embed", "base", "form", "video", "audio", "svg"}
    assert forbidden.isdisjoint(tag for tag, _ in page.tags)
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert all(image["src"].startswith("data:image/") for image in page.all("img"))
    assert not re.search(r"url\(|@import|srcset", text)
    links = [link["href"] for link in page.all("a")]
    assert all(link.startswith(("#", "https://doi.org/")) for link in links)
    policy = [meta["content"] for meta in page.all("meta") if "content-security" in str(meta).lower()]
    assert policy == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def test_page_can_be_read_without_seeing_it(text):
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in page.all("img"))
    names = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(names) == len(set(names))
    assert {link["href"][1:] for link in page.all("a") if link["href"].startswith("#")} <= set(names)
    assert {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes} <= set(
        names
    )
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3")]
    assert levels.count(1) == 1


def test_every_metric_is_in_the_table_with_its_interval(text):
    report, page = full_report(), Page(text)
    for name, metric in report.numbers["metrics"].items():
        label = f"F1 of KL {name[-1]}" if name.startswith("f1_") else WORDS[name][0]
        assert re.search(rf"{re.escape(label)} [^()]*{number(metric['value'])} \({interval(metric)}\)", page.text), name


def test_a_metric_the_page_does_not_know_is_shown_all_the_same(tmp_path, blank_figures):
    report = report_of(30, 3, (), sets=False)
    report.numbers["metrics"]["spearman"] = measured(0.777)
    assert "spearman 0.777 (0.747-0.801)" in Page(written(report, tmp_path)).text


def test_warnings_and_the_limit_of_use_come_before_any_number(text):
    words = Page(text).text
    first_tile = words.index("Quadratic weighted kappa")
    for told in ("GENERATED knees", "47 of these films", "Not for diagnosis without a clinician."):
        assert words.index(told) < first_tile


def test_other_peoples_text_is_shown_and_never_run(tmp_path, blank_figures):
    report = full_report(HOSTILE, HOSTILE, HOSTILE)
    hostile = {HOSTILE: report.subgroups["site"]}
    text = written(
        report_of(
            title=HOSTILE,
            subgroups=hostile,
            mistakes=report.mistakes,
            warnings=[HOSTILE],
            facts={HOSTILE: {HOSTILE: HOSTILE}},
            comparisons=[{"names": [HOSTILE, HOSTILE], "metrics": {HOSTILE: report.comparisons[0]["metrics"]["qwk"]}}],
            backbones=(HOSTILE, "swin"),
        ),
        tmp_path,
    )
    page = Page(text)
    assert "<script" not in text
    assert not page.all("script")
    assert not [attributes for _, attributes in page.tags if "onerror" in attributes]
    assert page.text.count("<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7*7 }}") > 10


def test_what_was_found_in_films_is_counted_with_names_and_refers_none_by_itself(tmp_path, blank_figures):
    films = [(f"{number}.dcm", ["the first of 19 frames"]) for number in range(12)]
    told = Mistake(
        np.zeros((8, 8), np.uint8), "0.dcm", 0, 2, [0.3] * 3, reason="the first of 19 frames", referred=False
    )
    text = Page(written(report_of(30, 3, (), sets=False, remarks=by_kind(films), mistakes=[told]), tmp_path)).text
    assert "the first of 19 frames 12 0.dcm, 1.dcm, 2.dcm" in text
    assert "9.dcm and 2 more" in text
    assert "Not referred: the first of 19 frames" in text
    assert "Referred: the first" not in text.replace("Not referred: the first", "")


def test_a_file_name_that_is_not_utf8_does_not_stop_the_page(tmp_path, blank_figures):
    mistake = Mistake(np.zeros((8, 8), np.uint8), b"knee_\xff.png".decode(errors="surrogateescape"), 0, 2, [0.3] * 3)
    assert "knee_?.png" in Page(written(report_of(30, 3, (), sets=False, mistakes=[mistake]), tmp_path)).text


def test_what_could_not_be_measured_is_not_a_number(tmp_path):
    report = full_report()
    nothing = without_values(report.numbers)
    rows = {"L": {"films": 0, "patients": 0, "metrics": nothing["metrics"]}}
    page = Page(
        written(
            report_of(numbers=nothing, subgroups={"side": rows}, joint_masked=nothing["metrics"], graded=report.graded),
            tmp_path,
        )
    )
    assert page.text.count("n/a") > len(nothing["metrics"])
    assert not re.search(r"\bNone\b|\bnan\b", page.text)


def test_numbers_have_three_decimals_and_readable_intervals():
    assert number(0.8125) == "0.812"
    assert number(None) == number(float("nan")) == "n/a"
    assert interval(measured(0.82)) == "0.790-0.844"
    assert interval({"low": -0.01, "high": 0.02}) == "-0.010 to 0.020"
    assert interval({"low": -0.01, "high": 0.02}, signs=True) == "-0.010 to +0.020"
    assert interval({"low": None, "high": 0.02}) == "n/a"


def test_a_difference_is_marked_where_its_interval_excludes_0(text):
    rows = re.findall(r"<tr[^>]*><th scope=\"row\" class=\"word\">([^<]*)</th>(.*?)</tr>", text)
    marked = {name: "excludes 0" in cells for name, cells in rows if "to +" in cells or "to -" in cells}
    assert marked == {"Accuracy": True, "Quadratic weighted kappa": False, "Mean absolute error": True}
    assert "0.711 0.742 +0.031 (+0.004 to +0.058)" in Page(text).text


@pytest.mark.parametrize(
    ("accuracy", "kappa", "verdict"),
    [
        (0.62, 0.0, "part of what the network knows does not come from the joint"),
        (0.47, 0.2, "part of what the network knows does not come from the joint"),
        (0.47, 0.0, "no shortcut"),
    ],
)
def test_shortcut_test_is_judged_by_kappa_and_by_the_most_frequent_grade(
    tmp_path, blank_figures, accuracy, kappa, verdict
):
    report = report_of(60, 3, (), sets=False)
    assert max(report.numbers["by_grade"]) / 60 == 0.45
    masked = report.numbers["metrics"] | {"accuracy": measured(accuracy), "qwk": measured(kappa)}
    assert verdict in Page(written(replace(report, joint_masked=masked), tmp_path)).text


def test_captions_tell_what_the_figures_show():
    labels = np.array([0, 0, 1, 2, 2, 2])
    numbers = numbers_of(labels, np.eye(3)[[0, 0, 1, 2, 1, 0]], (), sets=False)
    numbers["gate_by_grade"] = {"vit": [0.6, 0.3, None], "swin": [0.4, 0.7, None]}
    told = findings(numbers)
    assert told["confusion"].startswith("Of 6 films 4 (66.7%) lie on the diagonal, 1 one grade off, 1 further.")
    assert told["gate"] == "Weighs most at grade 0 vit (0.600), grade 1 swin (0.700)."
    assert told["coverage"] == ""


@pytest.mark.parametrize("films", [1, 60])
@pytest.mark.parametrize(("classes", "backbones", "sets"), [(3, (), False), (5, ("vit", "swin"), True), (5, (), False)])
def test_page_holds_only_what_there_is(tmp_path, films, classes, backbones, sets):
    report = report_of(films, classes, backbones, sets)
    page = Page(written(report, tmp_path))
    assert ("Prediction sets" in page.text) == sets
    assert ("gate weight" in " ".join(image["alt"] for image in page.all("img"))) == bool(backbones)
    assert ("KL 2 or more" in page.text) == (classes == 5)
    for absent in ("Shortcut test", "Worst mistakes", "Other runs", "Read before any number"):
        assert absent not in page.text


def test_figures_are_written_as_files_one_each(tmp_path):
    full = write_figures(report_of(60), tmp_path / "figures")
    assert {file.name for file in full} == {
        f"{name}.png" for name in ("confusion", "roc", "reliability", "referral", "gate", "coverage")
    }
    few = write_figures(report_of(60, 3, (), sets=False), tmp_path / "few")
    assert {file.name for file in few} == {"confusion.png", "reliability.png", "referral.png"}
    for file in full + few:
        assert file.read_bytes().startswith(b"\x89PNG")
    assert sorted((tmp_path / "figures").iterdir()) == sorted(full)
