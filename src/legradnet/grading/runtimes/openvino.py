"""`format=openvino`."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock, RLock
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.grading.runtimes.runtime import OUTPUTS, Films, Outputs, Quantise, Run, Runtime, imported, unreadable

_GRAPH = "network.xml"
_TELEMETRY = "openvino_telemetry"
_HIDING = RLock()


@contextmanager
def unreported() -> Iterator[None]:
    """Import OpenVINO or NNCF inside: each looks for its makers' telemetry when it is imported, and then finds none.

    They have no other switch than a file in the user's home. Telemetry that somebody has imported before stays. One
    thread at a time: another would find nothing to hide, or nothing to bring back.
    """
    with _HIDING:
        hidden = _TELEMETRY not in sys.modules
        if hidden:
            sys.modules[_TELEMETRY] = None  # type: ignore[assignment]  # as if it were not installed
        try:
            yield
        finally:
            if hidden:
                del sys.modules[_TELEMETRY]


def import_openvino() -> Any:
    """OpenVINO, which then reports nothing; UserError if it isn't installed."""
    with unreported():
        return imported("openvino")


def _start(folder: Path, precision: str, threads: int | None) -> tuple[str, int, Run]:
    openvino = import_openvino()
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, on all cores
    }
    if threads:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(folder / _GRAPH), "CPU", options)
        names = {name: output for output in compiled.outputs for name in OUTPUTS if name in output.get_names()}
        ports = {name: compiled.output(name) for name in names}
    except RuntimeError as error:
        raise unreadable(folder, "OpenVINO", error) from error
    native = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()  # what this CPU makes of the wish
    request, one_at_a_time = compiled.create_infer_request(), Lock()  # a request holds the answers of its last batch

    def run(films: npt.NDArray[np.uint8]) -> Outputs:
        with one_at_a_time:  # which is on all cores
            results = request.infer({0: films})
            return {name: np.array(results[port]) for name, port in ports.items()}

    runs_in = "bf16" if native == "bf16" else precision if precision == "int8" else "f32"
    return runs_in, compiled.input(0).get_partial_shape()[-1].get_length(), run


def _write(onnx: Path, folder: Path, films: Films, quantise: Quantise) -> None:
    openvino = import_openvino()
    graph = openvino.convert_model(onnx)
    if films:
        nodes = [(node.get_friendly_name(), node.get_type_name()) for node in graph.get_ordered_ops()]
        graph = quantise(graph, nodes, list(films), smooth=True, per_channel=None)
    openvino.save_model(graph, folder / _GRAPH, compress_to_fp16=False)


OPENVINO = Runtime(
    name="OpenVINO",
    files=(_GRAPH, "network.bin"),
    precisions=("f32", "bf16", "int8"),
    package="openvino",
    quantising=("nncf",),
    start=_start,
    write=_write,
)
