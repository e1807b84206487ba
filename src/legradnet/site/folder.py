"""The folder of a model calibrated at a site: the same weights, what was fitted, the model's card, the site's page."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from legradnet.checkpoint import KEPT_IN_BEST
from legradnet.errors import UserError
from legradnet.grading.exported_network import DESCRIPTION, ExportedNetwork
from legradnet.grading.metadata import Learned
from legradnet.grading.networks import GradingNetwork
from legradnet.models.described import is_own, parsed, read_text, write_description
from legradnet.models.description import CONFIG

CARD = "README.md"
NUMBERS = "site.json"
_CARDS = (CARD, "card.md")  # of a model, as hubs call it and as an evaluation does
_BESIDE = ("facts.yaml", "NOTICE", "LICENSE")  # of a model's folder, which go with it
_MOST_BYTES = 4 * 1024**2
_BEGIN, _END = "<!-- calibrated at a site -->", "<!-- end of the site's page -->"
_PAGE = re.compile(rf"\n*{_BEGIN}.*?{_END}\n*", re.DOTALL)
_OLD_CALIBRATION = "float32 [B, classes], calibrated as before legradnet-calibrate: `calibration` is for `raw`"


def last_of(network: GradingNetwork) -> str:
    """The file without which the folder counts as nothing."""
    return DESCRIPTION if isinstance(network, ExportedNetwork) else CONFIG


def write_site(folder: Path, network: GradingNetwork, learned: Learned, page: str, numbers: Mapping[str, Any]) -> None:
    """Write an empty folder, and make sure that the model in it has the weights that it had.

    Args:
        folder: It is there, and empty.
        network: The model as it came.
        learned: What it knows now.
        page: The site's page, Markdown.
        numbers: What the page tells, for JSON.

    Raises:
        UserError: The model's files have changed meanwhile, or are not what they were.
    """
    if isinstance(network, ExportedNetwork):
        _write_export(folder, network, learned)
    else:
        _write_model(folder, network, learned)
    for name in _BESIDE:
        if (text := _text_of(network.path, name)) is not None:
            (folder / name).write_text(text, encoding="utf-8")
    (folder / CARD).write_text(card_with_page(_card_of(network.path), page), encoding="utf-8")
    (folder / NUMBERS).write_text(json.dumps(numbers, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def card_with_page(card: str, page: str) -> str:
    """A model's card with a site's page behind it, in the place of one that is there from an earlier calibration."""
    before = _PAGE.sub("\n", card).rstrip()
    return "\n\n".join(filter(None, [before, f"{_BEGIN}\n{page.strip()}\n{_END}"])) + "\n"


def weights_digest(state: Mapping[str, Any]) -> str:
    """SHA-256 of tensors by name, 64 hex digits: the same whatever file they lie in."""
    import torch

    hashed = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(np.ascontiguousarray(tensor.reshape(-1).view(torch.uint8).numpy()).data)
    return hashed.hexdigest()


def _write_model(folder: Path, network: GradingNetwork, learned: Learned) -> None:
    from legradnet.models.folder import read_model, read_trained, write_model  # late: an export needs no torch
    from legradnet.run_folder import versions

    content = read_trained(network.path)
    kept = {key: content[key] for key in KEPT_IN_BEST if key in content}
    weights = weights_digest(kept["state_dict"])
    knows = learned.model_dump(exclude_unset=True)
    if learned.site:
        knows["site"]["weights"] = weights
    kept["legradnet"] = knows
    said = {"parameters": network.parameters, "made_with": versions()}
    write_model(folder, kept, said, shortened=False)
    if weights_digest(read_model(folder)["state_dict"]) != weights:
        raise UserError(f"Nothing was written: the weights of {network.path} can't be kept as they are. Please report "
                        "it.")  # fmt: skip


def _write_export(folder: Path, network: ExportedNetwork, learned: Learned) -> None:
    described = parsed(read_text(network.path / DESCRIPTION), network.path / DESCRIPTION)
    described.pop("digest", None)
    for name in described["digests"]:  # which loading has compared; compared again below
        shutil.copyfile(network.path / name, folder / name)
        os.chmod(folder / name, 0o644)  # noqa: PTH101
    known = learned.model_dump(mode="json", exclude_unset=True)
    apart = {name: known.pop(name, None) for name in ("calibration", "film_check", "distance")}
    outputs = described.get("outputs", {}) | {"probabilities": _OLD_CALIBRATION}
    write_description(folder / DESCRIPTION, {**described, **apart, "learned": known, "outputs": outputs})
    ExportedNetwork(folder)


def _card_of(path: Path) -> str:
    return next((text for name in _CARDS if (text := _text_of(path, name)) is not None), "")


def _text_of(path: Path, name: str) -> str | None:
    """A text that lies in a model's folder; None without one, of a checkpoint, or where it is something else."""
    file = path / name
    if not path.is_dir() or not is_own(file) or file.stat().st_size > _MOST_BYTES:
        return None
    try:
        return file.read_text(encoding="utf-8")
    except ValueError:
        return None
