import pytest

from exports import exported, knees_as_films, needs_runtimes, untrained
from legradnet.export.check import TOLERANCE
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.exported_network import ExportedNetwork

pytestmark = [pytest.mark.by_hand, needs_runtimes]


@pytest.mark.parametrize(
    "backbone",
    [
        {"densenet": "densenet201"},
        {"swin": "swin_base_patch4_window7_224"},
        {"convnext": "convnext_base"},
        {"vit": "vit_base_patch16_224"},
        {"xception": "legacy_xception"},
        {"deit": "deit_base_patch16_224"},
        {"beit": "beit_base_patch16_224"},
        {"lite0": "tf_efficientnet_lite0", "efficientnet": "efficientnet_b0"},
    ],
    ids=lambda backbone: "+".join(backbone),
)
def test_two_hundred_knees_are_graded_alike_by_every_shipped_network(backbone, tmp_path):
    networks = {key: {"timm_name": name} for key, name in backbone.items()}
    path = untrained(tmp_path / "real.ckpt", backbone=networks, loss="corn", size=224)
    checkpoint = CheckpointNetwork(path, device="cpu", precision="f32")
    exports = [ExportedNetwork(exported(path, tmp_path / kind, format=kind)) for kind in ("openvino", "onnx")]
    films = knees_as_films(200, 224)
    begin = 0
    for batch in [1, 2, 7] * 20:
        some = films[begin : begin + batch]
        begin += batch
        expected = checkpoint(some)
        for answers in (network(some) for network in exports):
            assert answers.probabilities == pytest.approx(expected.probabilities, abs=TOLERANCE)
            assert answers.gate_weights == pytest.approx(expected.gate_weights, abs=TOLERANCE)
    assert begin == 200
