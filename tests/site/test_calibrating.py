"""A site's model grades by what its films teach, and is the model that it was in everything else."""

import json

import numpy as np
import pytest
import torch

from exports import exported, needs_runtimes, untrained, with_distance
from legradnet.checkpoint import read_checkpoint
from legradnet.data.synthetic import synthesize
from legradnet.grading.calibration import Calibration
from legradnet.grading.grader import Grader
from legradnet.models.described import digest, parsed
from legradnet.models.folder import read_model
from legradnet.site.folder import card_with_page, weights_digest
from legradnet.site.page import films_needed
from legradnet.site.run import calibrate
from site_models import site_config
from small_runs import command


def read_json(path):
    return parsed(path.read_text(), path)


def test_the_weights_are_those_of_the_model_bit_for_bit(best, site):
    before, after = read_checkpoint(best)["state_dict"], read_model(site)["state_dict"]
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    told = Grader.load(site, precision="f32").networks[0].learned.site
    assert told.weights == weights_digest(before) == weights_digest(after)
    assert told.model == Grader.load(best, precision="f32").networks[0].digest


def test_a_changed_weight_has_another_digest(best):
    state = dict(read_checkpoint(best)["state_dict"])
    known, name = weights_digest(state), next(iter(state))
    changed = state[name].clone()
    changed[(0,) * changed.ndim] += 1e-3
    assert weights_digest({**state, name: changed}) != known
    assert weights_digest({**state, name: state[name].double()}) != known


def test_the_model_of_a_site_grades_by_the_sites_calibration_film_check_and_distance(best, site):
    ours, theirs = (Grader.load(path, precision="f32") for path in (site, best))
    one, other = ours.networks[0], theirs.networks[0]
    assert one.calibration.films == 80 and one.calibration != other.calibration
    assert one.film_check.films == 80 and one.film_check != other.film_check
    assert one.learned.data == other.learned.data and one.settings == other.settings
    films = [*synthesize(4, size=48, seed=5)[0]]
    for found, expected in zip(ours.grade(films), theirs.grade(films), strict=True):
        assert found.raw == pytest.approx(expected.raw, abs=1e-6)
        assert found.probabilities == pytest.approx(one.calibration.probabilities(found.raw[None])[0])


def test_numbers_before_and_after_are_told_with_intervals_and_the_films_that_narrower_ones_need(site):
    numbers, page = read_json(site / "site.json"), (site / "README.md").read_text()
    assert numbers["films"] == 80 and sum(numbers["by_grade"]) == 80
    for name in ("accuracy", "ece", "coverage", "referral_rate"):
        told = numbers["metrics"][name]
        assert told["before"]["low"] <= told["before"]["value"] <= told["before"]["high"]
        assert told["change"]["difference"] == pytest.approx(told["after"]["value"] - told["before"]["value"])
    accuracy = numbers["metrics"]["accuracy"]["after"]
    assert f"accuracy {films_needed(accuracy, 80, 0.1):,}" in page
    assert "2202.13415" in page  # older films took part, as 80 are fewer than 100
    assert [one["family"] for one in numbers["scaling"]] == ["temperature", "biases", "vector", "matrix"]


def test_a_width_shrinks_with_the_root_of_the_number_of_films():
    assert films_needed({"value": 0.7, "low": 0.6, "high": 0.8}, 100, 0.1) == 400
    assert films_needed({"value": 1.0, "low": 1.0, "high": 1.0}, 100, 0.1) is None
    assert films_needed({"value": 1.0, "low": None, "high": None}, 100, 0.1) is None


def test_a_model_keeps_its_card_and_the_page_of_an_earlier_site_gives_way_to_the_new_one(site, tmp_path):
    card = "---\nlicense: mit\n---\n\n# Knees\n\nMeasured elsewhere.\n"
    once = card_with_page(card, "# Calibrated at a site\n\nfirst")
    assert once.startswith(card.rstrip()) and once.rstrip().endswith("-->") and "first" in once
    twice = card_with_page(once, "# Calibrated at a site\n\nsecond")
    assert "second" in twice and "first" not in twice and twice.startswith(card.rstrip())
    again = calibrate(site_config(site, tmp_path / "again", data={"seed": 78, "count": 40}))
    page = (again / "README.md").read_text()
    assert page.count("# Calibrated at a site") == 1 and "On 40 films" in page
    assert weights_digest(read_model(again)["state_dict"]) == weights_digest(read_model(site)["state_dict"])


def test_biases_decide_about_grades_and_without_them_nothing_does(best):
    network = Grader.load(best, precision="f32").networks[0]
    raw = np.array([[0.4, 0.35, 0.25, 0.0, 0.0]])
    tempered = Calibration(rule="mode", temperature=2.0)
    biased = Calibration(rule="mode", biases=[-1.0, 1.0, 0.0, 0.0, 0.0])
    assert tempered.grades(raw).tolist() == [0] and biased.grades(raw).tolist() == [1]
    network.calibration = Calibration(rule=network.rule, biases=[-50.0, 0.0, 0.0, 0.0, 50.0])
    film = synthesize(1, size=48, seed=5)[0][0]
    graded = Grader([network]).grade(film)
    assert graded.grade == 4 and graded.probabilities[4] > 0.99


@needs_runtimes
@pytest.mark.slow
def test_an_export_becomes_an_export_with_the_same_graph_and_the_sites_calibration(tmp_path):
    checkpoint = with_distance(untrained(tmp_path / "best.ckpt", calibration=Calibration(rule="mode", films=40)), 64)
    export = exported(checkpoint, tmp_path / "export", format="onnx")
    (export / "README.md").write_text("# Its card\n")
    site = calibrate(site_config(export, tmp_path / "site", device="cpu", precision="auto"))
    assert digest(site / "network.onnx") == digest(export / "network.onnx")
    assert (site / "README.md").read_text().startswith("# Its card\n")
    ours, theirs = (Grader.load(path) for path in (site, export))
    films = [*synthesize(6, size=64, seed=5)[0]]
    one, other = ours.networks[0], theirs.networks[0]
    assert one.calibration.films == 80 and one.distance.held_out == 80 and one.distance != other.distance
    for found, expected in zip(ours.grade(films), theirs.grade(films), strict=True):
        assert found.raw == pytest.approx(expected.raw)
        assert found.probabilities == pytest.approx(one.calibration.probabilities(found.raw[None])[0])
    assert "before legradnet-calibrate" in json.loads((site / "export.json").read_text())["outputs"]["probabilities"]


@pytest.mark.slow
def test_the_command_works_as_it_is_installed_and_what_it_writes_is_taken_by_the_others(best, knees, tmp_path):
    films = ["data=synthetic", "data.count=40", "data.seed=79"]
    made = command("legradnet-calibrate", f"checkpoint={best}", *films, f"output={tmp_path / 'SITE'}", "resamples=100")
    assert made.returncode == 0, made.stderr
    assert made.stdout.splitlines()[-1] == str(tmp_path / "SITE")
    run = f"hydra.run.dir={tmp_path / 'graded'}"
    graded = command("legradnet-predict", f"checkpoint={tmp_path / 'SITE'}", f"input={knees}", run)
    assert graded.returncode == 0, graded.stderr
    watched = [f"predictions={tmp_path / 'graded'}", f"hydra.run.dir={tmp_path / 'watched'}"]
    told = command("legradnet-evaluate", f"checkpoint={tmp_path / 'SITE'}", "drift=true", *watched)
    assert told.returncode == 0 and told.stdout.startswith("graded: 40 films"), told.stderr
    assert (tmp_path / "watched/drift.png").is_file()
