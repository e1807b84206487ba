import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from legradnet import Grader, GradingModule, KneeDataModule
from legradnet.checkpoint import read_checkpoint
from legradnet.data.settings import DataSettings
from legradnet.errors import UserError
from legradnet.network.weights import load_starting_weights


def test_a_network_is_trained_from_python_in_ten_lines(knees, tmp_path):
    seed_everything(0)
    data = KneeDataModule(DataSettings(source="csv", dataset_path=str(knees), csv_path=f"{knees}/knees.csv"))
    module = GradingModule({"vit": {"timm_name": "tiny_vit"}}, films=data.settings.films)
    load_starting_weights(module.ensemble, module.settings.backbone, pretrained=True)
    trainer = Trainer(
        default_root_dir=tmp_path, max_epochs=1, accelerator="cpu", logger=False, enable_progress_bar=False
    )
    trainer.fit(module, datamodule=data)
    trainer.save_checkpoint(tmp_path / "vit.ckpt")
    grading = Grader.from_checkpoint(tmp_path / "vit.ckpt").grade(sorted(knees.glob("*.png"))[0])

    assert 0 <= grading.grade <= 4
    assert -1 <= trainer.callback_metrics["val/qwk"] <= 1
    again = GradingModule.load_from_checkpoint(tmp_path / "vit.ckpt", weights_only=True)
    assert again.settings == module.settings
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(again.parameters(), module.parameters(), strict=True))


def test_hyperparameters_in_a_checkpoint_are_plain_values_under_their_old_names(finished):
    plain = read_checkpoint(finished[0] / "checkpoints/best.ckpt")["hyper_parameters"]
    assert list(plain) == [
        *("backbone", "gating", "model", "loss", "optimizer", "scheduler", "augment"),
        *("films", "run", "class_counts", "seed"),
    ]
    assert plain["films"] == {"image_size": 48, "fit": "pad", "mirror_left": False}
    assert plain["gating"] == {"name": "mha", "num_heads": 4, "dropout": 0.1}
    for group in plain.values():
        values = group.values() if isinstance(group, dict) else [group]
        assert {type(value) for value in values} <= {dict, list, str, int, float, bool, type(None)}


def test_mistakes_in_a_modules_settings_are_told_at_once():
    with pytest.raises(UserError) as told:
        GradingModule({"vit": {}}, gating={"name": "mha", "heads": 2}, seed=-1, learning_rate=1)
    for words in (
        "backbone.vit.timm_name= is needed",
        "gating.heads is unknown; there are name, num_heads, dropout",
        "seed=-1 must be a whole number from 0",
        "learning_rate is unknown; there are backbone, gating",
    ):
        assert words in str(told.value)
