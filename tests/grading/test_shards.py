"""Archives: shards of a list, graded anywhere in any order, are together what one run would have written."""

import json

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from legradnet.cli import config_folder
from legradnet.data.inputs import list_films
from legradnet.errors import UserError
from legradnet.grading.run import predict
from legradnet.grading.shards import Shard, shard_of

pytest.importorskip("pyarrow")
ARRAY = {"ID": "7", "MIN": "4", "MAX": "19", "COUNT": "4", "STEP": "5"}


def in_array(**changed):
    return {f"SLURM_ARRAY_TASK_{name}": value for name, value in (ARRAY | changed).items()}


@pytest.fixture
def settings(trained, knees, tmp_path):
    """To grade a table of 41 films, the last of which is none."""
    table = pd.read_csv(knees / "knees.csv")[["filename", "label"]]
    table.loc[len(table)] = ["broken.png", 1]
    table.to_csv(tmp_path / "list.csv", index=False)
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "predict.yaml"), resolve=False)
    del config["hydra"]
    films = {"input": str(tmp_path / "list.csv"), "data": {"dataset_path": str(knees)}}
    return config | films | {"checkpoint": str(trained / "checkpoints/best.ckpt"), "batch_size": 4, "film": "crop"}


def graded(settings, parts, *numbers, of=3):
    return [predict(settings | {"shard": f"{i}/{of}"}, Shard(i, of).folder(parts)) for i in numbers]


def merged(settings, parts, folder):
    return predict(settings | {"input": None, "merge": str(parts)}, folder)


@given(films=st.integers(1, 10**9), batch=st.integers(1, 4096), count=st.integers(1, 500))
def test_shards_are_whole_batches_of_the_list_and_each_film_is_in_one(films, batch, count):
    parts = [Shard(number, count).part(films, batch) for number in range(count)]
    assert [part.start for part in parts] + [films] == [0] + [part.stop for part in parts]
    assert all(part.start % batch == 0 or part.start == films for part in parts)
    assert max(map(len, parts)) - min(map(len, parts[:-1] or parts)) <= 2 * batch


def test_shards_put_together_are_what_one_run_writes_byte_for_byte(settings, tmp_path):
    assert predict(settings, tmp_path / "one") is False  # for the film that is none
    assert graded(settings, tmp_path / "parts", 2, 0, 1) == [False, True, True]
    assert merged(settings, tmp_path / "parts", tmp_path / "merged") is False
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    alone = graded(settings, tmp_path / "alone", 0, of=1) and tmp_path / "alone/shard-0-of-1"
    together = pd.read_parquet(tmp_path / "merged/predictions.parquet")
    pd.testing.assert_frame_equal(together, pd.read_parquet(alone / "predictions.parquet"))
    table = pd.read_csv(tmp_path / "merged/predictions.csv")
    for name in set(table) - {"prediction_set", "referred"}:
        pd.testing.assert_series_equal(together[name], table[name], check_dtype=False)
    assert [" ".join(map(str, grades)) for grades in together["prediction_set"][:-1]] == [
        *table["prediction_set"][:-1].astype(str)
    ]


