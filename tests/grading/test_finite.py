"""Numbers that are not finite are nowhere taken for a grade: comparisons with them would all be false."""

import math
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from omegaconf import OmegaConf

from legradnet import Grader
from legradnet.checkpoint import read_checkpoint
from legradnet.cli import config_folder
from legradnet.data.film import Film, ImageError
from legradnet.errors import UserError
from legradnet.evaluation.graded import read_graded
from legradnet.explain.run import explain
from legradnet.grades import grades_of
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.grading import Grading, Request
from legradnet.grading.run import predict
from legradnet.network.losses import Corn, CrossEntropy
from legradnet.training.metrics import measured

WEIGHT = "ensemble.backbones.vit.trunk.blocks.0.norm1.weight"


def changed(best, path, name, value):
    """A copy of a checkpoint with one number of one weight changed."""
    content = read_checkpoint(best)
    content["state_dict"][name] = content["state_dict"][name].clone()
    content["state_dict"][name].view(-1)[1] = value
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def best(trained):
    return trained / "checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def spoilt(best, tmp_path_factory):
    return changed(best, tmp_path_factory.mktemp("spoilt") / "spoilt.ckpt", WEIGHT, math.nan)


@pytest.fixture
def films(knees, tmp_path):
    folder = tmp_path / "films"
    folder.mkdir()
    for path in sorted(knees.glob("*.png"))[:3]:
        shutil.copy(path, folder)
    return folder


def config_of(command, **changes):
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{command}.yaml"), resolve=False)
    del config["hydra"]
    return config | {name: value if isinstance(value, (bool, list)) else str(value) for name, value in changes.items()}


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_nan_in_a_weight_is_an_error_and_no_grade(spoilt, films, precision):
    grader = Grader.load(spoilt, precision=precision)
    with pytest.raises(ImageError, match=rf"spoilt\.ckpt answers is not finite \({WEIGHT.removeprefix('ensemble.')}"):
        grader.grade(next(films.iterdir()), "R")
    with pytest.raises(ImageError, match="not finite"):
        grader.explain(next(films.iterdir()), "R")


def test_an_infinite_logit_is_none_though_its_probability_would_be_one(best, films, tmp_path):
    path = changed(best, tmp_path / "sure.ckpt", "ensemble.head.2.bias", math.inf)
    with pytest.raises(ImageError, match="not finite"):
        Grader.load(path, precision="f32").grade(next(films.iterdir()), "R")


def test_a_weight_that_is_not_finite_grades_no_film_though_the_answer_hides_it(best, films):
    grader = Grader.load(best, precision="f32")
    film = next(films.iterdir())
    assert grader.grade(film, "R").grade in range(5)
    grader.networks[0].not_finite = "backbones.densenet.trunk.norm.running_var"  # infinite: what it divides becomes 0
    with pytest.raises(ImageError, match="not finite"):
        grader.grade(film, "R")


def test_predict_writes_an_error_for_each_film(spoilt, films, tmp_path):
    assert predict(config_of("predict", checkpoint=spoilt, input=films), tmp_path / "run") is False
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    assert table["error"].str.contains("not finite").tolist() == [True] * 3
    assert table[["grade", "p0", "expected_grade", "prediction_set", "referred"]].isna().all(axis=None)
    assert "NaN" not in (tmp_path / "run/predictions.jsonl").read_text()


def test_predictions_that_an_older_release_began_with_nan_are_not_gone_on_with(best, films, tmp_path):
    asked = config_of("predict", checkpoint=best, input=films)
    predict(asked, tmp_path / "run")
    journal = tmp_path / "run/predictions.jsonl"
    journal.write_text(journal.read_text().replace('"expected_grade": ', '"expected_grade": NaN, "was": ', 1))
    with pytest.raises(UserError, match="grades of a network that answered NaN: start again"):
        predict(asked | {"resume": True}, tmp_path / "run")


@pytest.mark.parametrize("changes", [{}, {"method": "gate"}], ids=["maps", "gate"])
def test_explain_writes_an_error_for_each_film_and_no_map(spoilt, films, tmp_path, changes):
    asked = config_of("explain", checkpoint=spoilt, input=films, **changes)
    if changes:
        with pytest.raises(UserError, match=r"no film that can be graded .*not finite"):
            explain(asked, tmp_path / "run")
    else:
        assert explain(asked, tmp_path / "run") is False
        table = pd.read_csv(tmp_path / "run/predictions.csv")
        assert table["error"].str.contains("not finite").tolist() == [True] * 3
    assert not list((tmp_path / "run").glob("maps/*"))


