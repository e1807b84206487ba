"""A trained network of a checkpoint or a model folder answers batches of films: no Lightning, Hydra or internet."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from threading import Lock
from typing import Any, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
from pydantic import ConfigDict, Field, model_validator

from legradnet.checkpoint import is_ours, whole_tensors
from legradnet.data.augment import AugmentSettings
from legradnet.data.settings import FilmSettings
from legradnet.device import choose_device, choose_precision
from legradnet.errors import UserError
from legradnet.grades import Floats, Rule
from legradnet.grading.calibration import Calibration
from legradnet.grading.metadata import Learned
from legradnet.grading.networks import Answers, batch_of
from legradnet.grading.settings import Precision
from legradnet.machine import cores
from legradnet.models.described import Count, read_metadata
from legradnet.models.folder import digest_of, read_trained
from legradnet.network.backbones import Backbone
from legradnet.network.drawn_apart import DrawnApart, NotDrawn
from legradnet.network.ensemble import KneeEnsemble, NetworkSettings
from legradnet.network.stages import StageMeans
from legradnet.settings import Seed, Settings

log = logging.getLogger(__name__)

_PRECISIONS = get_args(Precision)
_META_LOCK = Lock()  # torch notes in the process which device networks are built on
_LINES, _WIDTH = 6, 200  # of what torch says of weights that don't fit


class RunSettings(Settings):
    """What a run that goes on has to repeat, in which training compares it with its own."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, bool | int | float | str | None] = Field(init=False)

    batch_size: int = Field(default=16, ge=1, le=10**6)


class HyperParameters(NetworkSettings):
    """The network as it was built, and how it was trained; of what is training's own, only the types are known here."""

    optimizer: dict[str, float | list[float]] = Field(default_factory=dict)
    scheduler: dict[str, str | float] = Field(default_factory=dict)
    augment: AugmentSettings | None = None
    films: FilmSettings | None = None
    run: RunSettings | None = None
    class_counts: list[Count] | None = None
    seed: Seed = 0

    @model_validator(mode="after")
    def _says_how_large_films_were(self) -> "HyperParameters":
        if self.films is not None and "image_size" not in self.films.model_fields_set:
            raise ValueError("films.image_size is missing")
        return self

    @model_validator(mode="after")
    def _counts_every_class(self) -> "HyperParameters":
        if self.class_counts is not None and len(self.class_counts) != self.model.num_classes:
            raise ValueError(f"there are {len(self.class_counts)} class_counts for {self.model.num_classes} classes")
        return self


