"""Reports, pictures and pages of films: standard objects, always the same ones, and of nobody but their patient."""

import shutil
import subprocess
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from knee_films import KNEE, PATIENT, UID, both_knees, checked_by, faults, film, named

from legradnet.grading.grader import Grader
from legradnet.grading.grading import NotGraded, Prepared, Request
from legradnet.grading.whole_films import prepare_knees
from whole_films import CLEAR, LEFT, RIGHT, whole_film

pytest.importorskip("highdicom", reason="the extra [hospital] is not installed")
from legradnet.hospital.evidence import graded_film
from legradnet.hospital.graded import ReadKnee
from legradnet.hospital.identity import NoIdentityError, read_identity
from legradnet.hospital.model import model_of
from legradnet.hospital.objects import objects_of

WHEN = datetime(2026, 1, 2, 3, 4, 5)
FILMS = {
    "as it should be": lambda path: film(path),
    "without a patient": lambda path: film(
        path, PatientName=None, PatientID=None, **dict.fromkeys(("PatientBirthDate", "PatientSex", "StudyDate"), None)
    ),
    "with values that are none": lambda path: film(
        path, PatientBirthDate="1957-04", PatientSex="female", StudyTime="noon", PatientAge="old", ImageLaterality=None
    ),
    "of two frames": lambda path: film(path, pixels=np.concatenate([KNEE, KNEE]), Rows=64, NumberOfFrames=2),
    "of a kind with many frames": lambda path: film(
        path,
        pixels=np.concatenate([KNEE, KNEE]),
        SOPClassUID="1.2.840.10008.5.1.4.1.1.7.2",
        Rows=64,
        NumberOfFrames=2,
    ),
    "that has lost something": lambda path: film(
        path, LossyImageCompression="01", LossyImageCompressionRatio="12", LossyImageCompressionMethod="ISO_10918_1"
    ),
    "in implicit VR": lambda path: film(path, syntax="1.2.840.10008.1.2"),
    "of both knees": both_knees,
}
QUICK = ("as it should be", "with values that are none", "of both knees")


def read_knees(grader, path, kind="auto"):
    prepared = prepare_knees(grader.networks, Request(path), kind)
    gradings = [grader.grade_prepared([one])[0] if isinstance(one, Prepared) else one for one in prepared]
    return [ReadKnee(*pair) for pair in zip(prepared, gradings, strict=True)]


def made_of(grader, path, when=WHEN, kind="auto", pdf=True):
    made = objects_of(grader, read_knees(grader, path, kind), read_identity(path), model_of(grader), when, pdf=pdf)
    return {one.kind: one for one in made}


def opened(one):
    return pydicom.dcmread(BytesIO(one.content))


@pytest.fixture(scope="module")
def grader(best):
    return Grader.load(best)


@pytest.fixture(scope="module")
def crop(grader, tmp_path_factory):
    path = film(tmp_path_factory.mktemp("crop") / "film.dcm")
    return path, made_of(grader, path, kind="crop")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in FILMS]
)
def test_checkers_find_no_error_in_any_object(grader, tmp_path, kind):
    path = FILMS[kind](tmp_path / "film.dcm")
    made = made_of(grader, path, kind="whole" if kind == "of both knees" else "crop")
    assert made.keys() == {"report", "picture", "page"}
    for name, one in made.items():
        (tmp_path / f"{name}.dcm").write_bytes(one.content)
        assert not faults(tmp_path / f"{name}.dcm")
    words = checked_by("dcentvfy", *sorted(tmp_path.glob("*.dcm")))
    assert "Error" not in words and "Abort" not in words, words
    printed = checked_by("dsrdump", tmp_path / "report.dcm")
    assert "Measurement Group" in printed and "not a medical device" in printed.replace("...", "not a medical device")
    assert "UNVERIFIED" in printed


def test_a_report_says_all_of_a_knee_in_codes(grader, crop):
    path, made = crop
    report = opened(made["report"])
    (read,) = read_knees(grader, path, "crop")
    assert (
        report.SOPClassUID.name == "Comprehensive SR Storage"
        and report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    )
    assert (report.VerificationFlag, report.PreliminaryFlag) == ("UNVERIFIED", "PRELIMINARY")
    (site,) = named(report, "Finding Site")
    assert site.ConceptCodeSequence[0].CodeValue == "72696002"
    assert named(site, "Laterality")[0].ConceptCodeSequence[0].CodeValue == "7771000"
    (grade,) = named(report, "Kellgren-Lawrence grade")
    assert grade.ConceptCodeSequence[0].CodeValue == f"KL-{read.grading.grade}"
    chances = [
        float(named(report, f"Probability of Kellgren-Lawrence grade {k}")[0].MeasuredValueSequence[0].NumericValue)
        for k in range(5)
    ]
    assert chances == pytest.approx(read.grading.probabilities, abs=1e-6)
    in_set = [item.ConceptCodeSequence[0].CodeValue for item in named(report, "Grade in the prediction set")]
    assert in_set == [f"KL-{k}" for k in read.grading.prediction_set]
    (referred,) = named(report, "Referred to a reader")
    assert referred.ConceptCodeSequence[0].CodeMeaning == ("Yes" if read.grading.referred else "No")
    assert [item.TextValue for item in named(report, "Reason")] == (
        [read.grading.reason] if read.grading.reason else []
    )
    assert named(report, "Algorithm Name")[0].TextValue == "LegRadNet" and named(report, "Algorithm Version")
    assert grader.networks[0].digest in named(report, "Algorithm Parameters")[0].TextValue
    (image,) = named(report, "Source of Measurement")
    assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{UID}.1"


