"""The model that ships: small, whole, plain, and of real knees it says what it said when it was made."""

import json
import shutil

import pytest
from safetensors import safe_open

from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.models.folder import read_model
from legradnet.models.named import SHIPPED_FOLDER
from shipped_knees import FILMS, KNEES, said_of_ten

pytestmark = pytest.mark.skipif(
    not (SHIPPED_FOLDER / "config.json").is_file(), reason="this build has no shipped model yet"
)
MOST_BYTES = 45_000_000


def test_it_is_small_and_plain_and_most_of_its_weights_have_16_bits():
    files = {path.name: path.stat().st_size for path in SHIPPED_FOLDER.iterdir()}
    assert {"config.json", "model.safetensors"} <= files.keys()
    kinds = (".json", ".safetensors", ".md", ".yaml", "NOTICE")
    assert all(name.endswith(kinds) for name in files), "no pickle, no picture of a knee"
    assert sum(files.values()) <= MOST_BYTES
    with safe_open(SHIPPED_FOLDER / "model.safetensors", "np") as weights:
        slices = [weights.get_slice(name) for name in weights.keys()]  # noqa: SIM118 it is no mapping
    sizes = {16: 0, 32: 0}
    for tensor in slices:
        count = 1
        for side in tensor.get_shape():
            count *= side
        if tensor.get_dtype() != "I64":
            sizes[16 if tensor.get_dtype() in ("F16", "BF16") else 32] += count
    assert sizes[16] > 0.75 * sum(sizes.values())


def test_it_was_measured_against_its_checkpoint_on_validation_knees():
    quality = json.loads((SHIPPED_FOLDER / "config.json").read_text())["quality"]
    assert (quality["split"], quality["films"], quality["changed_grades"]) == ("val", 826, 0)
    assert quality["largest_probability_change"] <= 2e-3


def test_it_names_no_place_on_the_machine_that_made_it():
    said = (SHIPPED_FOLDER / "config.json").read_text()
    assert not [place for place in ("/work", "/tmp", "/home", "/root") if place in said]


def test_a_changed_byte_of_it_is_refused(tmp_path):
    folder = shutil.copytree(SHIPPED_FOLDER, tmp_path / "oai")
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(UserError, match="model.safetensors is damaged"):
        read_model(folder)


@pytest.mark.skipif(not FILMS.is_dir(), reason="no real knees in ../shared/oai")
def test_ten_real_knees_are_graded_as_it_was_written_down_when_it_was_made():
    written, said = json.loads(KNEES.read_text())["knees"], said_of_ten()
    assert len(written) == 10 and len({knee["label"] for knee in written}) == 5
    for before, now in zip(written, said, strict=True):
        assert now["probabilities"] == pytest.approx(before["probabilities"], abs=1e-3)
        assert {**now, "probabilities": 0} == {**before, "probabilities": 0}
    assert Grader.load().networks[0].film_check is not None
