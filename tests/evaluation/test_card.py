import json
import re
from html import unescape
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from evaluations import FACTS, config_of
from graded_films import by_hand, graded_films
from legradnet.errors import UserError
from legradnet.evaluation import checklist
from legradnet.evaluation.card_page import Evaluation, card_text, foreign, read_evaluation, slug
from legradnet.evaluation.facts import Facts, facts_text, read_facts
from legradnet.evaluation.numbers import by_true_grade, metric_values, mistakes, referred_for
from legradnet.evaluation.report import WORDS, interval, number
from legradnet.evaluation.run import evaluate

HOSTILE = "<script>alert(1)</script>![x](https://x.example/y) [a](b) | `c` *d* # {{ 7*7 }}"
TRIPOD = (
    "1 2 3a 3b 3c 4 5a 5b 6a 6b 6c 7 8a 8b 8c 9a 9b 9c 10 11 12a 12b 12c 12d 12e 12f 12g 13 14 15 16 17 18a 18b 18c "
    "18d 18e 18f 19 20a 20b 20c 21 22 23a 23b 24 25 26 27a 27b 27c"
)
markdown = MarkdownIt("commonmark").enable("table")


@pytest.fixture(scope="module")
def evaluation(own):
    return read_evaluation(own)


@pytest.fixture(scope="module")
def card(own):
    return (own / "card.md").read_text()


def rows_of(card):
    """Cells of every row of every table."""
    return [[cell.strip() for cell in line.strip("|").split(" |")] for line in card.splitlines() if line[:1] == "|"]


def sections_of(card):
    return {part.splitlines()[0]: part for part in card.split("\n## ")[1:]}


def test_the_card_is_made_of_the_evaluations_json_and_the_facts_alone(evaluation, card):
    assert card_text(evaluation) == card
    numbers = json.loads(json.dumps(evaluation.numbers))
    numbers["metrics"]["qwk"]["value"] = 0.123456
    assert "0.123 (" in card_text(Evaluation(numbers, evaluation.facts))


def test_every_number_on_the_card_is_the_evaluations_with_its_interval(evaluation, card):
    rows = dict(row for row in rows_of(card) if len(row) == 2)
    for name, metric in evaluation.numbers["metrics"].items():
        label = f"F1 of KL {name[-1]}" if name.startswith("f1_") else WORDS[name][0]
        known = f"{number(metric['value'])} ({interval(metric)})"
        assert rows[label] == (known if metric["value"] is not None else "n/a"), name
    whole = [row[1:] for row in rows_of(sections_of(card)["Joint blanked out"])]
    masked, metrics = evaluation.numbers["joint_masked"], evaluation.numbers["metrics"]
    assert [number(metrics["qwk"]["value"]), number(masked["qwk"]["value"])] in [
        [cell.split(" ")[0] for cell in row] for row in whole
    ]


def test_the_card_measures_by_side_and_by_true_grade(evaluation, card):
    sections = sections_of(card)
    sides = {row[0]: row[1:3] for row in rows_of(sections["Subgroups"])}
    for side, measured in evaluation.numbers["subgroups"]["side"].items():
        assert sides[side] == [str(measured["films"]), str(measured["patients"])]
    grades = [row for row in rows_of(sections["By true grade"]) if len(row) == 7 and row[0].startswith("KL")]
    assert [int(row[1]) for row in grades] == evaluation.numbers["by_grade"]
    assert all(
        row[3].startswith(number(evaluation.numbers["metrics"][f"f1_{i}"]["value"])) for i, row in enumerate(grades)
    )


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("Use", "it is no medical device"),
        ("Data", "- **Knees**: generated; licence: CC BY 4.0; doi:10.17632/56rmx5bjcr.1"),
        ("Reference standard", "drawing program"),
        ("Starting weights", "- **Nothing**: drawn at random; licence: Apache-2.0"),
        ("Model", "- **Backbones**: swin (tiny"),
        ("Training", "- **Minutes**: 1,234"),
        ("Training", "- **Energy**: 0.25 kWh; estimated"),
        ("Training", "\n    legradnet-train experiment=quickstart seed=3\n"),
        ("Known failures", "- 3 of 4 feet are graded"),
        ("Other films", "| a\\|b | 2 | 1 |"),
        ("Limits", "- measured where it was trained"),
        ("Licence and thanks", "The weights' licence: mit."),
        ("Licence and thanks", "**Knees.** We thank *them*."),
        ("What CLAIM 2024 and TRIPOD+AI ask", "| 13 |  | How films were taken | by a drawing program |"),
        ("What CLAIM 2024 and TRIPOD+AI ask", "not available: age, sex, body mass index, centre |"),
    ],
)
def test_what_the_author_knows_is_in_its_place(card, section, words):
    assert words in sections_of(card)[section]


