"""A model folder is its checkpoint, and is refused when it is damaged or a stranger's doing."""

import json
import math
import random
import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from legradnet.checkpoint import read_checkpoint
from legradnet.errors import UserError
from legradnet.export.run import export
from legradnet.grading.checkpoint_network import HyperParameters
from legradnet.grading.grader import Grader
from legradnet.grading.metadata import Learned
from legradnet.models.described import digest, read_metadata, write_description
from legradnet.models.description import read_description
from legradnet.models.folder import in_16_bits, read_model, write_model
from legradnet.network.backbones import BackboneSettings
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.weights import load_ensemble, load_starting_weights
from tampering import tampered


def rewritten(folder, **changes):
    """The folder with another `config.json`, whose digest is right."""
    described = json.loads((folder / "config.json").read_text())
    del described["digest"]
    write_description(folder / "config.json", described | changes)
    return folder


def with_weights(folder, tensors, **more):
    save_file(tensors, folder / "model.safetensors")
    return rewritten(folder, digests={"model.safetensors": digest(folder / "model.safetensors")}, **more)


def test_a_model_folder_says_and_grades_what_its_checkpoint_does(best, model, knees):
    assert sorted(path.name for path in model.iterdir()) == ["config.json", "model.safetensors"]
    films = sorted(knees.glob("*.png"))[:6]
    for precision in ("f32", "bf16"):
        ours, theirs = (Grader.load(path, precision=precision) for path in (model, best))
        for found, expected in zip(ours.grade(films), theirs.grade(films), strict=True):
            assert found.probabilities == pytest.approx(expected.probabilities, abs=2e-3)
            assert (found.prediction_set, found.reason) == (expected.prediction_set, expected.reason)
        one, other = ours.networks[0], theirs.networks[0]
        assert (one.settings, one.learned) == (other.settings, other.learned)


def test_it_was_compared_with_the_checkpoint_on_the_films_of_its_run(model):
    described = json.loads((model / "config.json").read_text())
    assert described["quality"]["films"] == 40 and described["quality"]["split"] == "val"
    assert described["quality"]["changed_grades"] == 0 and described["quality"]["own"]
    assert described["largest_difference"] <= 2e-3


def test_a_model_can_be_exported_started_from_and_averaged(model, best, knees, tmp_path):
    again = export({"checkpoint": str(model), "output": str(tmp_path / "again"), "format": "model"})
    assert (again / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    film = next(knees.glob("*.png"))
    both, alone = Grader.load([model, best], precision="f32"), Grader.load(best, precision="f32")
    assert both.grade(film, "R").probabilities == pytest.approx(alone.grade(film, "R").probabilities, abs=1e-4)
    settings = alone.networks[0].settings
    ensemble = KneeEnsemble(settings.backbone, settings.gating, 4, settings.model.feature_dim)
    load_ensemble(ensemble, model)
    weights = Grader.load(model).networks[0].ensemble.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in ensemble.state_dict().items())
    group = {
        "vit": BackboneSettings(**settings.backbone["vit"].model_dump() | {"weights": str(model / "model.safetensors")})
    }
    trunk = KneeEnsemble(group, {"name": "mean"}, 5, feature_dim=8)
    load_starting_weights(trunk, group, pretrained=False)
    assert all(
        torch.equal(tensor, weights[f"backbones.vit.trunk.{name}"])
        for name, tensor in trunk.backbones["vit"].trunk.state_dict().items()
    )


def test_whatever_a_checkpoint_keeps_comes_back_as_it_was(tmp_path):
    kept = {
        "hyper_parameters": {"a": [1, 2.5, None, True], "b": {"c": "ä", "d": math.inf}},
        "legradnet": {"distance": {"means": torch.rand(5, 7), "inverse": torch.rand(3, 300, 300), "k": 5}},
        "epoch": 3,
    }
    state = {"ensemble.a": torch.rand(300, 300), "ensemble.b": torch.arange(5), "ensemble.c": torch.rand(2, 2)}
    write_model(tmp_path, {**kept, "state_dict": state}, {"parameters": 1, "made_with": {}})
    back = read_model(tmp_path)
    distance, as_it_was = back["legradnet"].pop("distance"), kept["legradnet"].pop("distance")
    assert all(torch.equal(distance[name], as_it_was[name]) for name in ("means", "inverse"))
    assert distance["k"] == 5
    loaded = back.pop("state_dict")
    assert back == kept
    assert loaded.keys() == state.keys() and loaded["ensemble.a"].dtype == torch.float16
    assert all(torch.equal(loaded[name], state[name]) for name in ("ensemble.b", "ensemble.c"))


@given(st.lists(st.floats(2.0**-14, 6e4, width=32).flatmap(lambda x: st.sampled_from([x, -x])), min_size=1))
def test_weights_in_16_bits_are_near_and_what_bfloat16_makes_of_them_is_the_same(numbers):
    weights = torch.tensor(numbers)
    short = in_16_bits(weights)
    assert short.dtype in (torch.float16, torch.bfloat16)
    assert torch.equal(short.bfloat16(), weights.bfloat16())
    assert ((short.float() - weights).abs() <= weights.abs() * 2**-10).all() or short.dtype == torch.bfloat16


def test_weights_beyond_the_range_of_float16_become_bfloat16():
    for size in (1e5, 1e-9):
        weights = torch.rand(9, 9) * size
        assert in_16_bits(weights).dtype == torch.bfloat16


