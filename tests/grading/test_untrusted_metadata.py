"""What a checkpoint says of itself is checked before anything is built from it."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.metadata import Learned
from legradnet.models.described import read_metadata

TESTS = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are tested on Linux")


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def outcomes(best, knees, tmp_path_factory):
    """What came of every tampered copy of the small checkpoint."""
    program = [sys.executable, str(TESTS / "grading/grade_tampered.py"), str(best), str(next(knees.glob("*.png")))]
    done = subprocess.run(
        [*program, str(tmp_path_factory.mktemp("tampered")), "60"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_tampered_checkpoint_is_told_of_in_words_or_grades_as_before_and_takes_little_memory(outcomes):
    assert len(outcomes) > 80
    assert not [outcome for outcome in outcomes if "crash" in outcome]
    assert not [outcome for outcome in outcomes if not outcome.get("same", True)]
    told = [outcome["told"] for outcome in outcomes if "told" in outcome]
    assert len(told) > 50


@pytest.mark.slow
def test_what_is_told_names_the_file_and_is_short(outcomes):
    for outcome in outcomes:
        if "told" in outcome:
            assert "tampered.ckpt" in outcome["told"], outcome
            assert len(outcome["told"]) < 3000, outcome


def rewritten(best, path, change):
    content = read_checkpoint(best)
    change(content)
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        (("hyper_parameters", "run", "batch_size"), 0, "run.batch_size=0 must be a whole number from 1 to 1000000"),
        (("hyper_parameters", "model", "num_classes"), 10**9, "model.num_classes=1000000000 must be a whole number"),
        (("hyper_parameters", "model", "feature_dim"), 2_000_000, "doesn't fit the network it describes"),
        (("hyper_parameters", "films", "image_size"), 10**6, "films.image_size=1000000 must be a whole number"),
        (("hyper_parameters", "class_counts"), [1, 2], "2 class_counts for 5 classes"),
        (
            ("hyper_parameters", "backbone", "vit", "frozen"),
            "yes",
            "backbone.vit.frozen=yes must be one of true, false",
        ),
        (("hyper_parameters", "backbone", "vit", "code"), "x", "backbone.vit.code is unknown"),
        (("legradnet", "calibration", "temperature"), math.nan, "calibration.temperature=nan must be a number"),
        (("legradnet", "calibration", "temperature"), 1e9, "must be a number from 0.1 to 10"),
        (("legradnet", "calibration", "thresholds"), [0.5] * 4, "with 4 thresholds, the network's is median with 5"),
        (("legradnet", "calibration", "coverage"), None, "coverage and thresholds of a calibration go together"),
        (("legradnet", "calibration", "min_confidence"), math.nan, "calibration.min_confidence=nan must be a number"),
        (("legradnet", "calibration", "rule"), "mode", "the calibration is of another network"),
        (("legradnet", "film_check", "mean_look"), [0.0] * 9, "must be a list of 1024, each a number"),
        (("legradnet", "film_check", "limits"), {}, "must have contrast, brightness, likeness, histogram, colour"),
        (("legradnet", "film_check", "limits", "colour"), [1.0, 0.0], "must each be [lowest, highest]; colour is not"),
        (("legradnet", "false_referrals", "films"), 0, "false_referrals.films=0 must be a whole number of at least 1"),
        (("legradnet", "calibration", "temperature"), 0, "calibration.temperature=0 must be a number from 0.1 to 10"),
        (("legradnet", "calibration", "temperature"), -1.0, "calibration.temperature=-1.0 must be a number from 0.1"),
        (("legradnet", "calibration", "min_confidence"), -0.1, "calibration.min_confidence=-0.1 must be a number"),
        (
            ("legradnet", "calibration", "min_confidence"),
            1e9,
            "min_confidence=1e+09 of a calibration is no probability",
        ),
        (("legradnet", "calibration", "thresholds"), [math.nan] * 5, "calibration.thresholds.0=nan must be a number"),
        (("legradnet", "calibration", "thresholds"), [0.1, 9.0] * 2 + [1.0], "reach up to 4, not 9"),
        (("legradnet", "film_check", "limits", "contrast"), [math.nan, 0.4], "a number from -3 to 3"),
        (("legradnet", "film_check", "limits", "likeness"), [-1e9, 1e9], "a number from -3 to 3"),
        (("legradnet", "film_check", "mean_look"), [1e308] * 1024, "a number from -32 to 32"),
        (("legradnet", "false_referrals", "referred"), 10**9, "validation films can't have been referred"),
        (("hyper_parameters", "films", "image_size"), 60_000, "films.image_size=60000 must be a whole number"),
        (("legradnet", "surplus"), 1, "surplus is unknown"),
        (("hyper_parameters", "optimizer", "learning_rate"), "x", "optimizer.learning_rate=x must be a number"),
        (("hyper_parameters", "augment", "rotation"), math.nan, "augment.rotation=nan must be a number from 0 to 180"),
        (("hyper_parameters", "run", "precision"), [1], "run.precision=[1] must be a single value"),
    ],
)
def test_each_mistake_is_told_with_its_key(best, tmp_path, place, value, words):
    def change(content):
        *way, last = place
        for key in way:
            content = content[key]
        content[last] = value

    path = rewritten(best, tmp_path / "changed.ckpt", change)
    with pytest.raises(UserError) as told:
        CheckpointNetwork(path, device="cpu")
    assert words in str(told.value)
    assert str(path) in str(told.value)


def test_infinite_limits_are_no_mistake(best, tmp_path):
    def change(content):
        content["legradnet"]["calibration"] |= {"min_confidence": math.inf, "thresholds": [math.inf] * 5}

    path = rewritten(best, tmp_path / "unsure.ckpt", change)
    assert CheckpointNetwork(path, device="cpu").calibration.min_confidence == math.inf


def test_keys_that_older_checkpoints_lack_have_defaults(best, tmp_path):
    def change(content):
        for name in ("films", "run", "augment", "seed", "class_counts", "optimizer", "scheduler"):
            del content["hyper_parameters"][name]
        for backbone in content["hyper_parameters"]["backbone"].values():
            del backbone["precision"], backbone["weights"], backbone["frozen"]
        del content["legradnet"]

    network = CheckpointNetwork(rewritten(best, tmp_path / "older.ckpt", change), device="cpu")
    assert (network.image_size, network.fit, network.mirror_left, network.batch_size) == (224, "pad", False, 16)
    assert network.calibration.coverage is None and network.film_check is None


def test_values_that_stand_for_each_other_without_end_are_refused_at_once():
    values = []
    for _ in range(100):
        values = [values, values]
    with pytest.raises(UserError, match="8 groups deep"):
        read_metadata(Learned, {"data": values}, "a.ckpt")
    with pytest.raises(UserError, match="more than 100,000 things"):
        read_metadata(Learned, {"data": [[0] * 1000] * 1000}, "a.ckpt")


@pytest.mark.parametrize(
    ("said", "films", "taken"), [(10**6, 48, 29127), (10**6, 4096, 4), (16, 4096, 4), (16, 48, 16)]
)
def test_no_batch_takes_more_memory_than_films_of_its_size_should(best, tmp_path, said, films, taken):
    def change(content):
        content["hyper_parameters"]["run"]["batch_size"] = said
        content["hyper_parameters"]["films"]["image_size"] = films

    assert CheckpointNetwork(rewritten(best, tmp_path / "large.ckpt", change), device="cpu").batch_size == taken
