"""The card of an evaluated model as Markdown: the same evaluation and the same facts give the same card."""

import html
import json
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from legradnet.errors import UserError
from legradnet.evaluation import checklist
from legradnet.evaluation.card import FITTED, with_facts
from legradnet.evaluation.facts import FACTS, Facts, read_facts
from legradnet.evaluation.report import BRIEF, WORDS, interval, metric_groups, number
from legradnet.figures import grade_names

NUMBERS = "metrics.json"  # of an evaluation's run folder
SHIPPED_NUMBERS = "evaluation.json"  # of a model folder, and knees that the model was tried on
SHIPPED_KNEES = "knees.json"
CARD = "card.md"
_MARKS = re.compile(r"([\\`*\[\]|~!$]|(?<!\w)_|_(?!\w)|^[#+=-])")
_NUMBERED = re.compile(r"^(\d+)(?=[.)](\s|$))")
_MOST_BYTES = 10_000_000
_NEEDED = (
    *(
        "films",
        "patients",
        "split",
        "crossfit",
        "by_grade",
        "confusion",
        "reliability",
        "metrics",
        "by_true_grade",
        "mistakes",
    ),
    *("referred_for", "subgroups", "joint_masked", "warnings", "resamples", "seed", "confidence_level"),
    *("about", "digests"),
)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation measured, and what its author says of the model.

    Attributes:
        numbers: What `metrics.json` says.
        facts: Of the model; those of a model of which nothing is known where there is no file of them.
    """

    numbers: Mapping[str, Any]
    facts: Facts

    @property
    def calibrated(self) -> bool:
        """Whether probabilities were calibrated."""
        reliability = self.numbers["reliability"]
        return reliability["calibrated"] != reliability["uncalibrated"]


def read_evaluation(folder: Path) -> Evaluation:
    """Read what `legradnet-evaluate` left in a run folder, or what lies beside a shipped model's weights.

    Raises:
        UserError: There is none, or it is damaged, of several checkpoints, or of an older version.
    """
    knees = folder / SHIPPED_KNEES
    path = next((folder / name for name in (NUMBERS, SHIPPED_NUMBERS) if (folder / name).is_file()), None)
    if path is None:
        raise UserError(f"{folder} holds no evaluation: legradnet-evaluate leaves its {NUMBERS} in its run folder.")
    try:
        numbers = json.loads(path.read_text(encoding="utf-8")) if path.stat().st_size <= _MOST_BYTES else None
        if isinstance(numbers, dict) and knees.is_file():
            numbers["examples"] = json.loads(knees.read_text(encoding="utf-8"))["knees"]
    except (ValueError, RecursionError, LookupError, TypeError):
        numbers = None
    if not isinstance(numbers, dict):
        raise UserError(f"{path} is damaged: it must be a JSON object of numbers.")
    if "comparisons" in numbers:
        raise UserError(f"{path} compares several checkpoints: name the folder of one of them, {folder / '1'}.")
    if missing := [name for name in _NEEDED if name not in numbers]:
        raise UserError(f"{path} has no {', '.join(missing)}: it is damaged, or of an older version; evaluate again.")
    facts = read_facts(folder / FACTS) if (folder / FACTS).is_file() else Facts()
    evaluation = Evaluation(numbers, facts)
    try:
        card_text(evaluation)
    except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged: no card can be written from it ({error}).") from error
    return evaluation


def card_text(evaluation: Evaluation) -> str:
    """The card, in Markdown as GitHub and the hub show it."""
    numbers, facts = evaluation.numbers, evaluation.facts
    environment = Environment(
        loader=PackageLoader("legradnet.evaluation", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"number": number, "interval": interval, "foreign": foreign, "cell": cell, "slug": slug}
    sections = with_facts(numbers["about"], facts)
    there = {*sections, *checklist.measured(numbers["subgroups"], numbers["joint_masked"])}
    there |= {checklist.OTHERS} if facts.tables else set()
    there |= {checklist.LICENCE} if facts.licence else set()
    groups = metric_groups(numbers["metrics"])
    page = environment.get_template("card.md.j2").render(
        numbers=numbers,
        facts=facts,
        sections=sections,
        metrics=numbers["metrics"],
        groups={title: {name: words for name, (words, _) in group.items()} for title, group in groups.items()},
        words={name: words for name, (words, _) in WORDS.items()},
        brief={name: short for name, short in BRIEF.items() if name in numbers["metrics"]},
        grades=grade_names(len(numbers["by_grade"])),
        level=f"{numbers['confidence_level'] * 100:g} %",
        calibrated=evaluation.calibrated,
        far=far_off(numbers["confusion"]),
        titles=checklist,
        fitted=FITTED,
        answers=checklist.answers(there, numbers["subgroups"], facts.checklist),
        not_available=checklist.NOT_AVAILABLE,
        thanks=[source for source in (*facts.data, *facts.starting_weights) if source.thanks],
    )
    return re.sub(r"\n{3,}", "\n\n", page).lstrip().encode(errors="replace").decode()


def far_off(confusion: Collection[Collection[int]]) -> list[int]:
    """How many films are graded 0, 1, 2 ... grades off their true one, from counts by true grade and grade given."""
    away = [0] * len(confusion)
    if any(len(row) != len(confusion) for row in confusion):
        raise ValueError("there are not as many grades given as true ones")
    for label, row in enumerate(confusion):
        for grade, films in enumerate(row):
            away[abs(label - grade)] += films
    return away


def foreign(text: Any) -> str:
    """Other people's text as Markdown that shows it on one line: no markup, no HTML."""
    line = html.escape(" ".join(str(text).split()), quote=False)
    return _NUMBERED.sub(r"\1\\", _MARKS.sub(r"\\\1", line))


def cell(value: Any) -> str:
    """An author's cell of a table, whose Markdown is theirs: one line without a `|` of its own."""
    if isinstance(value, float):
        return "n/a" if math.isnan(value) else f"{value:g}"
    return " ".join(str(value).split()).replace("|", "\\|")


def slug(title: str) -> str:
    """What `#` leads to a heading: small letters, spaces as hyphens, no other signs."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
