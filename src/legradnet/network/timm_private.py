"""All that is used of timm beside its public names: pyproject.toml bounds timm's version for it.

Public names are those that `timm` and `timm.models` list, and the attributes of its networks.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timm.models import _hub
from torch import Tensor


def hub_repository(hf_hub_id: str) -> tuple[str, str | None]:
    """Repository and revision of `hf_hub_id`."""
    return _hub.hf_split(hf_hub_id)


def cached_download(url: str) -> Path | None:
    """Where timm keeps what it has downloaded from `url`, if it has."""
    return Path(cached) if (cached := _hub.check_cached_file(url)) else None


def download(url: str) -> str:
    """Download `url` into timm's cache: where it is."""
    return str(_hub.download_cached_file(url))


def renamed(state: Mapping[str, Tensor], trunk: Any) -> dict[str, Tensor]:
    """A file's tensors by the names, and with the position embeddings, that `trunk` has in this release of timm."""
    module = sys.modules[type(trunk).__module__]
    if rename := getattr(module, "checkpoint_filter_fn", None):
        return dict(rename(dict(state), trunk))
    if rename := getattr(module, "_filter_torchvision_pretrained", None):
        return dict(rename(dict(state)))
    return dict(state)
