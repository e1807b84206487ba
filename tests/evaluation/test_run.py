import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from evaluations import config_of
from hostile_films import dicom, dicom_bytes
from legradnet.checkpoint import read_checkpoint
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.images import read_image
from legradnet.data.synthetic import write_knees
from legradnet.errors import UserError
from legradnet.evaluation.crossfit import crossfit
from legradnet.evaluation.graded import Graded, read_graded
from legradnet.evaluation.run import evaluate
from legradnet.evaluation.shortcut import JOINT_BAND, blank_joint
from legradnet.grading.calibration import Calibration, tempered
from legradnet.run_folder import RunFolder

pytestmark = pytest.mark.usefixtures("blank_figures")  # but for `own`, which is made for all tests


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """Labelled films from elsewhere: a CSV without split, with a column of its own and a film without a side."""
    folder = tmp_path_factory.mktemp("hospital")
    write_knees(folder, 40, size=64, seed=11)
    table = pd.read_csv(folder / "knees.csv", dtype=str)
    table = table.assign(scanner=np.where(np.arange(40) < 20, "A", "B"))[["filename", "label", "patient", "scanner"]]
    table.to_csv(folder / "knees.csv", index=False)
    return folder


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_on_its_own_test_split_every_uncalibrated_number_is_that_of_training(trained, own):
    trained_on = json.loads((trained / "test_metrics.json").read_text())
    found = metrics(own)
    assert found["split"] == "test"
    for name, value in trained_on.items():
        name = name.removeprefix("test/")
        known = found["metrics"]
        same = found["loss"] if name == "loss" else known.get(f"{name}_uncalibrated", known.get(name))["value"]
        assert same == value, name


def test_predictions_of_an_evaluation_can_be_measured_again(own):
    graded = read_graded(own / "predictions.csv")
    assert len(graded) == metrics(own)["films"]
    assert (graded.grades == graded.labels).mean() == pytest.approx(metrics(own)["metrics"]["accuracy"]["value"])
    assert graded.covered.mean() == pytest.approx(metrics(own)["metrics"]["coverage"]["value"])
    assert graded.backbones == ("swin", "vit")
    assert len(set(graded.patients)) == metrics(own)["patients"]


def test_an_evaluation_leaves_a_page_and_figures(own):
    assert (own / "report.html").stat().st_size > 50_000
    assert {path.stem for path in (own / "figures").iterdir()} >= {
        "confusion",
        "roc",
        "reliability",
        "referral",
        "gate",
    }


def test_generated_knees_are_named_as_such(own):
    assert any("GENERATED" in warning for warning in metrics(own)["warnings"])


def test_a_csv_from_another_hospital_just_works(best, hospital, tmp_path):
    films = {"source": "csv", "dataset_path": str(hospital), "csv_path": str(hospital / "knees.csv")}
    evaluate(config_of(best, data=films, subgroups=["scanner"]), tmp_path)
    found = metrics(tmp_path)
    assert (found["split"], found["films"]) == ("all", 40)
    assert set(found["subgroups"]) == {"side", "scanner"}
    assert found["subgroups"]["scanner"]["A"]["films"] == 20
    assert found["joint_masked"]["accuracy"]["value"] is not None


def test_a_split_column_of_the_data_is_used(best, hospital, tmp_path):
    table = pd.read_csv(hospital / "knees.csv", dtype=str).assign(split=["test"] * 10 + ["train"] * 30)
    table.to_csv(tmp_path / "split.csv", index=False)
    films = {"source": "csv", "dataset_path": str(hospital), "csv_path": str(tmp_path / "split.csv")}
    evaluate(config_of(best, data=films, joint_masked=False), tmp_path / "run")
    assert (metrics(tmp_path / "run")["split"], metrics(tmp_path / "run")["films"]) == ("test", 10)
    evaluate(config_of(best, data=films, split="all", joint_masked=False), tmp_path / "all")
    assert metrics(tmp_path / "all")["films"] == 40
    assert any("Training films" in warning for warning in metrics(tmp_path / "all")["warnings"])


