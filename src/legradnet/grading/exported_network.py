"""A network that `legradnet-export` wrote, run by OpenVINO or ONNX Runtime: neither torch nor a network connection.

Its folder holds `export.json` and the graph under a fixed name, so that nothing in the JSON can lead out of it. Graph
and JSON are data: no code of theirs is run.
"""

import hashlib
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
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

DESCRIPTION = "export.json"
VERSION = 1
FILES = {"openvino": ("network.xml", "network.bin"), "onnx": ("network.onnx",)}
PRECISIONS = {"openvino": ("f32", "bf16", "int8"), "onnx": ("f32", "int8")}  # ONNX Runtime's CPU kernels know no bf16
_MOST_BYTES = 16 * 1024**2  # of the JSON

Outputs = Mapping[str, npt.NDArray[np.float32]]
Run = Callable[[npt.NDArray[np.uint8]], Outputs]


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
            self.format = _one_of(described["format"], tuple(FILES))
            self.precision = _one_of(described["precision"], PRECISIONS[self.format])
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
            digests = {name: described["digests"][name] for name in FILES[self.format]}
            if self.calibration.rule != self.rule or len(self.calibration.thresholds) not in (0, self.classes):
                raise ValueError("its calibration is of another network")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path / DESCRIPTION} is damaged or of another version of LegRadNet ({error!r})."
            ) from error
        _check_files(self.path, digests)
        start = _openvino if self.format == "openvino" else _onnx_runtime
        self.runs_in, self._run = start(self.path, self.precision, threads)

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
        found = self._run(np.ascontiguousarray(films))
        widths = {"raw": self.classes, "probabilities": self.classes, "logits": None}
        for name, width in (widths | ({"gate_weights": len(self.backbones)} if self.weighs else {})).items():
            shape = found[name].shape if name in found else ()
            if len(shape) != 2 or shape[0] != len(films) or width not in (None, shape[1]):
                raise UserError(f"The network in {self.path} is damaged, or of another {DESCRIPTION}: its {name} are "
                                f"of shape {list(shape)}.")  # fmt: skip
        return found


def is_export(path: str | Path) -> bool:
    """Whether this is a folder that `legradnet-export` wrote."""
    return (Path(path) / DESCRIPTION).is_file()


def import_openvino() -> Any:
    """OpenVINO, which would report its import to its makers; UserError if it isn't installed."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as if not installed: nothing is sent
    try:
        import openvino
    except ImportError as error:
        raise _missing("openvino", "OpenVINO") from error
    return openvino


def import_onnx_runtime() -> Any:
    """ONNX Runtime with its telemetry off; UserError if it isn't installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise _missing("onnxruntime", "ONNX Runtime") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def digest(path: Path) -> str:
    """BLAKE2b of a file, 32 hex digits: against damage, not against an attacker, who would change the JSON too."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def limited(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A calibration's plain values with null for infinity, which JSON hasn't got."""
    finite = {"thresholds": [None if math.isinf(each) else each for each in plain["thresholds"]]}
    if math.isinf(plain["min_confidence"]):
        finite["min_confidence"] = None  # type: ignore[assignment]
    return {**plain, **finite}


def _unlimited(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `limited` was given."""
    thresholds = [math.inf if each is None else float(each) for each in plain["thresholds"]]
    least = plain["min_confidence"]
    return {**plain, "thresholds": thresholds, "min_confidence": math.inf if least is None else float(least)}


def _openvino(folder: Path, precision: str, threads: int | None) -> tuple[str, Run]:
    openvino = import_openvino()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(folder / FILES["openvino"][0]), "CPU", options)
        ports = {name: compiled.output(name) for name in _names(compiled.outputs)}
    except RuntimeError as error:
        raise _unreadable(folder, "OpenVINO", error) from error
    native = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # what this CPU makes of the wish
    request = compiled.create_infer_request()

    def run(films: npt.NDArray[np.uint8]) -> Outputs:
        results = request.infer({0: films})
        return {name: np.array(results[port]) for name, port in ports.items()}

    return ("bf16" if native == "bf16" else precision if precision == "int8" else "f32"), run


def _names(outputs: Sequence[Any]) -> list[str]:
    known = ("probabilities", "raw", "logits", "gate_weights")
    return [name for output in outputs for name in known if name in output.get_names()]


def _onnx_runtime(folder: Path, precision: str, threads: int | None) -> tuple[str, Run]:
    onnxruntime = import_onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads:
        options.intra_op_num_threads = threads
    try:
        # it refuses a graph with weights in files outside the folder
        path = str(folder / FILES["onnx"][0])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        raise _unreadable(folder, "ONNX Runtime", error) from error
    names = [output.name for output in session.get_outputs()]

    def run(films: npt.NDArray[np.uint8]) -> Outputs:
        return dict(zip(names, session.run(None, {"films": films}), strict=True))

    return precision, run


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


def _one_of(value: Any, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"{value!r} is not one of {', '.join(known)}")
    return str(value)


def _whole(value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"{value!r} is no whole number from {low} to {high}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def _missing(package: str, name: str) -> UserError:
    return UserError(f"{name} is needed: pip install 'legradnet[export]', or pip install {package} alone to grade.")


def _unreadable(folder: Path, runtime: str, error: Exception) -> UserError:
    reason = str(error).strip().splitlines()
    return UserError(f"{runtime} can't read the network in {folder}: {reason[-1] if reason else type(error).__name__}")