def test_warnings_and_the_limit_of_use_come_before_any_number(card):
    numbers = card.index("\n## Numbers")
    assert card.index("no medical device") < card.index("> Measured on GENERATED knees") < numbers


def test_every_item_of_claim_and_of_tripod_ai_has_its_row():
    names = [name for item in checklist.ITEMS for name in item.names]
    assert sorted(int(name[6:]) for name in names if name.startswith("CLAIM ")) == list(range(1, 45))
    assert {name[10:] for name in names if name.startswith("TRIPOD+AI")} == set(TRIPOD.split())


def test_an_item_is_answered_by_a_section_that_is_there_or_is_not_available(card, evaluation):
    bare = card_text(Evaluation(evaluation.numbers, Facts()))
    for text in (card, bare):
        headings = {slug(heading) for heading in re.findall(r"^##+ (.*)$", text, re.MULTILINE)}
        assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= headings
        assert all(row[3] for row in rows_of(sections_of(text)["What CLAIM 2024 and TRIPOD+AI ask"]))
    assert "| 7 | 5a | Sources of the data | [Data](#data) |" in card
    assert "| 7 | 5a | Sources of the data | not available |" in bare


def test_a_column_that_films_were_measured_by_is_available():
    def answer(*columns):
        found = checklist.answers(("Subgroups",), columns, {})
        return next((there, words) for item, there, words in found if item.claim == "36")

    assert answer("side") == ((), "not available: age, sex, body mass index, centre")
    assert answer("side", "Sex", "BMI") == (("Subgroups",), "not available: age, centre")
    assert answer("age", "gender", "bmi", "site") == (("Subgroups",), "")


def test_the_page_and_the_card_answer_the_checklist_alike(own, card):
    page = re.sub(r"<[^>]*>", "", (own / "report.html").read_text().split('aria-label="Checklist"')[1])
    for row in rows_of(sections_of(card)["What CLAIM 2024 and TRIPOD+AI ask"])[2:]:
        links = re.sub(r"(, )?\[(Other films|Licence and thanks)\]\([^)]*\)(, )?", "", row[3])  # of the card alone
        answer = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", links)
        assert answer in unescape(page), row


def test_other_peoples_text_is_shown_and_is_no_markup(evaluation):
    numbers = json.loads(json.dumps(evaluation.numbers))
    numbers["warnings"] = ["# " + HOSTILE, "1. " + HOSTILE]
    numbers["subgroups"] = {HOSTILE: {HOSTILE: numbers["subgroups"]["side"]["L"]}}
    numbers["referred_for"] = {HOSTILE: 3}
    numbers["about"]["Model"] = {"Backbones": HOSTILE}
    tokens = markdown.parse(card_text(Evaluation(numbers, Facts())))
    inner = [child for token in tokens for child in token.children or []]
    assert not [token for token in (*tokens, *inner) if token.type in ("html_block", "html_inline", "image")]
    links = {child.attrs["href"] for child in inner if child.type == "link_open"}
    assert all(link.startswith(("#", "https://doi.org/")) for link in links)
    headings = [text.content for opened, text in pairwise(tokens) if opened.type == "heading_open"]
    assert headings and not [heading for heading in headings if "alert" in heading]
    shown = ["".join(child.content for child in token.children) for token in tokens if token.type == "inline"]
    assert sum(text.count(HOSTILE) for text in shown) == 6


@given(st.text() | st.from_regex(r"(\d{1,3}[.)]|[-+*#>=~]+)( .*)?", fullmatch=True))
def test_any_text_of_others_is_one_line_that_shows_it(text):
    (paragraph, *_) = [*markdown.parse(f"> {foreign(text)}x"), None][2:3] or [None]
    words = " ".join(text.split()).replace("\0", "\ufffd")
    assert paragraph is not None and {child.type for child in paragraph.children} <= {"text", "text_special"}
    assert "".join(child.content for child in paragraph.children) == f"{words}x"