@pytest.mark.parametrize("known_by", ["filename", "patient"])
def test_films_that_the_checkpoint_was_trained_on_are_named(best, trained, hospital, tmp_path, known_by):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    table = pd.read_csv(hospital / "knees.csv", dtype=str).assign(side="", split="train")
    table["patient" if known_by == "filename" else "filename"] = "other"
    table[["filename", "label", "patient", "side", "split"]][:12].to_csv(run / "split.csv", index=False)
    films = {"source": "csv", "dataset_path": str(hospital), "csv_path": str(hospital / "knees.csv")}
    evaluate(config_of(str(run / "checkpoints/best.ckpt"), data=films, joint_masked=False), tmp_path / "out")
    assert any("12 of these films share" in warning for warning in metrics(tmp_path / "out")["warnings"])


@pytest.mark.parametrize(
    ("of_training", "verify", "told"),
    [(True, "decode", "12 of these 12 films trained"), (False, "decode", ""), (True, "header", "was not checked")],
    ids=["training films", "other films", "pictures not decoded"],
)
def test_films_that_trained_a_model_without_its_run_are_known_by_their_pictures(
    best, trained, hospital, tmp_path, of_training, verify, told
):
    shutil.copy(best, tmp_path / "alone.ckpt")
    films, table = hospital, pd.read_csv(hospital / "knees.csv", dtype=str)[:12]
    if of_training:
        films = tmp_path
        run = KneeDataModule(RunFolder(trained).read_group("data"), num_classes=5)
        run.setup()
        for row, at in enumerate(run.films("train").index[:12]):
            Image.fromarray(run.film(at)).save(tmp_path / f"renamed {row}.png")
            table.loc[row, "filename"] = f"renamed {row}.png"
    table.to_csv(tmp_path / "films.csv", index=False)
    data = {"source": "csv", "dataset_path": str(films), "csv_path": str(tmp_path / "films.csv"), "verify": verify}
    evaluate(config_of(str(tmp_path / "alone.ckpt"), data=data, joint_masked=False), tmp_path / "out")
    about = [warning for warning in metrics(tmp_path / "out")["warnings"] if " trained " in warning]
    assert [warning for warning in about if told and told in warning] == about


def test_crossfit_measures_calibration_on_patients_it_was_not_fitted_on(best, tmp_path):
    evaluate(config_of(best, split="val", crossfit=True, joint_masked=False), tmp_path)
    found = metrics(tmp_path)
    assert any("one half of these films" in warning for warning in found["warnings"])
    # 20 knees a half are too few to calibrate on: told, not hidden
    assert "coverage" not in found["metrics"]


