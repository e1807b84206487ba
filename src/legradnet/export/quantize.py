"""8-bit trunks by NNCF's post-training quantisation; all else stays in float.

That is a trunk's first convolution, which meets the film itself (in 8 bits it alone costs more than the rest together),
resize and normalisation before it, and projections, gate and head behind.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from legradnet.grading.runtimes.openvino import unreported
from legradnet.grading.runtimes.runtime import imported

MOST_FILMS = 300  # NNCF's own number: ranges of activations need no more
_TRUNK = "/trunk/"  # in the names of a trunk's nodes
_CONVOLUTIONS = ("Conv", "Convolution", "GroupConvolution")


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


def quantise(
    graph: Any, nodes: list[tuple[str, str]], items: list[Any], *, smooth: bool, per_channel: bool | None
) -> Any:
    """Give a graph 8-bit trunks; `per_channel` None: NNCF's own choice, per channel before depthwise convolutions."""
    nncf = import_nncf()
    from nncf.quantization.advanced_parameters import AdvancedSmoothQuantParameters, OverflowFix, QuantizationParameters

    attends = any(_TRUNK in name and kind == "Softmax" for name, kind in nodes)
    with _quietly():
        return nncf.quantize(
            graph,
            nncf.Dataset(items),
            subset_size=min(len(items), MOST_FILMS),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                # on CPUs without VNNI products of 8-bit weights overflow; with 7 bits an export grades alike on all
                overflow_fix=OverflowFix.ENABLE,
                activations_quantization_params=QuantizationParameters(per_channel=per_channel),
                smooth_quant_alphas=AdvancedSmoothQuantParameters()
                if smooth
                else AdvancedSmoothQuantParameters(-1, -1),
            ),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,  # a scheme of its own for attention
            ignored_scope=nncf.IgnoredScope(names=kept_in_float(nodes), validate=False),
        )


def import_nncf() -> Any:
    """NNCF, which then reports nothing to its makers; UserError if it isn't installed."""
    with unreported():
        return imported("nncf")


@contextmanager
def _quietly() -> Iterator[None]:
    logger = logging.getLogger("nncf")  # its own `set_log_level` would change everybody's handlers too
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
