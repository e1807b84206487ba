"""`legradnet-predict dicom=FOLDER format=fhir`: what it leaves beside its tables, and what it tells of patients."""

import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from knee_films import SECRETS, UID, both_knees, film
from PIL import Image

from legradnet.data.drawn_knee import draw_knee
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.run import predict
from legradnet.hospital import outlets
from legradnet.hospital.fhir import observation
from legradnet.hospital.model import model_of
from legradnet.hospital.outlets import open_outlets
from small_runs import command

pytest.importorskip("highdicom", reason="the extra [hospital] is not installed")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Two knees and a film of both, a picture that is no DICOM, and a knee of no study."""
    folder = tmp_path_factory.mktemp("films")
    for number in (1, 2):
        film(folder / f"{number}.dcm", number)
    both_knees(folder / "both.dcm", SOPInstanceUID=f"{UID}.9")
    Image.fromarray(draw_knee(0.2, "R", np.random.default_rng(1), size=64)).save(folder / "plain_R.png")
    film(folder / "stray.dcm", StudyInstanceUID=None)
    return folder


@pytest.fixture(scope="module")
def config(films, best):
    return {"checkpoint": best, "input": str(films), "device": "cpu", "batch_size": 1}


@pytest.fixture(scope="module")
def ran(config, tmp_path_factory):
    """The folder in which the command was typed, and what it said."""
    folder = tmp_path_factory.mktemp("ran")
    words = [f"{key}={value}" for key, value in config.items()]
    words += ["dicom=out", "pdf=true", "format=fhir", "hydra.run.dir=run"]
    done = command("legradnet-predict", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def uids(folder):
    return {str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in folder.iterdir()}


def test_each_dicom_film_has_its_objects_and_others_are_told(ran):
    folder, done = ran
    names = sorted(path.name.partition("_")[0] for path in (folder / "out").iterdir())
    assert names == ["pdf"] * 3 + ["sc"] * 3 + ["sr"] * 3
    assert "3 reports, 3 pictures, 3 pages" in done.stdout
    assert "2 graded films have no DICOM objects" in done.stdout and "plain_R.png is no DICOM file" in done.stdout
    assert "stray.dcm has no valid StudyInstanceUID" in done.stdout
    assert (folder / "out").stat().st_mode & 0o077 == 0


def test_the_tables_are_the_same_with_and_without_objects(ran, config, tmp_path):
    folder, _ = ran
    predict(config, tmp_path / "plain")
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "plain" / name).read_bytes() == (folder / "run" / name).read_bytes()


@pytest.mark.slow
def test_a_second_run_makes_no_double(ran, config, tmp_path, caplog):
    folder, _ = ran
    caplog.set_level(logging.INFO)
    before = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    predict({**config, "dicom": str(folder / "out"), "pdf": True}, tmp_path / "again", open_outlets)
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == before
    assert "9 were there already" in caplog.text
    (one,) = {path for path in (folder / "out").iterdir() if path.name == f"sr_{_report_of(config, '1')}.dcm"}
    predict(
        {**config, "input": f"{config['input']}/1.dcm", "dicom": str(tmp_path / "other")}, tmp_path / "x", open_outlets
    )
    assert pydicom.dcmread(one).SOPInstanceUID in uids(tmp_path / "other")


@pytest.fixture
def objects(ran, tmp_path):
    """The objects of one film, report first, in a folder that a test may spoil."""
    folder, _ = ran
    of_one = [path for path in (folder / "out").iterdir() if _film_of(path) == f"{UID}.1"]
    return [Path(shutil.copy(path, tmp_path)) for path in sorted(of_one, key=lambda path: "sr_" not in path.name)]


def _film_of(path):
    header = pydicom.dcmread(path, stop_before_pixels=True)
    places = (
        "CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]",
        "SourceImageSequence[0]",
        "SourceInstanceSequence[0]",
    )
    for place in places:
        found = header
        for step in place.split("."):
            name, _, number = step.rstrip("]").partition("[")
            found = found[name].value[int(number)] if found is not None and name in found else None
        if found is not None:
            return found.ReferencedSOPInstanceUID
    raise AssertionError(path)


def test_while_one_object_is_whole_it_tells_when_all_were_made(objects):
    when = outlets._made_at(objects)
    objects[0].write_bytes(objects[0].read_bytes()[:300])
    assert outlets._made_at(objects) == when
    objects[1].unlink()
    assert outlets._made_at(objects) == when
    assert outlets._made_at([path.with_name("none.dcm") for path in objects]) is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda whole: b"", "can't be read"),
        (lambda whole: b"what somebody keeps here", "can't be read"),
        (lambda whole: whole[:200], "can't be read"),
        (lambda whole: whole.replace(b"2.25.", b"2.26.", 9), "is another object"),
        (None, "can't be read"),
    ],
    ids=["empty", "no DICOM", "cut off", "another object", "a folder"],
)
def test_a_damaged_object_is_told_and_not_overwritten(objects, config, tmp_path, caplog, content, words):
    for path in objects:
        spoilt = content and content(path.read_bytes())
        path.unlink()
        path.mkdir() if spoilt is None else path.write_bytes(spoilt)
    films = {"input": f"{config['input']}/1.dcm", "dicom": str(tmp_path)}
    predict(config | films, tmp_path / "run", open_outlets)
    assert f"{objects[0].name} is there and {words}" in caplog.text
    assert all(path.is_dir() or path.read_bytes() == spoilt for path in objects[-1:])


def _report_of(config, name):
    return model_of(Grader.load(config["checkpoint"])).uid("report", f"{UID}.{name}")


def test_patients_are_named_in_objects_and_nowhere_else(ran):
    folder, done = ran
    written = [path for path in (folder / "run").rglob("*") if path.is_file()]
    assert any(path.suffix == ".log" for path in written) and any(path.suffix == ".json" for path in written)
    for content in [*(path.read_bytes() for path in written), done.stdout.encode(), done.stderr.encode()]:
        assert not [secret for secret in SECRETS if secret.encode() in content]
    for path in (folder / "out").iterdir():
        assert b"SECRET-77" in path.read_bytes()


@pytest.mark.slow
def test_a_run_that_ends_between_a_films_objects_and_its_line_is_gone_on_with(config, tmp_path, monkeypatch):
    config = {**config, "dicom": str(tmp_path / "out")}
    whole, count = outlets.objects_of, []

    def ends(*arguments, **more):
        count.append(1)
        made = whole(*arguments, **more)
        if len(count) == 2:
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(outlets, "objects_of", ends)
    with pytest.raises(KeyboardInterrupt):
        predict(config, tmp_path / "run", open_outlets)
    monkeypatch.setattr(outlets, "objects_of", whole)
    predict({**config, "resume": True}, tmp_path / "run", open_outlets)
    assert len(uids(tmp_path / "out")) == 6
    assert len((tmp_path / "run/predictions.jsonl").read_text().splitlines()) == 6


def test_fhir_observations_are_valid_preliminary_and_say_what_the_lines_say(ran):
    folder, _ = ran
    lines = [json.loads(line) for line in (folder / "run/predictions.jsonl").read_text().splitlines()]
    files = {path.stem: json.loads(path.read_text()) for path in (folder / "run/fhir").iterdir()}
    assert set(files) == {"1", "2", "both_R", "both_L", "plain_R", "stray"}
    modules = [pytest.importorskip(f"fhir.resources.{name}") for name in ("observation", "R4B.observation")]
    for line in lines:
        name = line["filename"].rpartition(".")[0]
        content = files[f"{name}_{line['knee']}" if name == "both" else name]
        for module in modules:
            module.Observation.model_validate(content)
        assert content["status"] == "preliminary"
        assert content["valueCodeableConcept"]["coding"][0]["code"] == f"KL-{line['grade']}"
        parts = {part["code"]["coding"][0]["code"]: part for part in content["component"]}
        assert [parts[f"P-KL-{k}"]["valueQuantity"]["value"] for k in range(5)] == line["probabilities"]
        assert parts["REFERRED"]["valueBoolean"] == line["referred"]
    assert files["both_R"]["bodySite"]["text"] == "right knee"


def test_a_knee_without_a_grade_has_an_observation_that_says_why(best):
    row = {"filename": "a.dcm", "knee": "R", "box": [1, 2, 3], "label": None, "grade": None, "referred": True}
    content = observation({**row, "reason": "prosthesis", "error": None}, model_of(Grader.load(best)))
    pytest.importorskip("fhir.resources.observation").Observation.model_validate(content)
    assert "valueCodeableConcept" not in content and content["dataAbsentReason"]["coding"][0]["code"] == "not-performed"
    assert {"valueString": "prosthesis"}.items() <= content["component"][2].items()


@pytest.mark.parametrize("settings", [{"dicom": "out"}, {"format": "fhir"}])
def test_from_python_objects_need_who_makes_them(config, tmp_path, settings):
    with pytest.raises(UserError, match="open_outlets"):
        predict(config | settings, tmp_path / "run")


def test_without_the_extra_it_is_told_how_to_install_it(config, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(UserError, match=r"\[hospital\]"):
        predict({**config, "dicom": str(tmp_path / "out")}, tmp_path / "run", open_outlets)
    assert not (tmp_path / "out").exists()
