"""A model folder with its card, as a hub shows it."""

import json
import shutil

import pytest
import yaml
from huggingface_hub import ModelCard

from legradnet.checkpoint import read_checkpoint, write_checkpoint
from legradnet.errors import UserError
from legradnet.evaluation.card_page import Evaluation, card_text, read_evaluation
from legradnet.evaluation.facts import Facts
from legradnet.export.hub import hub_card
from legradnet.export.run import export
from legradnet.grading.grader import Grader


@pytest.fixture(scope="module")
def hub(best, own, tmp_path_factory):
    output = tmp_path_factory.mktemp("hub") / "model"
    return export({"checkpoint": str(best), "format": "hub", "evaluation": str(own), "output": str(output)})


def test_the_folder_holds_weights_settings_and_card_and_is_read_as_a_checkpoint(hub, best, knees):
    assert sorted(path.name for path in hub.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    film = next(knees.glob("*.png"))
    ours, theirs = (Grader.load(path, precision="f32").grade(film, "R") for path in (hub, best))
    assert (ours.grade, ours.prediction_set, ours.reason) == (theirs.grade, theirs.prediction_set, theirs.reason)
    assert ours.probabilities == pytest.approx(theirs.probabilities, abs=2e-3)


def test_its_header_is_what_hubs_read(hub, own):
    card = ModelCard.load(hub / "README.md")
    data = card.data.to_dict()
    assert (data["license"], data["library_name"], data["pipeline_tag"]) == ("mit", "legradnet", "image-classification")
    assert {"knee", "osteoarthritis", "small"} <= set(data["tags"])
    assert data["datasets"] == ["their/knees"]
    assert {"accuracy", "mae", "f1", "quadratic_weighted_kappa"} <= set(data["metrics"])
    (model,) = data["model-index"]
    assert model["name"] == "Knees of the test"
    (result,) = model["results"]
    assert result["dataset"] == {"name": "Knees", "type": "their/knees", "split": "test"}
    told = {metric["type"]: metric for metric in result["metrics"]}
    for ours, theirs in (("qwk", "quadratic_weighted_kappa"), ("accuracy", "accuracy"), ("mae", "mae")):
        measured = read_evaluation(own).numbers["metrics"][ours]
        assert told[theirs]["value"] == pytest.approx(measured["value"], abs=1e-4)
        assert told[theirs]["args"]["low"] == pytest.approx(measured["low"], abs=1e-4)
    assert card.text.strip() == card_text(read_evaluation(own)).strip()


def test_a_model_in_its_run_folder_is_measured_and_the_card_says_on_what(best, tmp_path):
    folder = export({"checkpoint": str(best), "format": "hub", "output": str(tmp_path / "model")})
    data = ModelCard.load(folder / "README.md").data.to_dict()
    (result,) = data["model-index"][0]["results"]
    assert (result["dataset"]["split"], data["datasets"], data["license"]) == (
        "validation",
        ["generated-knees"],
        "unknown",
    )
    text = (folder / "README.md").read_text()
    assert "> Calibration was fitted on one half" in text
    assert str(tmp_path) not in text and str(best) not in text


def test_a_shipped_model_has_its_evaluation_beside_it(hub, own, tmp_path):
    shipped = tmp_path / "shipped"
    shutil.copytree(hub, shipped)
    numbers = json.loads((own / "metrics.json").read_text())
    numbers["digests"] = [Grader.load(shipped).networks[0].digest]
    (shipped / "evaluation.json").write_text(json.dumps(numbers))
    (shipped / "facts.yaml").write_text("name: Another\nlicence: My own licence 3\n")
    folder = export({"checkpoint": str(shipped), "format": "hub", "output": str(tmp_path / "again")})
    data = ModelCard.load(folder / "README.md").data.to_dict()
    assert data["model-index"][0]["name"] == "Another"
    assert (data["license"], data["license_name"]) == ("other", "my-own-licence-3")
    assert (folder / "model.safetensors").read_bytes() == (hub / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "int8"}, "precision=int8 with format=hub: .* Leave precision= out"),
        ({"format": "model", "facts": "f.yaml"}, "facts= is for the card of a model, which only format=hub has"),
        ({"format": "onnx", "evaluation": "E"}, "evaluation= is for the card"),
        ({"evaluation": "nowhere"}, "nowhere holds no evaluation"),
        ({"facts": "nowhere.yaml"}, r"There is no nowhere\.yaml"),
        ({"checkpoint": "nowhere.ckpt"}, r"No checkpoint at nowhere\.ckpt"),
    ],
)
def test_mistakes_are_told_and_nothing_is_written(best, tmp_path, changes, words):
    output = tmp_path / "model"
    with pytest.raises(UserError, match=words):
        export({"checkpoint": str(best), "format": "hub", "output": str(output)} | changes)
    assert not output.exists()


def test_another_models_evaluation_and_a_model_without_films_are_refused(best, own, tmp_path):
    content = read_checkpoint(best)
    content["state_dict"]["ensemble.head.2.bias"] = content["state_dict"]["ensemble.head.2.bias"] + 1
    with (tmp_path / "other.ckpt").open("wb") as file:
        write_checkpoint(content, file)
    asked = {"checkpoint": str(tmp_path / "other.ckpt"), "format": "hub", "output": str(tmp_path / "model")}
    with pytest.raises(UserError, match=r"is of another model than .*other\.ckpt"):
        export(asked | {"evaluation": str(own)})
    with pytest.raises(UserError, match=r"evaluation=FOLDER of legradnet-evaluate, or films to measure it on"):
        export(asked)


def test_what_an_author_writes_does_not_break_the_header(own):
    name = 'a: "b" \n---\nlicense: theirs #'
    numbers = read_evaluation(own).numbers
    text = hub_card(Evaluation(numbers, Facts(name=name, licence="mit", tags=["- x: y"])))
    header = yaml.safe_load(text.split("---\n")[1])
    assert (header["license"], header["tags"][-1]) == ("mit", "- x: y")
    assert ModelCard(text).data.license == "mit"
