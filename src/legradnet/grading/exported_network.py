"""A network that `legradnet-export` wrote, run by OpenVINO or ONNX Runtime: neither torch nor a network connection.

Its folder holds `export.json` and the graph under a fixed name, so that nothing in the JSON can lead out of it. Graph
and JSON are data: no code of theirs is run.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError
from legradnet.grading.export_description import ExportDescription
from legradnet.grading.metadata import read_metadata
from legradnet.grading.networks import Answers, batch_of
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.runtimes.runtime import Outputs
from legradnet.machine import quota

if TYPE_CHECKING:
    from legradnet.grading.checkpoint_network import HyperParameters

DESCRIPTION = "export.json"
_MOST_BYTES = 16 * 1024**2  # of the JSON


class ExportedNetwork:
    """The network of an export, ready to grade on the CPU.

    Args:
        folder: What `legradnet-export` wrote.
        threads: CPU threads; None: the runtime's choice, or what a container's quota allows.

    Raises:
        UserError: No export, a damaged one or one of another version, or its runtime is not installed.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        self.path = Path(folder)
        file = self.path / DESCRIPTION
        text = _read_text(self.path, file)
        said = read_metadata(ExportDescription, _parsed(text, file), file)
        if said.digest not in (None, digest_of_text(text)):
            raise UserError(f"{file} is damaged, its checksum is wrong: export the checkpoint again.")
        self.precision, self.classes, self.rule = said.precision, said.classes, said.rule
        self.backbones, self.weighs = tuple(said.backbones), said.weighs
        self.image_size, self.fit, self.mirror_left = said.films.image_size, said.films.fit, said.films.mirror_left
        self.batch_size, self.parameters = batch_of(said.batch_size, said.films.image_size), said.parameters
        self.calibration, self.film_check, self.learned = said.calibration, said.film_check, said.learned
        self._settings = said.settings
        self.not_finite = ""  # a graph that doesn't answer in finite numbers is not exported
        _check_files(self.path, said.digests)
        runtime = RUNTIMES[said.format]
        self.runs_in, side, self._run = runtime.start(self.path, self.precision, threads or quota())
        if side != self.image_size:
            raise UserError(f"{file} is damaged: its films have {self.image_size} px, its network's {side} px.")

    @cached_property
    def settings(self) -> "HyperParameters":
        """What it was built and trained with.

        Raises:
            UserError: `export.json` has mistakes there, or describes another network.
        """
        from legradnet.grading.checkpoint_network import HyperParameters  # late: it needs torch, which grading does not

        settings = read_metadata(HyperParameters, self._settings, self.path / DESCRIPTION)
        described = tuple(settings.backbone), settings.model.num_classes, settings.loss.build(self.classes).rule
        if described != (self.backbones, self.classes, self.rule):
            raise UserError(f"{self.path / DESCRIPTION} is damaged: its settings are of another network.")
        return settings

    def __call__(self, films: npt.NDArray[np.uint8]) -> Answers:
        """Grade `films` uint8 [B, 1, S, S]; the probabilities are not calibrated."""
        outputs = self.outputs(films)
        gate_weights = outputs["gate_weights"].astype(np.float64) if self.weighs else None
        return Answers(outputs["logits"], outputs["raw"], gate_weights)  # type: ignore[arg-type]

    def outputs(self, films: npt.NDArray[np.uint8]) -> Outputs:
        """All that the graph gives for `films` uint8 [B, 1, S, S].

        `probabilities` [B, K] calibrated, `raw` [B, K], `logits` [B, outputs], and `gate_weights` [B, N] where the gate
        has any.

        Raises:
            UserError: The graph is not the one that `export.json` describes.
        """
        outputs = self._run(np.ascontiguousarray(films))
        widths = {"raw": self.classes, "probabilities": self.classes, "logits": None}
        for name, width in (widths | ({"gate_weights": len(self.backbones)} if self.weighs else {})).items():
            shape = outputs[name].shape if name in outputs else ()
            if len(shape) != 2 or shape[0] != len(films) or width not in (None, shape[1]):
                raise UserError(f"The network in {self.path} is damaged, or of another {DESCRIPTION}: its {name} are "
                                f"of shape {list(shape)}.")  # fmt: skip
        return outputs


def is_export(path: str | Path) -> bool:
    """Whether this is a folder that `legradnet-export` wrote."""
    return (Path(path) / DESCRIPTION).is_file()


def digest(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits: against damage, not against an attacker, who would change the JSON too."""
    hashed = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            hashed.update(block)
    return hashed.hexdigest()


def digest_of_text(text: str) -> str:
    """BLAKE2b of what JSON says but for its own `digest`, each number as it is written; 32 hex digits."""

    def as_written(number: str) -> list[str]:
        return ["a number", number]

    described = json.loads(text, parse_float=as_written, parse_int=as_written, parse_constant=as_written)
    described.pop("digest", None)
    canonical = json.dumps(described, sort_keys=True).encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _read_text(folder: Path, path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{folder} is no export of LegRadNet: there is no {DESCRIPTION} in it.")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is larger than {_MOST_BYTES:,} bytes: no export of LegRadNet.")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}.") from error


def _parsed(text: str, path: Path) -> dict[str, Any]:
    try:
        described = json.loads(text, object_pairs_hook=_without_doubles)
        if not isinstance(described, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return described


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    group = dict(pairs)
    if len(group) < len(pairs):
        raise ValueError("it says something twice")
    return group


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is missing, or not a file of its own: export the checkpoint again.")
        if digest(path) != expected:
            raise UserError(f"{path} is damaged, or of another export: export the checkpoint again.")
