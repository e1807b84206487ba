"""A network that `legradnet-export` wrote, run by OpenVINO or ONNX Runtime: neither torch nor a network connection.

Its folder holds `export.json` and the graph under a fixed name, so that nothing in the JSON can lead out of it. Graph
and JSON are data: no code of theirs is run.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError
from legradnet.grading.export_description import ExportDescription
from legradnet.grading.networks import Answers, batch_of
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.runtimes.runtime import Outputs
from legradnet.machine import cores, quota
from legradnet.models.described import check_files, digest_of_text, parsed, read_metadata, read_text

if TYPE_CHECKING:
    from legradnet.grading.checkpoint_network import HyperParameters

DESCRIPTION = "export.json"


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
        text = _text(self.path, file)
        said = read_metadata(ExportDescription, parsed(text, file), file)
        if said.digest not in (None, digest_of_text(text)):
            raise UserError(f"{file} is damaged, its checksum is wrong: export the checkpoint again.")
        self.precision, self.classes, self.rule = said.precision, said.classes, said.rule
        self.backbones, self.weighs = tuple(said.backbones), said.weighs
        self.image_size, self.fit, self.mirror_left = said.films.image_size, said.films.fit, said.films.mirror_left
        self.batch_size, self.parameters = batch_of(said.batch_size, said.films.image_size), said.parameters
        self.calibration, self.film_check, self.learned = said.calibration, said.film_check, said.learned
        self.distance = said.distance
        self._settings, self.digest = said.settings, said.digest or ""
        self.takes_all_cores = threads is None or threads >= cores()
        self.not_finite = ""  # a graph that doesn't answer in finite numbers is not exported
        check_files(self.path, said.digests, "export the checkpoint again")
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
        distances = self.distance(outputs["stages"]) if self.distance else None  # type: ignore[arg-type]
        return Answers(outputs["logits"], outputs["raw"], gate_weights, distances)  # type: ignore[arg-type]

    def outputs(self, films: npt.NDArray[np.uint8]) -> Outputs:
        """All that the graph gives for `films` uint8 [B, 1, S, S].

        `probabilities` [B, K] calibrated, `raw` [B, K], `logits` [B, outputs], `gate_weights` [B, N] where the gate has
        any, and `stages` [B, W] where the network knows its distance from the training films.

        Raises:
            UserError: The graph is not the one that `export.json` describes.
        """
        outputs = self._run(np.ascontiguousarray(films))
        widths: dict[str, int | None] = {"raw": self.classes, "probabilities": self.classes, "logits": None}
        widths |= {"gate_weights": len(self.backbones)} if self.weighs else {}
        widths |= {"stages": self.distance.width} if self.distance else {}
        for name, width in widths.items():
            shape = outputs[name].shape if name in outputs else ()
            if len(shape) != 2 or shape[0] != len(films) or width not in (None, shape[1]):
                raise UserError(f"The network in {self.path} is damaged, or of another {DESCRIPTION}: its {name} are "
                                f"of shape {list(shape)}.")  # fmt: skip
        return outputs


def is_export(path: str | Path) -> bool:
    """Whether this is a folder that `legradnet-export` wrote."""
    return (Path(path) / DESCRIPTION).is_file()


def _text(folder: Path, path: Path) -> str:
    if not path.is_file():
        raise UserError(f"{folder} is no export of LegRadNet: there is no {DESCRIPTION} in it.")
    return read_text(path)