def test_a_film_of_both_knees_has_one_report_with_a_group_a_knee(grader, tmp_path):
    made = made_of(grader, both_knees(tmp_path / "film.dcm"), kind="whole")
    report = opened(made["report"])
    assert len(named(report, "Measurement Group")) == 2 and len(named(report, "Kellgren-Lawrence grade")) == 2
    sides = [item.ConceptCodeSequence[0].CodeMeaning for item in named(report, "Laterality")]
    assert sides == ["Right", "Left"]


def test_a_knee_beside_a_graded_one_is_told_with_the_reason_why_it_has_no_grade(grader, tmp_path):
    pixels = whole_film(RIGHT, LEFT, seed=CLEAR, replaced=[RIGHT])
    made = made_of(grader, film(tmp_path / "film.dcm", pixels=pixels, ImageLaterality=None), kind="whole")
    report = opened(made["report"])
    right, left = named(report, "Measurement Group")
    assert not named(right, "Kellgren-Lawrence grade") and "prosthesis" in named(right, "Reason")[0].TextValue
    assert named(right, "Referred to a reader")[0].ConceptCodeSequence[0].CodeMeaning == "Yes"
    assert named(left, "Kellgren-Lawrence grade")


def test_a_film_without_a_grade_has_no_objects(grader, tmp_path):
    path = film(tmp_path / "film.dcm", pixels=np.full((300, 400), 90, np.uint8))
    assert isinstance(read_knees(grader, path, "whole")[0].grading, NotGraded)
    assert made_of(grader, path, kind="whole") == {}


def test_the_same_film_model_and_time_give_the_same_bytes_and_another_film_other_uids(grader, crop, tmp_path):
    path, made = crop
    again = made_of(grader, path, kind="crop")
    assert {one.kind: one.content for one in again.values()} == {one.kind: one.content for one in made.values()}
    later = made_of(grader, path, when=datetime(2027, 1, 1), kind="crop")
    assert [one.uid for one in later.values()] == [one.uid for one in made.values()]
    other = made_of(grader, film(tmp_path / "other.dcm", 2), kind="crop")
    uids = [
        opened(one)[name].value
        for made_ in (made, other)
        for one in made_.values()
        for name in ("SOPInstanceUID", "SeriesInstanceUID")
    ]
    assert len(set(uids)) == len(uids) == 12


def test_another_model_gives_other_uids(grader, crop):
    model = model_of(grader)
    other = type(model)(model.names, ("0" * 64,), model.trained_by, model.classes)
    assert other.uid("report", UID) != model.uid("report", UID) == model_of(grader).uid("report", UID)


def test_objects_are_in_the_study_of_their_film_and_of_its_patient(crop):
    path, made = crop
    original = pydicom.dcmread(path)
    for one in made.values():
        dataset = opened(one)
        for name in PATIENT.keys() - {"SeriesInstanceUID", "Modality"}:
            assert dataset[name].value == original[name].value, name
        assert dataset.SeriesInstanceUID != original.SeriesInstanceUID
        assert dataset.InstanceCreationDate == "20260102"


def test_research_use_only_stands_in_report_picture_and_page(crop, tmp_path):
    _, made = crop
    words = "research use only, not a medical device"
    report, picture, page = (opened(made[kind]) for kind in ("report", "picture", "page"))
    assert words in named(report, "Comment")[0].TextValue.lower()
    assert words in picture.ImageComments.lower() and words in page.DocumentTitle.lower()
    assert all(words in dataset.SeriesDescription.lower() for dataset in (report, picture, page))
    assert page.VerificationFlag == "UNVERIFIED"
    if shutil.which("pdftotext") is None:
        pytest.skip("pdftotext is not installed")
    (tmp_path / "page.pdf").write_bytes(page.EncapsulatedDocument)
    text = subprocess.run(["pdftotext", "-layout", tmp_path / "page.pdf", "-"], capture_output=True, text=True).stdout
    assert words in text.lower() and "KL " in text and text.count("\f") == 1
    assert not any(str(value).split("^")[0] in text for value in PATIENT.values() if len(str(value)) > 3)


def test_a_picture_shows_the_film_its_heat_map_and_words(crop):
    _, made = crop
    picture = opened(made["picture"])
    pixels = picture.pixel_array
    assert pixels.shape[2] == 3 and picture.PhotometricInterpretation == "RGB" and picture.Modality == "OT"
    height, width, _ = pixels.shape
    colour = np.ptp(pixels.astype(int), axis=2) > 40
    film_half, map_half = colour[60 : height // 2, : width // 2], colour[60 : height // 2, width // 2 :]
    assert not film_half.any() and map_half.mean() > 0.01
    assert (pixels[-120:] > 200).any() and colour[:40].any(), "words below, a warning above"


def test_several_networks_are_explained_by_hidden_tiles(best, tmp_path):
    grader = Grader.load([best, best])
    graded = graded_film(grader, read_knees(grader, film(tmp_path / "film.dcm"), "crop"))
    assert graded.method == "hidden tiles" and graded.evidence.shape == KNEE.shape
    assert graded.evidence.max() > 1 and graded.evidence.min() >= 0


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"StudyInstanceUID": None}, "StudyInstanceUID"),
        ({"SeriesInstanceUID": "Geheim"}, "SeriesInstanceUID"),
        ({"SOPInstanceUID": "1." + "2" * 80}, "SOPInstanceUID"),
    ],
)
def test_a_film_that_does_not_say_which_it_is_has_no_objects_and_is_not_quoted(tmp_path, elements, words):
    path = film(tmp_path / "film.dcm", **elements)
    with pytest.raises(NoIdentityError, match=words) as raised:
        read_identity(path)
    assert "Geheim" not in str(raised.value)
