"""A network that `legradnet-export` wrote, run by OpenVINO or ONNX Runtime: neither torch nor a network connection.

Its folder holds `export.json` and the graph under a fixed name, so that nothing in the JSON can lead out of it. Graph
and JSON are data: no code of theirs is run.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from legradnet.data.film import Fit
from legradnet.errors import UserError
from legradnet.grades import Rule
from legradnet.grading.calibration import Calibration
from legradnet.grading.film_check import FilmCheck
from legradnet.grading.networks import Answers
from legradnet.grading.runtimes import RUNTIMES
from legradnet.grading.runtimes.runtime import Outputs

DESCRIPTION = "export.json"
VERSION = 1
_MOST_BYTES = 16 * 1024**2  # of the JSON


class ExportedNetwork:
    """The network of an export, ready to grade on the CPU.

    Args:
        folder: What `legradnet-export` wrote.
        threads: CPU threads; None: the runtime's choice.

    Raises:
        UserError: No export, a damaged one or one of another version, or its runtime is not installed.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        self.path = Path(folder)
        described = _read_description(self.path)
        try:
            if described["legradnet_export"] != VERSION:
                raise ValueError(f"it is of version {described['legradnet_export']}, not {VERSION}")
            self.format = _one_of(described["format"], tuple(RUNTIMES))
            runtime = RUNTIMES[self.format]
            self.precision = _one_of(described["precision"], runtime.precisions)
            self.classes = _whole(described["classes"], 2, 1000)
            self.class_names = tuple(map(str, described["class_names"]))
            self.backbones = tuple(map(str, described["backbones"]))
            self.weighs = _flag(described["weighs"])
            self.image_size = _whole(described["films"]["image_size"], 16, 4096)
            self.fit: Fit = _one_of(described["films"]["fit"], get_args(Fit))  # type: ignore[assignment]
            self.mirror_left = _flag(described["films"]["mirror_left"])
            self.batch_size = _whole(described["batch_size"], 1, 10**6)
            self.rule: Rule = _one_of(described["rule"], get_args(Rule))  # type: ignore[assignment]
            self.calibration = Calibration.from_plain(_unlimited(described["calibration"]))
            self.film_check = FilmCheck.from_plain(described["film_check"]) if described["film_check"] else None
            self.settings: dict[str, Any] = dict(described["settings"])
            self.learned: Mapping[str, Any] = dict(described["learned"])
            self.parameters = int(described["parameters"])
            digests = {name: described["digests"][name] for name in runtime.files}
            if self.calibration.rule != self.rule or len(self.calibration.thresholds) not in (0, self.classes):
                raise ValueError("its calibration is of another network")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path / DESCRIPTION} is damaged or of another version of LegRadNet ({error!r})."
            ) from error
        _check_files(self.path, digests)
        self.runs_in, self._run = runtime.start(self.path, self.precision, threads)

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


def limited(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A calibration's plain values with null for infinity, which JSON hasn't got."""
    finite = {"thresholds": [None if math.isinf(number) else number for number in plain["thresholds"]]}
    if math.isinf(plain["min_confidence"]):
        finite["min_confidence"] = None  # type: ignore[assignment]
    return {**plain, **finite}


def _unlimited(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `limited` was given."""
    thresholds = [math.inf if number is None else float(number) for number in plain["thresholds"]]
    least = plain["min_confidence"]
    return {**plain, "thresholds": thresholds, "min_confidence": math.inf if least is None else float(least)}


def _read_description(folder: Path) -> Mapping[str, Any]:
    path = folder / DESCRIPTION
    if not path.is_file():
        raise UserError(f"{folder} is no export of LegRadNet: there is no {DESCRIPTION} in it.")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(f"{path} is larger than {_MOST_BYTES:,} bytes: no export of LegRadNet.")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}.") from error
    return described


def _check_files(folder: Path, digests: Mapping[str, str]) -> None:
    for name, expected in digests.items():
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise UserError(f"{path} is missing, or not a file of its own: export the checkpoint again.")
        if digest(path) != expected:
            raise UserError(f"{path} is damaged, or of another export: export the checkpoint again.")


def _one_of(value: Any, choices: Sequence[str]) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    return str(value)


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is no whole number from {low} to {high}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value
