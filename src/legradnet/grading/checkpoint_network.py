"""A trained network that answers batches of films: from a checkpoint, without Lightning, Hydra or the internet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from legradnet.checkpoint import is_ours, read_checkpoint
from legradnet.data.film import Fit
from legradnet.device import choose_device, choose_precision
from legradnet.errors import UserError
from legradnet.grades import Rule
from legradnet.grading.calibration import Calibration
from legradnet.grading.metadata import Learned, read_metadata
from legradnet.grading.networks import Answers
from legradnet.network.ensemble import KneeEnsemble, NetworkSettings
from legradnet.settings import checked

_PRECISIONS = ("auto", "f32", "bf16")


class CheckpointNetwork:
    """The network of a checkpoint, ready to grade.

    Args:
        path: A `best.ckpt` or `last.ckpt` of `legradnet-train`.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: auto (bf16 where the hardware multiplies it natively), f32 or bf16.

    Raises:
        UserError: No checkpoint of ours, or no such device or precision.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", precision: str = "auto") -> None:
        if precision not in _PRECISIONS:
            raise UserError(f"precision={precision!r} is not one of {', '.join(_PRECISIONS)}.")
        checkpoint = read_checkpoint(path)
        if not is_ours(checkpoint):
            raise UserError(f"{path} is no LegRadNet checkpoint.")
        self.path = Path(path)
        self.settings: dict[str, Any] = checkpoint["hyper_parameters"]
        self.device = choose_device(device)
        bf16 = choose_precision(self.device.type) == "bf16-mixed" if precision == "auto" else precision == "bf16"
        self.precision = "bf16" if bf16 else "f32"

        own = checked(
            NetworkSettings,
            {name: self.settings[name] for name in NetworkSettings.model_fields},
            title=f"The settings that {path} holds have mistakes:",
        )
        self.classes = own.model.num_classes
        self.loss = own.loss.build(self.classes, self.settings["class_counts"])
        backbone = own.backbone
        if not bf16:  # f32 means f32, for a backbone that was trained in bf16 too
            backbone = {key: settings.model_copy(update={"precision": None}) for key, settings in backbone.items()}
        with torch.random.fork_rng(devices=()):  # the weights to be replaced are drawn, from nobody's random numbers
            self.ensemble = KneeEnsemble(
                backbone,
                own.gating,
                self.loss.num_outputs,
                own.model.feature_dim,
                own.model.dropout,
                own.model.gradient_checkpointing,
            )
        weights = {
            name.removeprefix("ensemble."): tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name.startswith("ensemble.")
        }
        try:
            self.ensemble.load_state_dict(weights)
        except RuntimeError as error:
            raise UserError(f"{path} doesn't fit the network it describes: {error}") from error
        self.ensemble.to(self.device).eval().requires_grad_(False)

        films: Mapping[str, Any] = self.settings["films"] or {}
        self.image_size: int = films.get("image_size", 224)
        self.fit: Fit = films.get("fit", "pad")
        self.mirror_left: bool = films.get("mirror_left", False)
        self.batch_size: int = (self.settings["run"] or {}).get("batch_size", 16)
        self.rule: Rule = self.loss.rule
        self.learned = read_metadata(Learned, checkpoint.get("legradnet") or {}, path)
        self.calibration = self.learned.calibration or Calibration(rule=self.rule)
        try:
            self.calibration.check_fits(self.rule, self.classes)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}.") from None
        self.film_check = self.learned.film_check

    @property
    def backbones(self) -> tuple[str, ...]:
        """Backbone keys in the order of the gate's weights."""
        return self.ensemble.keys

    @property
    def weighs(self) -> bool:
        """Whether the gate gives each backbone a weight; `concat` gives none."""
        return bool(self.settings["gating"]["name"] != "concat")

    def autocast(self) -> torch.autocast:
        """The context that the network's precision asks for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.ensemble.parameters())

    def __call__(self, films: npt.NDArray[np.uint8]) -> Answers:
        """Grade `films` uint8 [B, 1, S, S]."""
        batch = torch.from_numpy(films).to(self.device)
        with torch.inference_mode(), self.autocast():
            output = self.ensemble(batch)
        logits = output.logits.float().cpu()
        gate_weights = (
            None if output.gate_weights is None else output.gate_weights.float().cpu().numpy().astype(np.float64)
        )
        return Answers(logits.numpy(), self.loss.probabilities(logits).numpy(), gate_weights)