class CheckpointNetwork:
    """The network of a checkpoint or a model folder, ready to grade.

    Args:
        path: A `best.ckpt` or `last.ckpt` of `legradnet-train`, or a model folder of `legradnet-export`.
        device: auto, cpu, cuda, cuda:1, mps.
        precision: auto (bf16 where the hardware multiplies it natively), f32 or bf16.

    Raises:
        UserError: No checkpoint of ours, or no such device or precision.
    """

    def __init__(self, path: str | Path, *, device: str = "auto", precision: str = "auto") -> None:
        if precision not in _PRECISIONS:
            raise UserError(f"precision={precision!r} is not one of {', '.join(_PRECISIONS)}.")
        checkpoint = read_trained(path)
        if not is_ours(checkpoint):
            raise UserError(f"{path} is no LegRadNet checkpoint.")
        self.path, self.digest = Path(path), digest_of(path)
        self.settings = read_metadata(HyperParameters, checkpoint["hyper_parameters"], path)
        learned = checkpoint.get("legradnet")
        self.learned = Learned() if learned is None else read_metadata(Learned, learned, path)
        self.device = choose_device(device)
        bf16 = choose_precision(self.device.type) == "bf16-mixed" if precision == "auto" else precision == "bf16"
        self.precision = "bf16" if bf16 else "f32"
        films, run = self.settings.films or FilmSettings(), self.settings.run or RunSettings()
        self.image_size, self.fit, self.mirror_left = films.image_size, films.fit, films.mirror_left

        self.classes = self.settings.model.num_classes
        self.loss = self.settings.loss.build(self.classes, self.settings.class_counts)
        self.rule: Rule = self.loss.rule
        self.calibration = self.learned.calibration or Calibration(rule=self.rule)
        self.film_check = self.learned.film_check
        try:
            self.calibration.check_fits(self.rule, self.classes)
        except ValueError as error:
            raise UserError(f"{path} is damaged: {error}.") from None
        self.ensemble = _with_weights(self.settings, self.loss.num_outputs, checkpoint["state_dict"], path, bf16=bf16)
        sides = (cast(Backbone, backbone).image_size for backbone in self.ensemble.backbones.values())
        self.batch_size = batch_of(run.batch_size, self.image_size, *sides)
        self.not_finite = _first_not_finite(self.ensemble)
        if self.not_finite:
            log.warning("%s is damaged, or its training failed: %s is not finite. It grades no film.",
                        path, self.not_finite)  # fmt: skip
        self.ensemble.to(self.device).eval().requires_grad_(False)
        self.distance = self.learned.distance
        if self.distance and self.distance.width != self.stage_means.width:
            width = self.stage_means.width
            raise UserError(f"{path} is damaged: its distance is of {self.distance.width} channels, not {width}.")

    @property
    def backbones(self) -> tuple[str, ...]:
        """Backbone keys in the order of the gate's weights."""
        return self.ensemble.keys

    @property
    def weighs(self) -> bool:
        """Whether the gate gives each backbone a weight; `concat` gives none."""
        return self.settings.gating.weighs

    @property
    def takes_all_cores(self) -> bool:
        """Whether it works on as many cores as this process has, so that nobody else should meanwhile."""
        return self.device.type == "cpu" and torch.get_num_threads() >= cores()

    def autocast(self) -> torch.autocast:
        """The context that the network's precision asks for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    @property
    def parameters(self) -> int:
        """How many parameters it has."""
        return sum(parameter.numel() for parameter in self.ensemble.parameters())

    @cached_property
    def stage_means(self) -> StageMeans:
        """Reads what the trunks' stages see; not there before it is asked for, so that nothing is read in vain."""
        textured = self.distance is None or self.distance.texture is not None  # older distances know no texture
        return StageMeans(self.ensemble, self.image_size if textured else 0)

    def stages(self, films: npt.NDArray[np.uint8]) -> Floats:
        """What the trunks' stages see of `films` uint8 [B, 1, S, S], as `distance` takes it: [B, W]."""
        batch = torch.from_numpy(films).to(self.device)
        with torch.inference_mode(), self.autocast(), self.stage_means.read(batch) as means:
            self.ensemble.tokens(batch)
        return self.stage_means.joined(means).cpu().numpy().astype(np.float64)

    def __call__(self, films: npt.NDArray[np.uint8]) -> Answers:
        """Grade `films` uint8 [B, 1, S, S]."""
        batch = torch.from_numpy(films).to(self.device)
        reading: AbstractContextManager[dict[int, torch.Tensor]] = (
            self.stage_means.read(batch) if self.distance else nullcontext({})
        )
        with torch.inference_mode(), self.autocast(), reading as means:
            output = self.ensemble(batch)
        logits = output.logits.float().cpu()
        if self.not_finite:  # such a weight may give numbers, but none that training has learned
            logits = torch.full_like(logits, torch.nan)
        weights = output.gate_weights
        gate_weights = None if weights is None else weights.float().cpu().numpy().astype(np.float64)
        distances = self.distance(self.stage_means.joined(means).cpu().numpy()) if self.distance else None
        return Answers(logits.numpy(), self.loss.probabilities(logits).numpy(), gate_weights, distances)


def _with_weights(
    settings: HyperParameters, outputs: int, state: Mapping[str, Any], path: str | Path, *, bf16: bool
) -> KneeEnsemble:
    """The network that `settings` describe with its weights in `state`; what doesn't fit is told before it is built."""
    backbone, shape = settings.backbone, settings.model
    if not bf16:  # f32 means f32, for a backbone that was trained in bf16 too
        backbone = {key: own.model_copy(update={"precision": None}) for key, own in backbone.items()}

    def build() -> KneeEnsemble:
        return KneeEnsemble(backbone, settings.gating, outputs, shape.feature_dim, shape.dropout)

    try:
        weights = whole_tensors(state, "ensemble.")
        with _META_LOCK, torch.device("meta"), NotDrawn():  # as large as it says, and no memory is taken
            build().load_state_dict(weights, assign=True)
        with DrawnApart():  # the weights to be replaced are drawn, from nobody's random numbers
            ensemble = build()
        ensemble.load_state_dict(weights)
    except (UserError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = "\n".join(shorten(line, _WIDTH) for line in str(error).splitlines()[:_LINES])
        raise UserError(f"{path} doesn't fit the network it describes: {reason}") from error
    return ensemble


def _first_not_finite(ensemble: KneeEnsemble) -> str:
    return next((name for name, tensor in ensemble.state_dict().items() if not tensor.isfinite().all()), "")
