import hashlib

import pytest
import timm
import torch
from safetensors.torch import save_file

from legradnet.checkpoint import write_checkpoint
from legradnet.errors import UserError
from legradnet.network import hub
from legradnet.network.backbones import BackboneSettings, create_network
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.weights import check_weights, load_ensemble, load_starting_weights, load_trunk


def start(timm_name, **settings):
    """A one-backbone ensemble, started as a fresh run starts it."""
    group = {"net": BackboneSettings(timm_name=timm_name, **settings)}
    ensemble = KneeEnsemble(group, {"name": "mean"}, 5, feature_dim=8)
    load_starting_weights(ensemble, group, pretrained=False)
    return ensemble.backbones["net"].trunk


def assert_same_trunk(trunk, source):
    theirs = source.state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in trunk.state_dict().items())


@pytest.mark.parametrize(
    "name", ["tiny_densenet", "tiny_swin", "tiny_convnext", "tiny_vit", "tiny_xception", "test_byobnet"]
)
@pytest.mark.parametrize("kind", ["safetensors", "state_dict", "wrapped"])
def test_a_local_file_fills_the_trunk_and_its_classifier_is_left_out(name, kind, tmp_path):
    source = create_network(name, num_classes=7)
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_file({key: tensor.contiguous() for key, tensor in source.state_dict().items()}, path)
    else:
        state = source.state_dict()
        torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}} if kind == "wrapped" else state, path)
    assert_same_trunk(start(name, weights=str(path)), source)


def test_everything_but_the_classifier_must_fit(tmp_path):
    state = create_network("tiny_convnext").state_dict()
    lost = next(iter(state))
    trunk = create_network("tiny_convnext", num_classes=0)
    with pytest.raises(UserError, match=f"a.pth doesn't fit tiny_convnext: 1 missing: {lost}"):
        load_trunk(trunk, {key: value for key, value in state.items() if key != lost}, "a.pth")
    with pytest.raises(UserError, match="1 unknown: extra"):
        load_trunk(trunk, {**state, "extra": torch.zeros(1)}, "a.pth")
    with pytest.raises(UserError, match="1 of another shape"):
        load_trunk(trunk, {**state, lost: torch.zeros(1)}, "a.pth")


def test_torchvisions_own_densenet_file_is_understood():
    source = timm.create_model("densenet121", num_classes=0, growth_rate=4, block_config=(1, 1, 1, 1))
    old = {name.replace("norm1", "norm.1").replace("conv2", "conv.2"): t for name, t in source.state_dict().items()}
    old = {
        name: tensor for name, tensor in old.items() if "num_batches" not in name
    }  # that file is older than they are
    target = timm.create_model("densenet121", num_classes=0, growth_rate=4, block_config=(1, 1, 1, 1))
    load_trunk(target, old, "densenet.pth")
    assert_same_trunk(target, source)


@pytest.mark.parametrize("name", ["tiny_vit", "tiny_swin"])
def test_position_embeddings_are_resampled_to_another_size(name, tmp_path):
    source = create_network(name)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    trunk = start(name, weights=str(tmp_path / "weights.pth"), image_size=72)
    theirs = source.state_dict()
    different = {key for key, value in trunk.state_dict().items() if key in theirs and value.shape != theirs[key].shape}
    assert different <= {"pos_embed"} | {key for key in different if "relative_position" in key}
    assert torch.equal(trunk.state_dict()["patch_embed.proj.weight"], theirs["patch_embed.proj.weight"])


def test_one_backbone_starts_from_a_checkpoint_of_ours(tmp_path):
    group = {"vit": {"timm_name": "tiny_vit"}, "swin": {"timm_name": "tiny_swin"}}
    ours = KneeEnsemble(group, {"name": "mean"}, 5, feature_dim=8)
    state = {f"ensemble.{name}": tensor for name, tensor in ours.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, tmp_path / "ours.ckpt")
    group = {"vit": BackboneSettings(timm_name="tiny_vit", weights=str(tmp_path / "ours.ckpt"))}
    other = KneeEnsemble(group, {"name": "mean"}, 5, feature_dim=8)
    load_starting_weights(other, group, pretrained=False)
    assert_same_trunk(other.backbones["vit"].trunk, ours.backbones["vit"].trunk)
    with pytest.raises(UserError, match="has no backbone 'net'; it holds swin, vit"):
        start("tiny_vit", weights=str(tmp_path / "ours.ckpt"))