def test_maps_are_not_judged_by_films_without_a_grade(spoilt, films, tmp_path):
    with pytest.raises(UserError, match=r"no film that can be graded: .*not finite"):
        explain(config_of("explain", checkpoint=spoilt, input=films, faithfulness=True, methods=["gradcam"]), tmp_path)


def test_averaging_refuses_what_would_spoil_the_mean_by_its_name(best, spoilt):
    for paths in ([best, spoilt], [spoilt, best]):
        with pytest.raises(UserError, match=r"spoilt\.ckpt can't be averaged with others: .* is not finite"):
            Grader.load(paths)


class Unstable:
    """A network whose answer to a dark film is not finite, whatever its weights."""

    not_finite = ""

    def __init__(self, network):
        self.network = network

    def __getattr__(self, name):
        return getattr(self.network, name)

    def __call__(self, films):
        answers = self.network(films)
        dark = films.mean(axis=(1, 2, 3)) < 10
        answers.probabilities[dark] = np.nan
        return answers


@pytest.mark.parametrize("others", [0, 1], ids=["alone", "averaged"])
def test_a_film_that_is_not_answered_leaves_those_beside_it_as_they_are(best, knees, others):
    good = Grader.load([best] * (1 + others), precision="f32")
    grader = Grader([Unstable(good.networks[0]), *good.networks[1:]])
    whole = sorted(knees.glob("*.png"))[:2]
    dark = np.zeros((48, 48), np.uint8)
    for side in ("R", ""):  # of unknown side: each film twice
        (batch,) = grader.stream([Request(film, side) for film in (whole[0], dark, whole[1])])
        assert [isinstance(one, Grading) for one in batch] == [True, False, True]
        assert "best.ckpt answers is not finite (is it unstable in f32?)" in str(batch[1])
        (expected,) = good.stream([Request(film, side) for film in (whole[0], dark, whole[1])])
        for i in (0, 2):
            assert batch[i].raw.tolist() == expected[i].raw.tolist()
            assert batch[i].gate_weights == expected[i].gate_weights
            assert batch[i].prediction_set == expected[i].prediction_set


def test_no_grade_follows_from_what_is_not_finite():
    for value in (math.nan, math.inf):
        for rule in ("mode", "median"):
            with pytest.raises(UserError, match="No grade follows"):
                grades_of(np.array([[0.5, value, 0.5]]), rule)
        for loss in (CrossEntropy(3), Corn(3)):
            with pytest.raises(UserError, match="No grade follows"):
                loss.grades(torch.tensor([[0.5, value, 0.5]]))


@pytest.mark.parametrize("loss", [CrossEntropy(5), Corn(5)], ids=["mode", "median"])
def test_an_epoch_with_an_answer_that_is_not_finite_has_no_metrics(loss):
    logits, labels = np.random.default_rng(0).normal(size=(20, loss.num_outputs)), np.arange(20) % 5
    whole = measured(loss, logits, labels)
    logits[3, 1] = math.nan
    spoilt = measured(loss, logits, labels)
    assert spoilt.keys() == whole.keys()
    assert all(math.isnan(value) for value in spoilt.values())


def test_what_is_no_number_is_beyond_the_limits_of_a_films_look():
    limits = {name: [-3.0, 3.0] for name in ("contrast", "brightness", "likeness", "histogram", "colour")}
    film = Film(np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8))
    known = {"mean_look": [0.0] * 1024, "mean_histogram": [0.5] * 16, "films": 40}
    assert FilmCheck(limits=limits, **known).reason(film) == ""
    for name in ("contrast", "brightness", "likeness"):
        odd = FilmCheck.model_construct(limits=limits | {name: [math.nan, math.nan]}, **known)  # not checked
        assert odd.reason(film), name


def test_predictions_of_older_releases_that_took_nan_for_a_grade_are_refused(tmp_path):
    rows = pd.DataFrame({"filename": ["a.png", "b.png"], "label": [1, 0], "grade": [1, 0], "p0": [0.2, math.nan]})
    rows = rows.assign(p1=[0.8, math.nan], prediction_set="0", referred="false", reason="")
    rows.to_csv(tmp_path / "predictions.csv", index=False)
    with pytest.raises(UserError, match=r"1 films, b\.png first, have a grade and probabilities that are not finite"):
        read_graded(tmp_path / "predictions.csv")
    rows[:1].to_csv(tmp_path / "predictions.csv", index=False)
    assert read_graded(tmp_path / "predictions.csv").probabilities.tolist() == [[0.2, 0.8]]