def test_a_merge_without_all_shards_names_those_that_it_lacks_and_leaves_nothing(settings, tmp_path):
    graded(settings, tmp_path / "parts", 1)
    with pytest.raises(UserError, match="2 of 3 shards are missing or unfinished: 0, 2"):
        merged(settings, tmp_path / "parts", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no shards"):
        merged(settings, tmp_path / "none", tmp_path / "merged")


def test_shards_of_different_settings_or_lists_are_not_put_together(settings, tmp_path):
    graded(settings, tmp_path / "parts", 0, 1)
    graded(settings | {"side": "L"}, tmp_path / "parts", 2)
    with pytest.raises(UserError, match="Shards 0 and 2 in .* differ in settings"):
        merged(settings, tmp_path / "parts", tmp_path / "merged")
    graded(settings, tmp_path / "parts", 1, of=4)
    with pytest.raises(UserError, match="holds shards of 3 and of 4"):
        merged(settings, tmp_path / "parts", tmp_path / "merged")


def test_a_shard_that_was_stopped_goes_on_by_its_own_command_and_a_finished_one_is_left_alone(settings, tmp_path):
    (folder,) = (Shard(1, 2).folder(tmp_path / "parts"),)
    graded(settings, tmp_path / "parts", 1, of=2)
    whole = (folder / "predictions.jsonl").read_bytes()
    (folder / "done.json").unlink()
    (folder / "predictions.jsonl").write_bytes(whole[: len(whole) // 2])
    graded(settings, tmp_path / "parts", 1, of=2)
    assert (folder / "predictions.jsonl").read_bytes() == whole
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert graded(settings, tmp_path / "parts", 1, of=2) == [False], "it still has a film that is none"
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_requeued_job_goes_on_with_its_predictions_without_being_told(settings, tmp_path, monkeypatch):
    predict(settings, tmp_path / "run")
    whole = (tmp_path / "run/predictions.jsonl").read_bytes()
    (tmp_path / "run/predictions.jsonl").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setenv("SLURM_RESTART_COUNT", "0")
    with pytest.raises(UserError, match="already holds predictions"):
        predict(settings, tmp_path / "run")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    predict(settings, tmp_path / "run")
    assert (tmp_path / "run/predictions.jsonl").read_bytes() == whole


def test_a_parquet_list_is_graded_as_the_csv(settings, tmp_path, knees):
    pd.read_csv(settings["input"]).to_parquet(tmp_path / "list.parquet")
    by_csv, by_parquet = (list_films(tmp_path / f"list.{kind}", knees) for kind in ("csv", "parquet"))
    assert [film.filename for film in by_csv] == [film.filename for film in by_parquet]
    assert [(film.film, film.label) for film in by_csv[:-1]] == [(film.film, film.label) for film in by_parquet[:-1]]
    (tmp_path / "list.parquet").write_bytes((tmp_path / "list.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"list.parquet is a damaged Parquet file"):
        list_films(tmp_path / "list.parquet")


def test_a_slurm_array_gives_each_of_its_tasks_a_shard():
    tasks = [shard_of("auto", in_array(ID=str(task))) for task in (4, 9, 14, 19)]
    assert tasks == [Shard(number, 4) for number in range(4)]
    assert shard_of("auto", {}) is None and shard_of("all", in_array()) is None
    assert shard_of("3/64", in_array()) == Shard(3, 64)


@pytest.mark.parametrize("changed", [{"ID": "8"}, {"COUNT": "3"}, {"COUNT": "x"}, {"STEP": "0"}, {"ID": "24"}])
def test_an_array_that_is_not_numbered_evenly_is_told(changed):
    with pytest.raises(UserError, match="name shard=I/N"):
        shard_of("auto", in_array(ID="9") | in_array(**({"ID": "9"} | changed)))


@pytest.mark.parametrize("asked", ["3", "3/3", "1/0", "-1/3", "1/3/5", "", "1.5/3", "9999999999/99999999999"])
def test_a_part_that_is_none_is_told(asked):
    with pytest.raises(UserError, match="is no part: I/N with I = 0 ... N-1"):
        shard_of(asked, {})


def test_either_films_or_shards_are_asked_for(settings, tmp_path):
    for wrong, words in (({"input": None}, "input= is needed"), ({"merge": str(tmp_path)}, "leave one of them out")):
        with pytest.raises(UserError, match=words):
            predict(settings | wrong, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_command_gives_each_shard_its_own_folder(settings, tmp_path, typed, monkeypatch):
    command = ["legradnet-predict", f"checkpoint={settings['checkpoint']}", f"input={settings['input']}"]
    command += [f"data.dataset_path={settings['data']['dataset_path']}", "batch_size=40"]
    assert "needs hydra.run.dir=" in typed(*command, "shard=0/2").stderr
    assert typed(*command, "shard=0/2", f"hydra.run.dir={tmp_path / 'parts'}").returncode == 0
    assert (tmp_path / "parts/shard-0-of-2/done.json").is_file()
    for name, value in in_array(ID="1", MIN="1", MAX="1", COUNT="1", STEP="1").items():
        monkeypatch.setenv(name, value)  # as `sbatch --array=1`, to run a task again
    told = typed(*command, f"hydra.run.dir={tmp_path / 'parts'}").stderr
    assert "holds shards of 2, and this is 0/1: name shard=I/2" in told
    assert json.loads((tmp_path / "parts/shard-0-of-2/done.json").read_text())["count"] == 2
    assert [place.name for place in (tmp_path / "parts").iterdir()] == ["shard-0-of-2"]
