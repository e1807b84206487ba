"""A run folder may be damaged or a stranger's: what is wrong in it is told in a sentence, and nothing else is read."""

import json
import logging

import pytest

from legradnet.errors import UserError
from legradnet.evaluation.films import check_run, load_films
from legradnet.evaluation.settings import MeasuredFilms
from legradnet.grading.journal import read_json_lines
from legradnet.run_folder import RunFolder, written_as_references


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run/.hydra").mkdir(parents=True)
    (tmp_path / "run/checkpoints").mkdir()
    return RunFolder(tmp_path / "run")


READERS = {
    "config": lambda folder: folder.read_config(),
    "metrics": lambda folder: folder.best_epoch(),
    "split": check_run,
    "versions": check_run,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "garbage", [b"a: [", b"- 1", b"hello", b"\xff\xfe\0", b"", b"[" * 1100, b"!!python/name:os.system"]
)
def test_garbage_in_a_run_folder_is_told_with_its_file_and_not_quoted(folder, name, garbage):
    file = getattr(folder, name)
    file.write_bytes(garbage)
    with pytest.raises(UserError) as told:
        READERS[name](folder)
    assert str(told.value).startswith((f"{file} ", f"{file}: ")) and "\n" not in str(told.value)
    assert name == "split" or "hello" not in str(told.value)


@pytest.mark.parametrize("name", READERS)
def test_a_link_out_of_a_run_folder_is_not_read(folder, name, tmp_path):
    (tmp_path / "secret").write_text('{"python": "s3cret"}')
    getattr(folder, name).symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="is a link to something outside its run folder, and is not read"):
        READERS[name](folder)


def test_versions_say_nothing_but_versions(folder):
    folder.versions.write_text(json.dumps({"python": "3.12", "torch": "x" * 500, "password": "s3cret"}))
    assert folder.read_versions() == {"python": "3.12"}


@pytest.mark.parametrize(
    "line",
    [
        *("x", "null", "[]", "{}", '{"filename": 1, "label": null, "error": "x"}', "[" * 100_000, "\0"),
        '{"filename": "a", "label": null, "error": null}',
        '{"filename": "a", "label": null, "grade": 1, "probabilities": ["1"], "expected_grade": 1, '
        '"prediction_set": [], "referred": false, "reason": "", "gate_weights": {}, "error": null}',
    ],
)
def test_garbage_in_predictions_is_told_with_its_line(tmp_path, line):
    good = '{"filename": "a", "label": null, "error": "no film", "more": 1}'
    path = tmp_path / "predictions.jsonl"
    path.write_text(f'{good}\n{good}\n{{"filen')
    assert [*read_json_lines(path)] == [json.loads(good)] * 2
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(UserError, match="predictions.jsonl is damaged: line 2 is no record of a film"):
        list(read_json_lines(path))


def test_a_config_is_read_as_it_was_written_whatever_is_in_it(folder):
    config = {
        "rate": 1e-5,
        "name": "${",
        "text": "1",
        "missing": "???",
        "none": None,
        "list": [1, "膝"],
        "byte": "\udcff",
    }
    folder.write_config(config)
    assert folder.read_config() == config


def test_what_came_from_the_environment_is_written_as_it_was_referred_to(folder):
    with written_as_references({"data.dataset_path": "${oc.env:FILMS}", "seed": "${oc.env:SEED}", "other": "x"}):
        folder.write_config({"data": {"dataset_path": "/secret", "count": 3}, "seed": 7})
    assert folder.read_config() == {"data": {"dataset_path": "${oc.env:FILMS}", "count": 3}, "seed": "${oc.env:SEED}"}


def own_films(folder, **named):
    data = MeasuredFilms(**named)
    return load_films(data, folder.best, split="all", num_classes=5, image_size=48)


def test_what_only_a_run_folder_names_is_not_quoted(folder, knees, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    secret = tmp_path / "secret.csv"
    secret.write_text("filename,label\ns3cret.png,s3cret\n")
    plain = {
        "source": "csv",
        "dataset_path": str(tmp_path),
        "csv_path": str(secret),
        "cache_dir": str(tmp_path / "made"),
    }
    folder.write_config({"data": plain})
    folder.split.write_text("filename,label,patient,side,split\n")
    with pytest.raises(UserError, match="nothing is told of what it names") as told:
        own_films(folder)
    assert "s3cret" not in str(told.value) + caplog.text.replace(str(secret), "")
    assert str(secret) in caplog.text  # where it looks is said
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match="s3cret"):  # named by the user: told as ever
        own_films(folder, dataset_path=str(tmp_path), csv_path=str(secret))


def test_films_that_are_gone_are_asked_for(folder, tmp_path):
    folder.write_config(
        {"data": {"source": "csv", "dataset_path": f"{tmp_path}/gone", "csv_path": f"{tmp_path}/x.csv"}}
    )
    with pytest.raises(UserError, match=r"are no longer at .*/gone: say data.dataset_path="):
        own_films(folder)
