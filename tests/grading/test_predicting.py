import json
import shutil
import time

import pandas as pd
import pytest
from omegaconf import OmegaConf

from legradnet import Grader
from legradnet.cli import config_folder
from legradnet.data.images import read_image
from legradnet.data.sources import is_other_file
from legradnet.errors import UserError
from legradnet.grading.predictions import inert
from legradnet.grading.run import predict
from small_runs import made_once


@pytest.fixture(scope="session")
def few(knees, tmp_path_factory):
    """Sixteen of the generated knees: four batches."""

    def copy(folder):
        for film in sorted(knees.glob("*.png"))[:16]:
            shutil.copy(film, folder)

    return made_once(tmp_path_factory, "few", copy)


@pytest.fixture
def settings(trained, few):
    """The config of legradnet-predict for those, as plain values."""
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "predict.yaml"), resolve=False)
    del config["hydra"]
    return config | {"checkpoint": str(trained / "checkpoints/best.ckpt"), "input": str(few), "batch_size": 4}


def lines(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_every_film_gets_a_row_with_the_promised_columns(settings, tmp_path, few):
    assert predict(settings, tmp_path) is True
    table = pd.read_csv(tmp_path / "predictions.csv")
    assert list(table) == [
        *["filename", "grade", "p0", "p1", "p2", "p3", "p4", "expected_grade", "prediction_set", "referred", "reason"],
        *["gate_swin", "gate_vit", "error"],
    ]
    assert table["filename"].tolist() == sorted(path.name for path in few.glob("*.png"))
    assert table.filter(regex=r"^p\d").sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
    assert table["error"].isna().all()
    grading = Grader.from_checkpoint(settings["checkpoint"]).grade(few / table["filename"][3])
    assert table["grade"][3] == grading.grade
    assert table["prediction_set"].astype(str)[3].split() == [str(grade) for grade in grading.prediction_set]


def test_json_lines_and_table_say_the_same(settings, tmp_path):
    predict(settings, tmp_path)
    table = pd.read_csv(tmp_path / "predictions.csv")
    for row, line in zip(table.to_dict("records"), lines(tmp_path), strict=True):
        assert row["filename"] == line["filename"]
        assert row["grade"] == line["grade"]
        assert [row[f"p{k}"] for k in range(5)] == line["probabilities"]
        assert row["gate_vit"] == line["gate_weights"]["vit"]


def test_a_csv_keeps_its_labels_and_order(settings, tmp_path, knees):
    listed = pd.read_csv(knees / "knees.csv").iloc[::-1]
    listed.to_csv(tmp_path / "list.csv", index=False)
    config = settings | {"input": str(tmp_path / "list.csv"), "data": {"dataset_path": str(knees)}}
    predict(config, tmp_path / "run")
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    assert table["filename"].tolist() == listed["filename"].tolist()
    assert table["label"].tolist() == listed["label"].tolist()


def test_a_bad_film_gets_a_row_with_its_error_and_the_rest_is_graded(settings, tmp_path, few):
    films = tmp_path / "films"
    shutil.copytree(few, films)
    (films / "A.png").write_bytes(b"no film")
    assert predict(settings | {"input": str(films)}, tmp_path / "run") is False
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    assert len(table) == 17
    assert table["grade"].isna().sum() == 1
    assert "not a readable" in table.set_index("filename")["error"]["A.png"]
    assert str(films) not in table.set_index("filename")["error"]["A.png"]


@pytest.mark.parametrize("kept", [0, 5, 16])
def test_a_run_cut_off_anywhere_goes_on_to_the_same_files(settings, tmp_path, kept):
    predict(settings, tmp_path)
    files = [tmp_path / "predictions.csv", tmp_path / "predictions.jsonl"]
    whole = [file.read_bytes() for file in files]
    cut = whole[1].splitlines(keepends=True)
    files[1].write_bytes(b"".join(cut[:kept]) + (cut[kept][:20] if kept < 16 else b""))
    files[0].write_bytes(whole[0][: len(whole[0]) // 3])
    assert predict(settings | {"resume": True}, tmp_path) is True
    assert [file.read_bytes() for file in files] == whole


def test_a_resumed_run_shows_the_network_the_batches_it_would_have_seen(settings, tmp_path, monkeypatch):
    predict(settings, tmp_path)
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:5]))
    sizes = []
    stream = Grader.stream_knees

    def counted(*arguments, **options):
        for batch in stream(*arguments, **options):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(Grader, "stream_knees", counted)
    predict(settings | {"resume": True}, tmp_path)
    assert sizes == [4, 4, 4]  # of 16 films one batch was whole