def test_facts_are_read_as_they_were_written(own, tmp_path):
    facts = read_facts(own / "facts.yaml")
    (tmp_path / "facts.yaml").write_text(FACTS)
    assert facts == read_facts(tmp_path / "facts.yaml")
    (tmp_path / "again.yaml").write_text(facts_text(facts))
    assert read_facts(tmp_path / "again.yaml") == facts


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "minutes: 3\ntraining: {minutes: -1}\n",
            r"training.minutes=-1 must be .*\n  minutes is unknown; there are name",
        ),
        ("checklist: {CLAIM 45: never}", "has no item CLAIM 45"),
        ("data: [{licence: MIT}]", r"data\.0\.name= is needed"),
        ("a: [", "can't be read as YAML, line"),
        ("- 3", "must be a group of keys"),
        ("limits: &a [x]\nfailures: *a", "is refused: a name like"),
        (None, "There is no"),
    ],
)
def test_mistakes_in_a_file_of_facts_are_told_before_the_work(best, tmp_path, monkeypatch, text, words):
    if text is not None:
        (tmp_path / "facts.yaml").write_text(text)
    monkeypatch.setattr("legradnet.evaluation.run.Grader", None)
    with pytest.raises(UserError, match=words):
        evaluate(config_of(best, facts=str(tmp_path / "facts.yaml")), tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "must be a JSON object"),
        ("{", "must be a JSON object"),
        ('{"comparisons": []}', "compares several checkpoints"),
        ('{"metrics": {}}', "has no films, .*: it is damaged, or of an older version"),
        (None, "holds no evaluation"),
    ],
)
def test_a_folder_without_an_evaluation_is_told(tmp_path, content, words):
    if content is not None:
        (tmp_path / "metrics.json").write_text(content)
    with pytest.raises(UserError, match=words):
        read_evaluation(tmp_path)


@pytest.mark.parametrize(
    "key", ["metrics", "confusion", "by_true_grade", "about", "reliability", "mistakes", "examples"]
)
@pytest.mark.parametrize("value", ["a", 3, [[]], {"a": "b"}], ids=str)
def test_numbers_that_are_none_are_told_in_words(own, tmp_path, key, value):
    numbers = json.loads((own / "metrics.json").read_text())
    (tmp_path / "metrics.json").write_text(json.dumps({**numbers, key: value}))
    with pytest.raises(UserError, match=r"metrics\.json is damaged: no card"):
        read_evaluation(tmp_path)


def test_films_of_each_true_grade_are_measured_by_themselves():
    graded = graded_films(60)
    rows = by_true_grade(graded, resamples=20)
    for grade, row in enumerate(rows):
        mine = graded.subset(graded.labels == grade)
        assert (row["grade"], row["films"]) == (grade, len(mine))
        values = metric_values(mine)
        assert {name: row[name]["value"] for name in ("accuracy", "mae", "coverage", "referral_rate")} == {
            name: pytest.approx(values[name]) for name in ("accuracy", "mae", "coverage", "referral_rate")
        }
    missing = by_true_grade(graded_films(20, true_grades=[0, 2]), resamples=20)
    assert missing[1] == {"grade": 1, "films": 0}


def test_mistakes_that_cost_most_are_counted():
    assert mistakes(by_hand()) == {"far_and_kept": 0, "sure": 1, "sure_and_wrong": 0}
    graded = graded_films(60)
    graded.referred[:] = False
    found = mistakes(graded)
    assert found["far_and_kept"] == (abs(graded.grades - graded.labels) > 1).sum() > 0
    assert found["sure"] == (graded.confidence >= 0.9).sum()


def test_reasons_of_referral_are_counted_and_remarks_are_none():
    graded = graded_films(5)
    graded.referred[:] = [True, True, True, True, False]
    unsure = "unsure: probability 0.{} of its grade is below 0.50"
    frames = "the first of 3 frames"
    reasons = [unsure.format(40), f"unsure; {frames}", f"blank; {unsure.format(31)}", "blank", frames]
    graded.reasons[:] = reasons
    assert referred_for(graded, ["", "", "blank", "blank", ""]) == {"unsure of the grade": 3, "blank": 2}
