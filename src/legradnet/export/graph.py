"""A checkpoint's network as one ONNX graph: from 8-bit films to calibrated probabilities.

It is traced by torch's older exporter. The newer one (`dynamo=True`) gives the same numbers, but takes 15 times as long
and leaves no module in the names of its nodes, by which `quantize` tells trunks from all else.
"""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from legradnet.errors import UserError
from legradnet.grading.calibration import LEAST, Calibration
from legradnet.grading.checkpoint_network import CheckpointNetwork
from legradnet.network.backbones import Backbone

_OPSET = 18
_MOST_BYTES = 2 * 10**9  # of weights: a protobuf message ends at 2 GiB
_BATCH = "batch"


class ResizeMatrix(nn.Module):
    """Antialiased bilinear resize [B, 1, S, S] to [B, 1, side, side] as two products with one matrix.

    It is separable and linear, and this is its matrix, so that the numbers are torch's; OpenVINO's own resize of an
    ONNX file isn't antialiased.
    """

    matrix: Tensor

    def __init__(self, from_side: int, to_side: int) -> None:
        super().__init__()
        unit = torch.eye(from_side)[None, None]
        rows = F.interpolate(unit, (to_side, from_side), mode="bilinear", antialias=True, align_corners=False)
        self.register_buffer("matrix", rows[0, 0])

    def forward(self, films: Tensor) -> Tensor:
        """Resize `films` [B, 1, S, S]."""
        return self.matrix @ films @ self.matrix.T


class _ExportedBackbone(nn.Module):
    def __init__(self, backbone: Backbone, side: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.trunk = backbone.trunk
        self.resize = nn.Identity() if side == backbone.image_size else ResizeMatrix(side, backbone.image_size)

    def forward(self, films: Tensor) -> Tensor:
        return self.backbone.projection(self.trunk(self.backbone.normalise(self.resize(films))))


class _ExportedGraph(nn.Module):
    """All that grading needs of a network, from 8-bit films to calibrated probabilities.

    Args:
        network: A checkpoint's network in float32 on the CPU.
    """

    def __init__(self, network: CheckpointNetwork) -> None:
        super().__init__()
        ensemble = network.ensemble
        self.branches = nn.ModuleList(
            _ExportedBackbone(backbone, network.image_size)  # type: ignore[arg-type]
            for backbone in ensemble.backbones.values()
        )
        self.gate, self.head, self.loss = ensemble.gate, ensemble.head, network.loss
        self.calibration = network.calibration
        self.stage_means = network.stage_means if network.distance else None
        there = {"gate_weights": network.weighs, "stages": network.distance is not None}
        self.outputs = ("probabilities", "raw", "logits", *(name for name, is_there in there.items() if is_there))

    def forward(self, films: Tensor) -> tuple[Tensor, ...]:
        """Grade `films` uint8 [B, 1, S, S]: what `outputs` names; gate weights are [B, N], stages [B, W]."""
        shades = films.float() / 255
        no_means: AbstractContextManager[dict[int, Tensor]] = nullcontext({})
        with self.stage_means.read(shades) if self.stage_means else no_means as means:
            tokens = [branch(shades) for branch in self.branches]
        fused, gate_weights = self.gate(torch.stack(tokens, dim=1))
        logits = self.head(fused)
        raw = self.loss.probabilities(logits)
        outputs = [tempered(raw, self.calibration), raw, logits]
        outputs += [] if gate_weights is None else [gate_weights]
        return (*outputs, *([self.stage_means.joined(means)] if self.stage_means else []))


def tempered(raw: Tensor, calibration: Calibration) -> Tensor:
    """Calibrated probabilities of `raw` [B, K]: what `Calibration.probabilities` does, in torch."""
    fitted = _by_temperature(raw, calibration)
    if not calibration.biases:
        return fitted
    logs = fitted.clamp(min=LEAST).log()
    logs = logs @ torch.tensor(calibration.mixing).T if calibration.mixing else logs
    return (logs + torch.tensor(calibration.biases)).softmax(dim=1)


def _by_temperature(raw: Tensor, calibration: Calibration) -> Tensor:
    if calibration.temperature == 1.0:
        return raw.clone()
    if calibration.rule == "mode":
        return (raw.clamp(min=LEAST).log() / calibration.temperature).softmax(dim=1)
    up_to = torch.ones(raw.shape[1], raw.shape[1]).triu()[:, :-1]  # [K, K-1]: which grades are at most k
    at_most, above = (raw @ up_to).clamp(min=LEAST), (raw @ (1 - up_to)).clamp(min=LEAST)
    above = ((above.log() - at_most.log()) / calibration.temperature).sigmoid()
    return F.pad(above, (1, 0), value=1.0) - F.pad(above, (0, 1))


def write_onnx(network: CheckpointNetwork, path: Path) -> None:
    """Write a network in float32 as ONNX: `films` uint8 [B, 1, S, S] with any B, to what `_ExportedGraph` gives.

    Raises:
        UserError: More weights than a file can hold, or an operation that the format hasn't got.
    """
    if 4 * network.parameters > _MOST_BYTES:
        raise UserError(f"{network.path} has {network.parameters:,} parameters, more than one ONNX graph can hold.")
    graph = _ExportedGraph(network).eval()
    side = network.image_size
    films = torch.randint(256, (2, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False), torch.no_grad(), _quietly():
        try:
            torch.onnx.export(
                graph,
                (films,),
                str(path),
                dynamo=False,
                opset_version=_OPSET,
                input_names=["films"],
                output_names=list(graph.outputs),
                dynamic_axes={name: {0: _BATCH} for name in ("films", *graph.outputs)},
            )
        except (RuntimeError, torch.onnx.OnnxExporterError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise UserError(f"{network.path} can't be exported: {reason}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's notices of its age, of shapes (constants but for the batch) and of what it can't fold."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit._trace.TracerWarning)
        warnings.filterwarnings("ignore", "Constant folding", UserWarning)
        yield
