"""A model of a hub comes once, then out of the cache, and never as a pickle; what is wrong is told in a sentence."""

import json

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from hub_server import COMMIT, served
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.models.named import local_path, name_of


@pytest.fixture
def files(model):
    return {path.name: path.read_bytes() for path in model.iterdir()}


@pytest.fixture
def use(tmp_path, monkeypatch):
    """Let the hub's client ask this hub, and keep what it gets in a cache of its own."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def asks(address):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        url = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url)

    return asks


def test_a_hubs_model_comes_once_and_then_out_of_the_cache_and_its_name_has_the_commit(files, model, use, knees):
    named = "hub:some-one/knees@v1"
    film = next(knees.glob("*.png"))
    with served(files | {"pytorch_model.bin": b"no", "modeling.py": b"no"}) as hub:
        use(hub.address)
        grader = Grader.load(named)
    assert grader.grade(film, "R").grade == Grader.load(model).grade(film, "R").grade
    had = [line for line in hub.asked if line.startswith("GET") and "/resolve/" in line]
    assert [line.rpartition("/")[2] for line in had] == ["config.json", "model.safetensors"]
    assert name_of(grader.networks[0].path) == f"hub:some-one/knees@{COMMIT}"
    use("http://127.0.0.1:9")  # where nobody listens
    assert local_path(named) == grader.networks[0].path == local_path(f"hub:some-one/knees@{COMMIT}")


def test_without_network_it_is_told_at_once(use, monkeypatch):
    use("http://127.0.0.1:9")
    with pytest.raises(UserError, match=r"hub:a/b@v1 is not in the hub's cache yet, and http://127.0.0.1:9 .*HF_HOME"):
        Grader.load("hub:a/b@v1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, and hub:a/b@v1 is not in the hub's cache"):
        Grader.load("hub:a/b@v1")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hub:a/b", r"names no revision, and could be another model tomorrow: it is written hub:a/b@REVISION"),
        ("hub:a", "is no model of a hub: it is written hub:OWNER/NAME@REVISION"),
        ("hub:a/b/c@v1", "is no model of a hub"),
        ("hub:../b@v1", "is no model of a hub"),
        ("hub:a/b@../../x", "is no model of a hub"),
        ("hub:a/none@v1", "there is no a/none on http://127.0.0.1"),
        ("hub:a/b@v9", "a/b has no revision v9"),
    ],
)
def test_a_name_that_names_nothing_is_told(name, words, files, use):
    with served(files, {"/a/none/": "RepoNotFound", "/v9/": "RevisionNotFound"}) as hub:
        use(hub.address)
        with pytest.raises(UserError, match=words):
            Grader.load(name)


def test_what_is_no_model_of_ours_is_told_before_its_weights_are_asked_for(files, use):
    for others in (
        {"pytorch_model.bin": b"code"},
        files | {"config.json": json.dumps({"model_type": "bert"}).encode()},
    ):
        with served(others) as hub:
            use(hub.address)
            with pytest.raises(UserError, match="hub:a/b@v1 is no model of LegRadNet"):
                Grader.load("hub:a/b@v1")
            assert not [line for line in hub.asked if "safetensors" in line or "pytorch" in line]


def test_a_changed_file_is_told_and_what_to_do(files, use, tmp_path):
    changed = bytearray(files["model.safetensors"])
    changed[-1] ^= 1
    with served(files | {"model.safetensors": bytes(changed)}) as hub:
        use(hub.address)
        with pytest.raises(UserError, match=r"model.safetensors is damaged, .*: delete (.*), and it is had again"):
            Grader.load("hub:a/b@v1")
    with served(files) as hub:
        use(hub.address)
        for blob in (tmp_path / "cache").rglob("blobs/*"):
            blob.unlink()
        assert Grader.load("hub:a/b@v1").classes == 5


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("gone"), OSError("gone"), RuntimeError("gone")])
def test_a_connection_that_breaks_is_told(error, files, use, monkeypatch):
    def breaks(*_, **__):
        raise error

    monkeypatch.setattr("huggingface_hub.hf_hub_download", breaks)
    with served(files) as hub:
        use(hub.address)
        with pytest.raises(UserError, match="Downloading hub:a/b@v1 failed: gone"):
            Grader.load("hub:a/b@v1")