def test_a_killed_run_has_lost_at_most_one_batch(settings, tmp_path, monkeypatch):
    stream = Grader.stream_knees

    def killed(self, *arguments, **options):
        for count, batch in enumerate(stream(self, *arguments, **options)):
            if count == 3:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Grader, "stream_knees", killed)
        predict(settings, tmp_path)
    assert len(lines(tmp_path)) == len(pd.read_csv(tmp_path / "predictions.csv")) == 12


def test_predictions_are_never_overwritten_or_mixed(settings, tmp_path, few):
    predict(settings, tmp_path)
    whole = (tmp_path / "predictions.csv").read_bytes()
    with pytest.raises(UserError, match="resume=true"):
        predict(settings, tmp_path)
    with pytest.raises(UserError, match="side: was None, now L"):
        predict(settings | {"resume": True, "side": "L"}, tmp_path)
    films = tmp_path / "films"
    shutil.copytree(few, films)
    config = settings | {"input": str(films)}
    predict(config, tmp_path / "run")
    shutil.copy(next(films.glob("*.png")), films / "A.png")
    with pytest.raises(UserError, match="have changed"):
        predict(config | {"resume": True}, tmp_path / "run")
    assert (tmp_path / "predictions.csv").read_bytes() == whole


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1.png", "@x", "a\0b", "\ud800.png", "plain.png", "a,b\nc.png"])
def test_names_in_the_table_run_no_formula_and_can_be_read(name):
    shown = inert(name)
    assert not shown.startswith(("=", "+", "-", "@"))
    assert "\0" not in shown
    shown.encode()
    if name == "plain.png":
        assert shown == name


def test_nothing_that_a_user_can_do_wrong_starts_the_work(settings, tmp_path):
    for wrong, word in [
        ({"input": str(tmp_path / "none")}, "does not exist"),
        ({"checkpoint": str(tmp_path / "none.ckpt")}, "No checkpoint"),
        ({"precision": "f16"}, "precision"),
        ({"side": "left"}, "side"),
        ({"batch_size": 0}, "batch_size"),
    ]:
        with pytest.raises(UserError, match=word):
            predict(settings | wrong, tmp_path / "run")
    assert not (tmp_path / "run/predictions.csv").exists()


def test_the_folder_of_a_training_run_is_left_alone(settings, trained):
    before = (trained / ".hydra/config.yaml").read_bytes()
    with pytest.raises(UserError, match="holds another run"):
        predict(settings, trained)
    assert (trained / ".hydra/config.yaml").read_bytes() == before


@pytest.mark.slow
def test_two_hundred_hostile_files_neither_stop_nor_stall_prediction(settings, tmp_path, knees):
    pytest.importorskip("gdcm", reason="compressed DICOM is made with python-gdcm")
    from hostile_films import write_hostile

    folder = tmp_path / "films"
    folder.mkdir()
    written = write_hostile(folder, read_image(next(knees.glob("*.png"))))
    assert len(written) >= 200
    good = folder / "zz_good.png"
    shutil.copy(next(knees.glob("*.png")), good)
    start = time.perf_counter()
    assert predict(settings | {"input": str(folder)}, tmp_path / "run") is False
    assert time.perf_counter() - start < 120
    table = pd.read_csv(tmp_path / "run/predictions.csv", dtype=str)
    rows = table["filename"].tolist()
    assert len(rows) == len(set(rows)) == len(lines(tmp_path / "run"))
    for path in written:  # text and hidden files are no films unless their content says so
        name = inert(path.relative_to(folder).as_posix())
        assert name in rows or is_other_file(path.name), name
    assert table.set_index("filename")["error"].isna()["zz_good.png"]
    assert (table["error"].isna() | table["grade"].isna()).all()


def test_a_hostile_csv_gives_every_row_its_own_row(settings, tmp_path, knees):
    good = next(knees.glob("*.png")).name
    names = [
        "x" * 10_000,
        "a\0b.png",
        "=cmd()|' /C calc'!A0",
        "../../secret.png",
        "/dev/zero",
        '"a\nb.png"',
        "\u202e.png",
    ]
    (tmp_path / "list.csv").write_text("filename,label\n" + "".join(f"{name},=1+1\n" for name in [*names, good]))
    config = settings | {"input": str(tmp_path / "list.csv"), "data": {"dataset_path": str(knees)}}
    assert predict(config, tmp_path / "run") is False
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    assert len(table) == len(names) + 1
    assert table["error"].notna().sum() == len(names)
    assert not table["filename"].str.startswith("=").any()
    assert table["grade"].notna().tolist() == [False] * len(names) + [True]


def test_there_has_to_be_something_to_resume(settings, tmp_path):
    with pytest.raises(UserError, match="there are no predictions"):
        predict(settings | {"resume": True}, tmp_path / "run")
