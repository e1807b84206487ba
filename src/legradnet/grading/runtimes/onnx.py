"""`format=onnx`, run by ONNX Runtime."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.grading.runtimes.runtime import Films, Outputs, Quantise, Run, Runtime, imported, unreadable

_GRAPH = "network.onnx"


def import_onnx_runtime() -> Any:
    """ONNX Runtime; UserError if it isn't installed."""
    onnxruntime = imported("onnxruntime")
    # for the whole process, as it can't be asked whether it was on; only its Windows builds report at all
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def _start(folder: Path, precision: str, threads: int | None) -> tuple[str, int, Run]:
    onnxruntime = import_onnx_runtime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    if threads:
        options.intra_op_num_threads = threads
    try:
        # it refuses a graph with weights in files outside the folder
        session = onnxruntime.InferenceSession(str(folder / _GRAPH), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common class of their own
        raise unreadable(folder, "ONNX Runtime", error) from error
    names = [output.name for output in session.get_outputs()]

    def run(films: npt.NDArray[np.uint8]) -> Outputs:
        return dict(zip(names, session.run(None, {"films": films}), strict=True))

    return precision, session.get_inputs()[0].shape[-1], run


def _write(onnx: Path, folder: Path, films: Films, quantise: Quantise) -> None:
    if not films:
        return
    package = imported("onnx")
    graph = package.load(onnx)
    nodes = [(node.name, node.op_type) for node in graph.graph.node]  # the standard wants them sorted
    # ONNX Runtime has no 8-bit convolution of activations that are scaled channel by channel;
    # NNCF 3.4 fails on products whose weights have no node of their own when it smooths activations of an ONNX graph
    graph = quantise(graph, nodes, [{"films": film} for film in films], smooth=False, per_channel=False)
    package.save(graph, folder / _GRAPH)


ONNX = Runtime(
    name="ONNX Runtime",
    files=(_GRAPH,),
    precisions=("f32", "int8"),  # its CPU kernels know no bf16
    package="onnxruntime",
    quantising=("onnx", "nncf"),
    start=_start,
    write=_write,
)