def test_where_16_bits_would_change_a_grade_all_bits_are_kept(best, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("legradnet.models.folder._SMALL", 0)
    monkeypatch.setattr("legradnet.models.folder.in_16_bits", lambda weights: (weights * 1.5).half())
    folder = export({"checkpoint": str(best), "output": str(tmp_path / "model"), "format": "model"})
    assert "all keep 32 bits" in caplog.text
    kept = read_model(folder)["state_dict"]
    assert all(torch.equal(kept[name], tensor) for name, tensor in read_checkpoint(best)["state_dict"].items())
    assert json.loads((folder / "config.json").read_text())["quality"]["changed_grades"] == 0


def test_without_films_only_generated_ones_are_compared_and_that_is_told(best, tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "alone.ckpt").write_bytes(best.read_bytes())
    folder = export({"checkpoint": str(tmp_path / "alone.ckpt"), "output": str(tmp_path / "m"), "format": "model"})
    assert json.loads((folder / "config.json").read_text())["quality"] is None
    assert "On real films it was not compared" in caplog.text


def test_a_precision_is_not_the_folders_but_the_graders(best, tmp_path):
    asked = {"checkpoint": str(best), "output": str(tmp_path / "m"), "format": "model", "precision": "int8"}
    with pytest.raises(UserError, match="precision=int8 with format=model: a model computes in the precision= that"):
        export(asked)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_byte_is_told_in_a_sentence(copy, name):
    file, rng = copy / name, random.Random(3)
    content = file.read_bytes()
    for _ in range(40):
        place = rng.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(UserError, match=f"{name} is damaged") as told:
            read_model(copy)
        assert "\n" not in str(told.value) or name == "config.json"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_and_one_that_lies_elsewhere_are_told(copy, name, tmp_path):
    elsewhere = shutil.move(copy / name, tmp_path / "elsewhere")
    with pytest.raises(UserError, match=f"{name} is missing, or not a file of its own"):
        Grader.load(copy)
    (copy / name).symlink_to(elsewhere)
    with pytest.raises(UserError, match=f"{name} is missing, or not a file of its own"):
        Grader.load(copy)


def test_links_within_a_hubs_cache_are_followed(model, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True), blobs.mkdir()
    for i, file in enumerate(model.iterdir()):
        shutil.copy(file, blobs / (f"{i}" * 40))
        (snapshot / file.name).symlink_to(f"../../blobs/{f'{i}' * 40}")
    assert read_model(snapshot)["epoch"] == read_model(model)["epoch"]


def test_a_folder_of_another_program_or_version_is_told(copy):
    with pytest.raises(UserError, match="legradnet_model=2 must be one of 1"):
        read_model(rewritten(copy, legradnet_model=2))
    with pytest.raises(UserError, match="code is unknown"):
        read_model(rewritten(copy, legradnet_model=1, code="x"))
    (copy / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"is no model of LegRadNet: its config.json is another program's"):
        read_model(copy)


def test_a_header_without_end_a_type_that_no_weight_has_and_numbers_that_are_not_there_are_told(copy):
    file = copy / "model.safetensors"

    def told(words):
        with pytest.raises(UserError, match=words):
            Grader.load(rewritten(copy, digests={"model.safetensors": digest(file)}))

    file.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    told("its header has 1,099,511,627,776 bytes, more than")
    header = json.dumps({"ensemble.a": {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    told("no readable safetensors file")
    save_file({"ensemble.a": torch.zeros(2, dtype=torch.complex64)}, file)
    told("holds ensemble.a as torch.complex64, which no weight of ours is")
    save_file({"a": torch.zeros(2)}, file)
    told("is no LegRadNet checkpoint")


def test_tensors_that_do_not_fit_and_weights_that_are_not_finite_are_told(copy, knees, caplog):
    state = load_file(copy / "model.safetensors")
    name = "ensemble.head.2.weight"
    for value, words in ((torch.zeros(4, 7), "size mismatch for head.2.weight"), (None, "Missing key")):
        changed = {key: tensor for key, tensor in state.items() if key != name} | (
            {name: value} if value is not None else {}
        )
        with pytest.raises(UserError, match=f"doesn't fit the network it describes: (?s:.*){words}"):
            Grader.load(with_weights(copy, changed))
    grader = Grader.load(with_weights(copy, state | {name: state[name] * torch.nan}))
    assert "head.2.weight is not finite. It grades no film" in caplog.text
    with pytest.raises(UserError, match="can't be averaged"):
        Grader.load([copy, copy])
    assert grader.networks[0].not_finite


def test_a_tensor_that_is_not_there_or_is_named_twice_is_told(copy):
    said = json.loads((copy / "config.json").read_text())["checkpoint"]
    for odd in ({"$tensor": "none"}, {"$tensor": 3}, {"$float": "code"}):
        with pytest.raises(UserError, match=r"config\.json is damaged: "):
            read_model(rewritten(copy, checkpoint=said | {"epoch": odd}))
    twice = [{"$tensor": "ensemble.head.2.bias"}] * 2
    with pytest.raises(UserError, match="or it stands in two places"):
        read_model(rewritten(copy, checkpoint=said | {"epoch": twice}))


def test_a_tampered_description_with_a_right_digest_is_told_of_or_read_as_before(copy):
    described = json.loads((copy / "config.json").read_text())
    del described["digest"]
    told = 0
    for what, changed in tampered(described, 150, seed=7):
        try:
            write_description(copy / "config.json", changed)
        except (ValueError, AttributeError):  # what JSON has not
            continue
        try:
            said = read_description(copy)
            read_metadata(Learned, said.checkpoint.get("legradnet"), copy)
            read_metadata(HyperParameters, said.checkpoint.get("hyper_parameters"), copy)
        except UserError as error:
            assert str(copy) in str(error), what
            assert len(str(error)) < 3000, what
            told += 1
    assert told > 40
