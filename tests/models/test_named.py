"""`oai` is the shipped model, wherever a checkpoint is asked for; every run says by which model it graded."""

from pathlib import Path

import pytest

from legradnet.errors import UserError
from legradnet.evaluation.settings import EvaluateSettings
from legradnet.explain.settings import ExplainSettings
from legradnet.export.settings import ExportSettings
from legradnet.grading.grader import Grader
from legradnet.grading.settings import PredictSettings
from legradnet.models import named


@pytest.fixture
def shipped(model, monkeypatch):
    monkeypatch.setattr(named, "SHIPPED_FOLDER", model)
    return model


def test_the_shipped_model_is_the_default(shipped, best, knees):
    needed = {"input": "a", "output": "b"}
    for settings in (PredictSettings, EvaluateSettings, ExplainSettings, ExportSettings):
        given = {name: value for name, value in needed.items() if name in settings.model_fields}
        assert settings(**given).checkpoint == "oai"
    film = next(knees.glob("*.png"))
    assert Grader.load().grade(film, "R").grade == Grader.load(best).grade(film, "R").grade


def test_a_folder_of_that_name_is_another(shipped, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("oai").mkdir()
    assert named.local_path("oai") == shipped and named.name_of(shipped) == "oai"
    for folder in ("./oai", Path("oai"), tmp_path / "oai"):
        assert named.local_path(folder).samefile("oai")
    assert PredictSettings(checkpoint=Path("oai"), input="a").checkpoint == "./oai"
    assert PredictSettings(checkpoint="oai", input="a").checkpoint == "oai"
    with pytest.raises(UserError, match=r"^oai is a folder, neither a checkpoint nor an export nor a model"):
        Grader.load("./oai")


def test_a_build_without_it_says_so(typed, knees, tmp_path, monkeypatch):
    monkeypatch.setattr(named, "SHIPPED_FOLDER", tmp_path / "none")
    done = typed("legradnet-predict", f"input={knees}")
    assert done.returncode == 2
    assert "checkpoint=oai is the model that LegRadNet ships, and there is none in this build: name one" in done.stderr


def test_a_run_says_in_one_line_which_model_graded(shipped, typed, knees, tmp_path):
    film = next(knees.glob("*.png"))
    done = typed("legradnet-predict", f"input={film}", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    digest = Grader.load().networks[0].digest
    lines = [line for line in (tmp_path / "run/predict.log").read_text().splitlines() if "oai" in line]
    assert lines == [f"Grading by oai (digest {digest[:12]}, trained by LegRadNet 0.1.0)"]
    done = typed("legradnet-predict", f"checkpoint=[oai,{shipped}]", f"input={film}", f"hydra.run.dir={tmp_path}/two")
    assert f"Grading by the mean of oai (digest {digest[:12]}" in (tmp_path / "two/predict.log").read_text()


def test_it_has_no_films_of_its_own_and_asks_for_some(shipped, typed, tmp_path):
    for command in (["evaluate"], ["export", "precision=int8", f"output={tmp_path}/e"]):
        done = typed(f"legradnet-{command[0]}", *command[1:])
        assert done.returncode == 2
        assert "oai has no training run of its own here: name the films to measure on, by data=csv" in done.stderr
