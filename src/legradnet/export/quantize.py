"""8-bit trunks by NNCF's post-training quantisation; all else stays in float.

That is a trunk's first convolution, which meets the film itself (in 8 bits it alone costs more than the rest together),
resize and normalisation before it, and projections, gate and head behind.
"""

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError
from legradnet.grading.exported_network import FILES, import_onnx_runtime, import_openvino

MOST_FILMS = 300  # NNCF's own number: ranges of activations need no more
_TRUNK = "/trunk/"  # in the names of a trunk's nodes
_CONVOLUTIONS = ("Conv", "Convolution", "GroupConvolution")

Films = Sequence[npt.NDArray[np.uint8]]


def write_openvino(onnx: Path, folder: Path, films: Films = ()) -> None:
    """Write an ONNX graph into `folder` as OpenVINO's; if there are `films` [1, 1, S, S], with 8-bit trunks."""
    openvino = import_openvino()
    graph = openvino.convert_model(onnx)
    if films:
        nodes = [(node.get_friendly_name(), node.get_type_name()) for node in graph.get_ordered_ops()]
        graph = _quantised(graph, nodes, list(films), smooth=True, per_channel=None)
    openvino.save_model(graph, folder / FILES["openvino"][0], compress_to_fp16=False)


def write_quantised_onnx(onnx: Path, folder: Path, films: Films) -> None:
    """Write an ONNX graph into `folder` with 8-bit trunks, by `films` [1, 1, S, S]."""
    import_onnx_runtime()
    import onnx as onnx_package

    graph = onnx_package.load(onnx)
    nodes = [(node.name, node.op_type) for node in graph.graph.node]  # the standard wants them sorted
    # ONNX Runtime has no 8-bit convolution of activations that are scaled channel by channel;
    # NNCF 3.4 fails on products whose weights have no node of their own when it smooths activations of an ONNX graph
    graph = _quantised(graph, nodes, [{"films": film} for film in films], smooth=False, per_channel=False)
    onnx_package.save(graph, folder / FILES["onnx"][0])


def check_installed(onnx_too: bool) -> None:
    """Raise UserError if what quantises is not installed."""
    _import_nncf()
    if onnx_too:
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise UserError("onnx is needed: pip install 'legradnet[export]'.") from error


def kept_in_float(nodes: Iterable[tuple[str, str]]) -> list[str]:
    """The names among `nodes` (name, type), in an order in which they can run, that are not to be quantised."""
    names = []
    begun = set()
    for name, kind in nodes:
        branch, inside, _ = name.partition(_TRUNK)
        if not inside or (kind in _CONVOLUTIONS and branch not in begun):
            names.append(name)
        if inside and kind in _CONVOLUTIONS:
            begun.add(branch)
    return names


def _quantised(
    graph: Any, nodes: list[tuple[str, str]], items: list[Any], *, smooth: bool, per_channel: bool | None
) -> Any:
    """Quantise; `per_channel` is of activations, None NNCF's own choice: per channel before depthwise convolutions."""
    nncf = _import_nncf()
    from nncf.quantization.advanced_parameters import (
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )

    attends = any(_TRUNK in name and kind == "Softmax" for name, kind in nodes)
    return nncf.quantize(
        graph,
        nncf.Dataset(items),
        subset_size=min(len(items), MOST_FILMS),
        advanced_parameters=nncf.AdvancedQuantizationParameters(
            # on CPUs without VNNI products of 8-bit weights overflow: with 7 bits an export grades alike on all CPUs
            overflow_fix=OverflowFix.ENABLE,
            activations_quantization_params=QuantizationParameters(per_channel=per_channel),
            smooth_quant_alphas=AdvancedSmoothQuantParameters() if smooth else AdvancedSmoothQuantParameters(-1, -1),
        ),
        model_type=nncf.ModelType.TRANSFORMER if attends else None,  # a scheme of its own for attention
        ignored_scope=nncf.IgnoredScope(names=kept_in_float(nodes), validate=False),
    )


def _import_nncf() -> Any:
    import_openvino()  # first: it keeps both from reporting to their makers
    try:
        import nncf
    except ImportError as error:
        raise UserError("NNCF is needed for precision=int8: pip install 'legradnet[export]'.") from error
    nncf.set_log_level(logging.ERROR)
    return nncf