def test_two_checkpoints_are_put_side_by_side_and_a_list_in_the_list_is_graded_by_the_mean(best, tmp_path):
    evaluate(config_of([best, [best, best]], joint_masked=False), tmp_path)
    found = metrics(tmp_path)
    difference = found["comparisons"][0]["metrics"]["accuracy"]
    assert difference["difference"] == difference["low"] == difference["high"] == 0
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "2/report.html").is_file()
    assert any("GENERATED" in warning for warning in found["warnings"])
    assert metrics(tmp_path / "1")["metrics"]["rps"]["value"] == pytest.approx(
        metrics(tmp_path / "2")["metrics"]["rps"]["value"]
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "val", "data": {"source": "csv"}}, "needs data.dataset_path"),
        ({"subgroups": ["hospital"]}, "no column hospital"),
        ({"data": {"image_size": 96}}, "known from the checkpoint"),
        ({"split": "training"}, "split=training must be one of"),
        ({"resamples": 0}, "resamples=0"),
    ],
)
def test_mistakes_are_told_in_words(best, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        evaluate(config_of(best, **changes), tmp_path)


def test_a_split_that_is_not_there_is_told_with_those_that_are(best, hospital, tmp_path):
    films = {"source": "csv", "dataset_path": str(hospital), "csv_path": str(hospital / "knees.csv")}
    with pytest.raises(UserError, match="no split column"):
        evaluate(config_of(best, data=films, split="test"), tmp_path)


def test_a_checkpoint_away_from_its_run_needs_films(best, tmp_path):
    shutil.copy(best, tmp_path / "best.ckpt")
    with pytest.raises(UserError, match="choose data=csv"):
        evaluate(config_of(str(tmp_path / "best.ckpt")), tmp_path / "run")


def test_the_joint_is_blanked_out_and_nothing_else(knees):
    film = read_image(next(knees.glob("*.png")))
    masked = blank_joint(film)
    top, bottom = (round(share * len(film)) for share in JOINT_BAND)
    assert len(np.unique(masked[top:bottom])) == 1
    assert (masked[:top] == film[:top]).all() and (masked[bottom:] == film[bottom:]).all()


def test_the_folder_of_a_training_run_is_left_alone(best, trained):
    before = (trained / ".hydra/config.yaml").read_bytes()
    with pytest.raises(UserError, match="holds another run"):
        evaluate(config_of(best), trained)
    assert (trained / ".hydra/config.yaml").read_bytes() == before


def test_crossfit_calibrates_each_patient_by_other_patients(monkeypatch):
    rng = np.random.default_rng(0)
    raw = rng.dirichlet(np.ones(5), 200)
    table = pd.DataFrame({"filename": np.arange(200).astype(str), "label": 0, "patient": np.repeat(np.arange(100), 2)})
    nothing = np.zeros(200, bool)
    graded = Graded(table, raw.argmax(1), raw, None, nothing, [""] * 200, None, ("vit",), raw)
    fitted = []

    def fit(raw, labels, rule, **aims):
        fitted.append({tuple(row) for row in raw})
        return Calibration(rule=rule, temperature=1.0 + len(fitted))

    monkeypatch.setattr("legradnet.evaluation.crossfit.fit_calibration", fit)
    found, notes = crossfit(graded, ["", "blank", *[""] * 198], Calibration(rule="mode"), seed=0)
    assert notes == []
    for i, row in enumerate(raw):
        (by,) = (number for number, rows in enumerate(fitted) if tuple(row) not in rows)
        assert found.probabilities[i] == pytest.approx(tempered(raw[i : i + 1], 2.0 + by, "mode")[0])
    halves = [{i // 2 for i, row in enumerate(raw) if tuple(row) in rows} for rows in fitted]
    assert not halves[0] & halves[1]
    assert len(halves[0]) == len(halves[1]) == 50
    assert found.referred.tolist() == [False, True, *[False] * 198]
    assert found.reasons[1] == "blank"


def test_what_readers_of_films_had_to_say_is_on_the_page_and_in_the_table(best, tmp_path):
    films = tmp_path / "films"
    write_knees(films, 40, size=64, seed=11)
    table = pd.read_csv(films / "knees.csv", dtype=str)
    for name in table["filename"][:3]:
        gray = read_image(films / name)
        stacked = dicom(np.concatenate([gray, gray]), Rows=len(gray), NumberOfFrames="2")
        (films / name).write_bytes(dicom_bytes(stacked))
    data = {"source": "csv", "dataset_path": str(films), "csv_path": str(films / "knees.csv")}
    evaluate(config_of(best, data=data, crossfit=True, joint_masked=False), tmp_path / "run")
    rows = pd.read_csv(tmp_path / "run/predictions.csv").set_index("filename")
    assert rows["reason"].fillna("").str.contains("the first of 2 frames").sum() == 3
    page = (tmp_path / "run/report.html").read_text()
    assert f'the first of 2 frames</th><td class="n">3</td><td>{", ".join(table["filename"][:3])}</td>' in page


def test_films_that_have_changed_since_training_are_refused(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    split = tmp_path / "run/split.csv"
    split.write_text(split.read_text().replace(",test\n", ",val\n", 1))
    with pytest.raises(UserError, match="have changed since this run began"):
        evaluate(config_of(str(tmp_path / "run/checkpoints/best.ckpt")), tmp_path / "out")


def test_a_compared_run_that_was_trained_on_these_films_is_told_on_top(best, trained, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    split = other / "split.csv"
    split.write_text(split.read_text().replace(",test\n", ",train\n"))
    evaluate(config_of([best, str(other / "checkpoints/best.ckpt")], joint_masked=False), tmp_path / "out")
    assert any("40 of these films share" in warning for warning in metrics(tmp_path / "out")["warnings"])


def test_what_is_not_finite_is_not_measured(best, tmp_path):
    content = read_checkpoint(best)
    content["state_dict"]["ensemble.head.2.weight"] = content["state_dict"]["ensemble.head.2.weight"] * float("nan")
    torch.save(content, tmp_path / "spoilt.ckpt")
    with pytest.raises(UserError, match=r"spoilt\.ckpt answers is not finite"):
        evaluate(config_of(str(tmp_path / "spoilt.ckpt"), data={"source": "synthetic", "count": 12}), tmp_path / "run")
    assert not (tmp_path / "run/metrics.json").exists()
