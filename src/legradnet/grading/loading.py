"""The network that `checkpoint=` names: a checkpoint's or a model folder's by torch, an export's by its runtime."""

from collections.abc import Sequence
from pathlib import Path

from legradnet.errors import UserError
from legradnet.grading.exported_network import ExportedNetwork, is_export
from legradnet.grading.networks import GradingNetwork
from legradnet.models.named import local_path, name_of


def load_network(checkpoint: str | Path, device: str, precision: str, threads: int | None) -> GradingNetwork:
    """Load a checkpoint, an export or a model, by its path or its name.

    Raises:
        UserError: It is none, or has no such device or precision.
    """
    path = local_path(checkpoint)
    if not is_export(path):
        from legradnet.grading.checkpoint_network import CheckpointNetwork  # late: an export needs no torch

        return CheckpointNetwork(path, device=device, precision=precision)
    if str(device) not in ("auto", "cpu"):
        raise UserError(f"device={device}: the export {path} runs on the CPU.")
    network = ExportedNetwork(path, threads=threads)
    if precision not in ("auto", network.precision):
        raise UserError(f"precision={precision}: the export {path} is {network.precision}.")
    return network


def models_in_words(networks: Sequence[GradingNetwork]) -> str:
    """Which models grade, for the one line of a run that says so."""
    words = list(map(in_words, networks))
    return words[0] if len(words) == 1 else f"the mean of {', '.join(words)}"


def in_words(network: GradingNetwork) -> str:
    """Which model this is, `oai (digest 0123456789ab, trained by LegRadNet 0.1.0)`."""
    trained_by = network.learned.versions.get("legradnet")
    facts = [
        f"digest {network.digest[:12]}" if network.digest else "",
        f"trained by LegRadNet {trained_by}" if trained_by else "",
    ]
    said = ", ".join(filter(None, facts))
    return name_of(network.path) + (f" ({said})" if said else "")