def test_a_broken_weights_file_is_told(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match="no readable safetensors file"):
        start("tiny_vit", weights=str(tmp_path / "broken.safetensors"))
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="holds no tensors by name"):
        start("tiny_vit", weights=str(tmp_path / "empty.pth"))


def test_all_missing_weight_files_are_told_together():
    backbones = {
        "vit": BackboneSettings(timm_name="tiny_vit", weights="a.pth"),
        "swin": BackboneSettings(timm_name="tiny_swin", weights="b.pth"),
    }
    with pytest.raises(UserError, match=r"(?s)backbone\.vit\.weights: no file at a\.pth.*backbone\.swin\.weights"):
        check_weights(backbones, pretrained=True)


def test_tiny_networks_never_ask_for_pretrained_weights(monkeypatch):
    monkeypatch.setattr(hub, "unreachable", lambda url: pytest.fail(f"asked {url}"))
    check_weights({"vit": BackboneSettings(timm_name="tiny_vit")}, pretrained=True)


def test_a_network_that_timm_has_no_weights_of_is_told():
    with pytest.raises(UserError, match="no pretrained weights for darknet17"):
        check_weights({"vit": BackboneSettings(timm_name="darknet17")}, pretrained=True)


def test_each_server_is_asked_once(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(hub, "cached_file", lambda name: None)
    monkeypatch.setattr(hub, "unreachable", asked.append)
    hub.check_downloads(["vit_base_patch16_224", "densenet201", "legacy_xception"])
    assert len(asked) == 2


def test_offline_mode_of_the_hub_is_respected(monkeypatch):
    monkeypatch.setattr(hub, "cached_file", lambda name: None)
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "unreachable", lambda url: pytest.fail(f"asked {url}"))
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        hub.check_downloads(["vit_base_patch16_224"])


def whole(settings):
    """A checkpoint of ours with one small backbone."""
    ensemble = KneeEnsemble({"net": {"timm_name": "test_vit"}}, {"name": "mean"}, 5, feature_dim=8)
    state = {f"ensemble.{name}": tensor for name, tensor in ensemble.state_dict().items()}
    return ensemble, {"hyper_parameters": settings, "state_dict": state}


def started(ensemble, path):
    load_ensemble(ensemble, path)


def trunk_started(ensemble, path):
    group = {"net": BackboneSettings(timm_name="test_vit", weights=str(path))}
    load_starting_weights(ensemble, group, pretrained=False)


@pytest.mark.parametrize("start", [started, trunk_started], ids=["init_from", "weights"])
@pytest.mark.parametrize("settings", [{}, [], 3, {"gating": None}, {"gating": {"name": "mean"}}], ids=repr)
def test_weights_to_start_from_that_are_none_are_told_in_words(start, settings, tmp_path):
    ensemble, content = whole(settings)
    name = "ensemble.backbones.net.trunk.pos_embed"
    large, spoilt = torch.zeros(1).expand(10**6, 10**6), content["state_dict"][name] * torch.nan
    for value in (None, "x", 3, {}, [1], large, torch.zeros(2, 2).to_sparse(), torch.zeros(3), spoilt):
        torch.save({**content, "state_dict": {**content["state_dict"], name: value}}, tmp_path / "odd.ckpt")
        with pytest.raises(UserError, match=r"odd\.ckpt"):
            start(ensemble, tmp_path / "odd.ckpt")
    torch.save({**content, "state_dict": {**content["state_dict"], 7: large}}, tmp_path / "odd.ckpt")
    start(ensemble, tmp_path / "odd.ckpt")  # of nobody's concern


@pytest.mark.parametrize("start", [started, trunk_started], ids=["init_from", "weights"])
def test_a_changed_bit_in_weights_to_start_from_is_told(start, tmp_path):
    ensemble, content = whole({})
    path = tmp_path / "a.ckpt"
    with path.open("wb") as file:
        write_checkpoint(content, file)
    start(ensemble, path)
    changed = bytearray(path.read_bytes())
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    with pytest.raises(UserError, match="checksum"):
        start(ensemble, path)


def test_a_damaged_file_in_the_hubs_cache_is_told(tmp_path):
    content = b"weights"
    blob = tmp_path / hashlib.sha256(content).hexdigest()
    (tmp_path / "model.safetensors").symlink_to(blob)
    blob.write_bytes(content)
    hub.check_undamaged(tmp_path / "model.safetensors")
    blob.write_bytes(b"weightt")
    with pytest.raises(UserError, match="model.safetensors is damaged, its checksum is wrong: delete"):
        hub.check_undamaged(tmp_path / "model.safetensors")
