"""What is optimised, how fast, in which precision."""

import numpy as np
import pytest
import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.data.augment import mixed
from legradnet.device import choose_precision
from legradnet.errors import UserError
from legradnet.training.module import GradingModule
from legradnet.training.optimizer import LearningRateCurve, WarmupCosineSettings
from legradnet.training.run import build_module, train
from small_runs import compose


def test_a_loss_that_is_not_a_number_stops_the_run_in_words(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "legradnet.network.losses.CrossEntropy.forward", lambda self, logits, labels: logits.sum() * torch.nan
    )
    with pytest.raises(UserError, match=r"loss became nan in epoch 0, batch 0: lower optimizer\.learning_rate"):
        train(compose(), tmp_path)


def test_mixed_films_are_held_against_the_grades_of_both():
    module = build_module(compose("augment.mixup=0.4"))
    seen = []

    class Looking(torch.nn.Module):
        def forward(self, logits, labels):
            seen.append((logits.detach(), labels))
            return torch.tensor(float(len(seen)))

    module.loss = Looking()
    films, labels = torch.rand(4, 1, 48, 48), torch.tensor([0, 1, 2, 3])
    torch.manual_seed(1)
    loss = module._loss(films, labels)
    torch.manual_seed(1)
    _, partners, share = mixed(films, 0.4)
    assert loss.item() == pytest.approx(share * 1 + (1 - share) * 2)
    assert [labels.tolist() for _, labels in seen] == [[0, 1, 2, 3], partners.tolist()]
    torch.testing.assert_close(seen[0][0], seen[1][0])


def test_weight_decay_leaves_norms_biases_and_embeddings_alone_and_trunks_have_their_own_rate():
    module = build_module(compose("optimizer.learning_rate=1e-2", "optimizer.backbone_scale=0.5"))
    named = {id(parameter): name for name, parameter in module.ensemble.named_parameters()}
    seen = set()
    for group in module.parameter_groups():
        for parameter in group["params"]:
            name = named[id(parameter)]
            seen.add(name)
            exempt = parameter.ndim <= 1 or any(word in name for word in ("pos_embed", "cls_token", "bias_table"))
            assert (group["weight_decay"] == 0) == exempt, name
            assert group["lr"] == (0.005 if ".trunk." in name else 0.01), name
    assert seen == set(named.values())


def test_frozen_trunks_stay_as_they_were_through_a_whole_run(tmp_path, monkeypatch):
    settings = ["+backbone.densenet.timm_name=tiny_densenet", "+backbone.densenet.frozen=true", "trainer.max_epochs=1"]
    config = compose(*settings, "test=false")
    before = []

    class Looking(GradingModule):
        def training_step(self, batch, batch_idx):
            trunk = self.ensemble.backbones["densenet"].trunk
            assert not any(module.training for module in trunk.modules())
            before.append({name: tensor.clone() for name, tensor in trunk.state_dict().items()})
            return super().training_step(batch, batch_idx)

    monkeypatch.setattr("legradnet.training.run.GradingModule", Looking)
    train(config, tmp_path)
    after = read_checkpoint(tmp_path / "checkpoints/last.ckpt")["state_dict"]
    for name, tensor in before[0].items():  # batch norm's running means among them
        assert torch.equal(after[f"ensemble.backbones.densenet.trunk.{name}"], tensor), name


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_the_optimiser_is_fused_and_its_gradients_are_clipped_in_every_precision(precision, tmp_path, monkeypatch):
    seen = []
    step = torch.optim.AdamW.step

    def looking(self, closure=None):
        loss = step(self, closure)
        gradients = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append((self.param_groups[0]["fused"], torch.cat(gradients).norm().item()))
        return loss

    monkeypatch.setattr(torch.optim.AdamW, "step", looking)
    clipped = "trainer.gradient_clip_val=0.01"
    train(compose("trainer.max_epochs=1", f"trainer.precision={precision}", clipped, "test=false"), tmp_path)
    assert seen
    for fused, norm in seen:
        assert fused
        assert norm == pytest.approx(0.01, rel=1e-3)


def test_gradients_can_be_clipped_by_value_too(tmp_path):
    settings = ["trainer.precision=bf16-mixed", "+trainer.gradient_clip_algorithm=value", "trainer.max_epochs=1"]
    train(compose(*settings, "test=false"), tmp_path)


def test_a_scaler_of_fp16_gets_an_optimiser_that_isnt_fused():
    assert build_module(compose()).build_optimizer().defaults["fused"]
    assert not build_module(compose("trainer.precision=16-mixed")).build_optimizer().defaults["fused"]


def test_compile_without_a_compiler_is_told_before_anything_else(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr(torch, "compile", lambda _: broken)
    with pytest.raises(UserError, match=r"compile=true can't be done here: No working C\+\+ compiler found.*g\+\+"):
        train(compose("compile=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_compiled_trunks_have_the_names_of_others_in_the_checkpoint_and_are_compiled_once(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(type(self).__name__))
    module, plain = build_module(compose("compile=true")), build_module(compose())
    for stage in ("fit", "test"):
        module.setup(stage)
        plain.setup(stage)
    assert compiled == ["SwinTransformer", "VisionTransformer"]
    assert list(module.state_dict()) == list(plain.state_dict())


def test_frozen_trunks_are_not_optimised():
    module = build_module(compose("backbone.vit.frozen=true"))
    optimised = sum(p.numel() for group in module.parameter_groups() for p in group["params"])
    frozen = sum(p.numel() for p in module.ensemble.backbones["vit"].trunk.parameters())
    assert optimised == sum(p.numel() for p in module.ensemble.parameters()) - frozen


def test_the_learning_rate_warms_up_and_then_follows_a_cosine():
    curve = LearningRateCurve(WarmupCosineSettings(final_scale=0.1), total_steps=100, epochs=10)
    rates = np.array([curve(step) for step in range(101)])
    assert rates.argmax() == 10
    assert (np.diff(rates[:11]) > 0).all()
    assert (np.diff(rates[10:]) < 0).all()
    assert rates[10] == 1
    assert rates[100] == pytest.approx(0.1)
    assert rates[55] == pytest.approx(0.55)


def test_precision_follows_from_the_hardware(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for native, expected in ((True, "bf16-mixed"), (False, "32-true")):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda native=native: native)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        assert choose_precision("cpu") == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert choose_precision("auto") == "bf16-mixed"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_gpu_trains(tmp_path):
    train(compose("trainer=gpu"), tmp_path)
