"""What `export.json` says is checked before the network is started."""

import json
import random
import resource
import shutil
from dataclasses import replace

import pytest

from legradnet.data.images import read_image
from legradnet.errors import UserError
from legradnet.grading.export_description import ExportDescription
from legradnet.grading.exported_network import ExportedNetwork
from legradnet.grading.grader import Grader
from legradnet.grading.runtimes import RUNTIMES
from legradnet.models.described import read_metadata
from tampering import tampered

pytest.importorskip("openvino", reason="pip install -e '.[export]'")


@pytest.fixture
def copy(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_tampered_description_is_told_of_in_words_or_grades_as_before_and_takes_little_memory(
    copy, knees, monkeypatch
):
    film = read_image(next(knees.glob("*.png")))
    file = copy / "export.json"
    network = ExportedNetwork(copy)
    good = Grader([network]).grade(film, "R")
    started = network.runs_in, network.image_size, network._run
    # starting the same graph for each change would take a second each time, and prove nothing
    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES["openvino"], start=lambda *_: started))
    told = 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    described = json.loads(file.read_text())
    del described["digest"]  # by which every change is told
    for what, changed in tampered(described, 150, seed=5):
        file.write_text(json.dumps(changed))
        try:
            grading = Grader.from_export(copy).grade(film, "R")
        except UserError as error:
            assert str(copy) in str(error), what
            assert len(str(error)) < 3000, what
            told += 1
        else:
            assert (grading.raw == good.raw).all(), what
    assert told > 60
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # kB, so 512 MB


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"precision": "bf32"}, "precision=bf32 must be one of f32, bf16, int8"),
        ({"batch_size": 0}, "batch_size=0 must be a whole number from 1 to 1000000"),
        ({"classes": 10**9}, "classes=1000000000 must be a whole number from 2 to 1000"),
        ({"class_names": ["KL 0"]}, "there are 1 class_names for 5 classes"),
        ({"backbones": ["vit", "vit"]}, "backbones of the same name"),
        ({"digests": {"network.xml": "0", "../secret": "0"}}, "digests must be of network.xml, network.bin"),
        ({"code": "x"}, "code is unknown"),
    ],
)
def test_each_mistake_is_told_with_its_key(copy, changes, words):
    file = copy / "export.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(UserError) as told:
        ExportedNetwork(copy)
    assert words in str(told.value)
    assert str(file) in str(told.value)


def test_an_export_for_films_smaller_than_training_takes_today_is_read_as_ever(copy):
    file = copy / "export.json"
    described = json.loads(file.read_text())
    for side, taken in ((16, True), (31, True), (15, False), (4097, False)):
        described["films"]["image_size"] = side
        file.write_text(json.dumps(described))
        if taken:
            assert read_metadata(ExportDescription, described, file).films.image_size == side
        else:
            with pytest.raises(UserError, match=f"films.image_size={side} must be a whole number from 16 to 4096"):
                ExportedNetwork(copy)


def test_a_bit_that_has_changed_in_the_description_is_told(copy, monkeypatch):
    monkeypatch.setitem(RUNTIMES, "openvino", replace(RUNTIMES["openvino"], start=None))  # told before it is started
    file, rng = copy / "export.json", random.Random(13)
    content = file.read_bytes()
    for _ in range(60):
        place = rng.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"export\.json"):
            ExportedNetwork(copy)


def test_each_digit_of_the_description_counts_and_how_it_is_laid_out_does_not(copy):
    file = copy / "export.json"
    described = json.loads(file.read_text())
    file.write_text(json.dumps(described, sort_keys=True))
    assert ExportedNetwork(copy).classes == described["classes"]
    temperature = repr(described["calibration"]["temperature"])
    file.write_text(json.dumps(described).replace(temperature, f"{temperature}0"))  # the same number, written otherwise
    with pytest.raises(UserError, match="its checksum is wrong"):
        ExportedNetwork(copy)


def test_what_is_said_twice_is_refused(copy):
    file = copy / "export.json"
    file.write_text(file.read_text().replace('"classes": 5', '"classes": 5, "classes": 5'))
    with pytest.raises(UserError, match="says something twice"):
        ExportedNetwork(copy)


def test_an_export_of_older_releases_has_no_digest_and_is_read_as_ever(copy):
    file = copy / "export.json"
    described = json.loads(file.read_text())
    del described["digest"]
    file.write_text(json.dumps(described))
    assert ExportedNetwork(copy).classes == described["classes"]


def test_settings_of_another_network_are_told_when_they_are_asked_for(copy):
    file = copy / "export.json"
    described = json.loads(file.read_text())
    assert ExportedNetwork(copy).settings.loss.name == described["settings"]["loss"]["name"]
    del described["digest"]
    described["settings"]["loss"] = {"name": "cross_entropy"}  # whose rule is another
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match="of another network"):
        _ = ExportedNetwork(copy).settings
    described["settings"]["loss"] = {"name": "none"}
    file.write_text(json.dumps(described))
    with pytest.raises(UserError, match="loss.name=none must be one of cross_entropy, corn, cumulative, soft_labels"):
        _ = ExportedNetwork(copy).settings
