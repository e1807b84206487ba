"""What the pages tell of the shipped model is what its evaluation says."""

import json
import re
import shutil
from pathlib import Path

import pytest

import shipped_pages
from legradnet import Grader
from legradnet.evaluation.card_page import card_text, read_evaluation
from legradnet.evaluation.facts import read_facts

ROOT = Path(__file__).parents[1]
needs_the_model = pytest.mark.skipif(
    not (shipped_pages.MODEL / "evaluation.json").is_file(), reason="there is no shipped model in this build"
)


@pytest.fixture
def model(own, trained, tmp_path):
    """A model folder beside which its evaluation lies, and a README of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    shutil.copy(own / "metrics.json", folder / "evaluation.json")
    film = {"filename": "a.png", "label": 2, "grade": 3, "probabilities": [0, 0.1, 0.3, 0.6, 0]}
    knees = {"knees": [{**film, "prediction_set": [2, 3], "referred": True}]}
    (folder / "knees.json").write_text(json.dumps(knees))
    shutil.copy(own / "facts.yaml", folder)
    shutil.copy(ROOT / "README.md", tmp_path)
    return folder


def test_the_pages_are_written_from_the_evaluation_and_again_the_same(model):
    page = model.parent / "README.md"
    shipped_pages.main([], model, page)
    card, readme = (model / "README.md").read_text(), page.read_text()
    numbers = json.loads((model / "evaluation.json").read_text())
    for name in ("qwk", "accuracy", "mae"):
        assert f"{numbers['metrics'][name]['value']:.3f} (" in readme
        assert f"{numbers['metrics'][name]['value']:.3f} (" in card
    assert "grade **3**; probabilities of 0 to 4: 0.00, 0.10, 0.30, 0.60, 0.00; plausible: 2 or 3" in readme
    assert "| a.png | 2 | 3 | 0.000 | 0.100 | 0.300 | 0.600 | 0.000 | 2 3 | yes |" in card
    assert len(readme.encode()) <= 9 * 1024
    around = [shipped_pages.BLOCK.sub("", text) for text in (readme, (ROOT / "README.md").read_text())]
    assert around[0] == around[1]
    shipped_pages.main([], model, page)
    assert (card, readme) == ((model / "README.md").read_text(), page.read_text())


def test_a_number_that_is_no_longer_the_evaluations_is_noticed(model):
    page = model.parent / "README.md"
    shipped_pages.main([], model, page)
    told = page.read_text()
    numbers = json.loads((model / "evaluation.json").read_text())
    numbers["metrics"]["qwk"]["value"] = 0.999
    (model / "evaluation.json").write_text(json.dumps(numbers))
    evaluation = read_evaluation(model)
    assert shipped_pages.readme(told, evaluation) != told
    assert card_text(evaluation) != (model / "README.md").read_text()


def test_what_is_known_of_the_shipped_model_names_its_sources_and_their_licences():
    facts = read_facts(shipped_pages.MODEL / "facts.yaml")
    told = {source.name: (source.where, source.licence, source.thanks) for source in facts.data}
    assert told["Knee Osteoarthritis Severity Grading Dataset"][:2] == ("doi:10.17632/56rmx5bjcr.1", "CC BY 4.0")
    assert "N01-AR-2-2258" in told["Osteoarthritis Initiative"][2]
    (weights,) = facts.starting_weights
    for words in ("UNKNOWN", "Apache-2.0", "ImageNet"):
        assert words in weights.licence
    notice = (shipped_pages.MODEL / "NOTICE").read_text()
    thanks = re.sub(r"\s+", " ", notice)
    assert told["Osteoarthritis Initiative"][2].strip() in thanks
    for words in ("Apache License, Version 2.0", "10.17632/56rmx5bjcr.1", "CC BY 4.0"):
        assert words in thanks


@needs_the_model
def test_the_pages_of_the_shipped_model_are_those_of_its_evaluation():
    evaluation = read_evaluation(shipped_pages.MODEL)
    assert (shipped_pages.MODEL / "README.md").read_text(encoding="utf-8") == card_text(evaluation)
    page = shipped_pages.README.read_text(encoding="utf-8")
    assert shipped_pages.readme(page, evaluation) == page
    assert evaluation.numbers["digests"] == [Grader.load("oai").networks[0].digest]


@needs_the_model
def test_the_evaluation_of_the_shipped_model_is_small_and_names_no_place():
    text = (shipped_pages.MODEL / "evaluation.json").read_text()
    assert not re.search(r'[" ](/|[A-Z]:\\)\w', text)
    assert len(text) < 100_000
