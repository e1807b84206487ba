"""Exports of networks small enough to be made in a second."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from legradnet.cli import config_folder
from legradnet.data.synthetic import synthesize
from legradnet.export.check import TOLERANCE
from legradnet.export.run import export
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.grading.distance import fit_distance
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import Corn, CrossEntropy, SoftLabels

needs_runtimes = pytest.mark.skipif(
    not all(map(find_spec, ("openvino", "onnxruntime", "nncf"))),  # found, not imported: OpenVINO would report that
    reason="the runtimes are missing: pip install -e '.[export]'",
)
TINY = {key: {"timm_name": f"tiny_{key}"} for key in ("densenet", "swin", "convnext", "vit", "xception")}


SMALL = {key: {"timm_name": "test_vit", "image_size": side} for key, side in (("one", 32), ("other", 48))}


def untrained(path, *, backbone=SMALL, gate="mha", loss="cross_entropy", calibration=None, size=64, **films):
    """A checkpoint of random weights whose answers differ from film to film."""
    torch.manual_seed(0)
    criterion = {"cross_entropy": CrossEntropy, "soft_labels": SoftLabels, "corn": Corn}[loss](5)
    heads = {"num_heads": 2} if gate == "mha" else {}
    ensemble = KneeEnsemble(backbone, {"name": gate, **heads}, criterion.num_outputs, feature_dim=16).eval()
    ensemble.head[-1].weight.data *= 6
    path.parent.mkdir(parents=True, exist_ok=True)
    settings = {
        "backbone": backbone,
        "gating": {"name": gate, **heads},
        "model": {"feature_dim": 16, "num_classes": 5, "dropout": 0.1},
        "loss": {"name": loss},
        "class_counts": [1] * 5,
        "films": {"image_size": size, "fit": "pad", "mirror_left": False, **films},
        "run": {"batch_size": 8},
        "seed": 0,
    }
    learned = {"calibration": calibration.model_dump()} if calibration else {}
    weights = {f"ensemble.{name}": tensor for name, tensor in ensemble.state_dict().items()}
    torch.save({"hyper_parameters": settings, "state_dict": weights, "legradnet": learned}, path)
    return path


def settings(command_name, **changed):
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{command_name}.yaml"), resolve=False)
    common = OmegaConf.to_container(OmegaConf.load(config_folder() / "data/common.yaml"), resolve=False)
    own = {"source": "own", **common, "seed": 0} if command_name == "export" else {}
    del config["hydra"]
    config.pop("defaults", None)
    return config | {"data": {**own, **config["data"]}} | changed


def exported(checkpoint, folder, **changed):
    return export(settings("export", checkpoint=str(checkpoint), output=str(folder), **changed))


def knees_as_films(count, size):
    return np.ascontiguousarray(synthesize(count, size=size, seed=5)[0][:, None])


def with_distance(path, size):
    """The checkpoint with a distance from generated knees, of which one in 50 may be unlike them."""
    knees, network = knees_as_films(80, size), CheckpointNetwork(path, device="cpu", precision="f32")
    stages = np.concatenate([network.stages(knees[start : start + 10]) for start in range(0, len(knees), 10)])
    distance = fit_distance(stages[:30], stages[30:], trunks=network.stage_means.trunks)
    content = torch.load(path, weights_only=True)
    content["legradnet"] |= {"distance": distance.model_dump()}
    torch.save(content, path)
    return path


def assert_grades_like(network, checkpoint, films):
    for batch in (1, 2, 7):
        expected, found = checkpoint(films[:batch]), network.outputs(films[:batch])
        calibrated = checkpoint.calibration.probabilities(expected.probabilities)
        assert found["logits"].shape == expected.logits.shape
        if expected.distances is None:
            assert "stages" not in found and network(films[:batch]).distances is None
        else:
            assert network(films[:batch]).distances == pytest.approx(expected.distances, rel=1e-3)
        assert found["raw"] == pytest.approx(expected.probabilities, abs=TOLERANCE)
        assert found["probabilities"] == pytest.approx(calibrated, abs=TOLERANCE)
        if expected.gate_weights is None:
            assert "gate_weights" not in found
        else:
            assert found["gate_weights"] == pytest.approx(expected.gate_weights, abs=TOLERANCE)
