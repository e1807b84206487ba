"""8-bit trunks by NNCF's post-training quantisation; resize, normalisation, projections, gate and head stay in float."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError
from legradnet.exported import FILES, import_onnx_runtime, import_openvino

MOST_FILMS = 300  # NNCF's own number: ranges of activations need no more
_TRUNK = "/trunk/"  # in the names of a trunk's nodes

Films = Sequence[npt.NDArray[np.uint8]]


def write_openvino(onnx: Path, folder: Path, films: Films = ()) -> None:
    """Write an ONNX graph into `folder` as OpenVINO's, its trunks quantised to 8 bits if there are `films` [1, 1, S, S]."""
    openvino = import_openvino()
    graph = openvino.Core().read_model(onnx)
    if films:
        nodes = {node.get_friendly_name(): node.get_type_name() for node in graph.get_ops()}
        graph = _quantised(graph, nodes, list(films))
    openvino.save_model(graph, folder / FILES["openvino"][0], compress_to_fp16=False)


def write_quantised_onnx(onnx: Path, folder: Path, films: Films) -> None:
    """Write an ONNX graph into `folder` with its trunks quantised to 8 bits on `films` [1, 1, S, S]."""
    import_onnx_runtime()
    import onnx as onnx_package

    graph = onnx_package.load(onnx)
    nodes = {node.name: node.op_type for node in graph.graph.node}
    graph = _quantised(graph, nodes, [{"films": film} for film in films])
    onnx_package.save(graph, folder / FILES["onnx"][0])


def check_installed(onnx_too: bool) -> None:
    """Raise UserError if what quantises is not installed."""
    _import_nncf()
    if onnx_too:
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise UserError("onnx is needed: pip install 'legradnet[export]'.") from error


def _quantised(graph: Any, nodes: dict[str, str], items: list[Any]) -> Any:
    nncf = _import_nncf()
    trunks = {name: kind for name, kind in nodes.items() if _TRUNK in name}
    return nncf.quantize(
        graph,
        nncf.Dataset(items),
        subset_size=min(len(items), MOST_FILMS),
        # attention gets a scheme of its own
        model_type=nncf.ModelType.TRANSFORMER if "Softmax" in trunks.values() else None,
        ignored_scope=nncf.IgnoredScope(names=sorted(nodes.keys() - trunks.keys()), validate=False),
    )


def _import_nncf() -> Any:
    import_openvino()  # first: it keeps both from reporting to their makers
    try:
        import nncf
    except ImportError as error:
        raise UserError("NNCF is needed for precision=int8: pip install 'legradnet[export]'.") from error
    nncf.set_log_level(logging.ERROR)
    return nncf
