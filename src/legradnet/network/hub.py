"""timm's pretrained weights: which are in a local cache, whether the rest can be had, and downloading them."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

import timm
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from torch import Tensor

from legradnet.errors import UserError
from legradnet.models.hub import unreachable
from legradnet.network import timm_private, tiny
from legradnet.network.backbones import network_settings

_SAFETENSORS = "model.safetensors"
_WAYS_OUT = (
    "Ways out: model.pretrained=false (random start); backbone.<key>.weights=FILE (local safetensors or state dict); "
    "or a filled hub cache: run once where there is a network, and copy the folders HF_HOME and TORCH_HOME."
)


def has_weights(timm_name: str) -> bool:
    """Whether timm has pretrained weights of this network; False for our tiny ones.

    Raises:
        UserError: A network of timm's own that has none: the user expects some.
    """
    if network_settings(timm_name).has_weights:
        return True
    if timm_name in tiny.SETTINGS:
        return False
    raise UserError(
        f"timm has no pretrained weights for {timm_name}: model.pretrained=false or backbone.<key>.weights=FILE."
    )


def cached_file(timm_name: str) -> Path | None:
    """Local file with timm's pretrained weights of this network, if a cache holds it; never asks the network."""
    source = network_settings(timm_name)
    if source.hf_hub_id:
        repo, revision = timm_private.hub_repository(source.hf_hub_id)
        for name in (source.hf_hub_filename or _SAFETENSORS, "pytorch_model.bin"):
            if isinstance(cached := try_to_load_from_cache(repo, name, revision=revision), str):
                return Path(cached)
        return None
    return timm_private.cached_download(source.url)


def check_undamaged(cached: Path) -> None:
    """Compare a file of the hub's cache with the SHA-256 that is its name there, as that of large files is.

    Raises:
        UserError: It is damaged.
    """
    named = cached.resolve().name
    if not re.fullmatch("[0-9a-f]{64}", named):
        return
    with cached.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != named:
            raise UserError(
                f"{cached} is damaged, its checksum is wrong: delete {cached.resolve()}, and it is had again."
            )


def check_downloads(timm_names: Iterable[str]) -> None:
    """Make sure that the weights of these networks are in a cache or their servers answer, within 20 s (two at most).

    Raises:
        UserError: Names what is missing, why it can't be had, and the ways out.
    """
    missing = [name for name in timm_names if cached_file(name) is None]
    names = ", ".join(missing)
    if missing and constants.HF_HUB_OFFLINE:
        raise UserError(f"HF_HUB_OFFLINE is set and the hub cache has no pretrained weights of {names}. {_WAYS_OUT}")
    servers = {urlsplit(url).netloc: url for url in map(_address, reversed(missing))}
    for url in servers.values():
        if reason := unreachable(url):
            raise UserError(f"Pretrained weights of {names} are needed, but {url} can't be had: {reason}. {_WAYS_OUT}")


def download(timm_name: str) -> dict[str, Tensor]:
    """Download pretrained weights through timm, into its cache; classifier included.

    Raises:
        UserError: The server refuses or the connection breaks.
    """
    source = network_settings(timm_name)
    try:
        if source.hf_hub_id:
            name = source.hf_hub_filename or "pytorch_model.bin"  # timm then prefers the safetensors beside it
            return dict(timm.models.load_state_dict_from_hf(source.hf_hub_id, name, weights_only=True))
        return dict(timm.models.load_state_dict(timm_private.download(source.url), weights_only=True))
    except (OSError, RuntimeError, HfHubHTTPError) as error:
        raise UserError(f"Downloading {_address(timm_name)} failed: {error}. {_WAYS_OUT}") from error


def _address(timm_name: str) -> str:
    source = network_settings(timm_name)
    if source.hf_hub_id:
        repo, revision = timm_private.hub_repository(source.hf_hub_id)
        return str(hf_hub_url(repo, source.hf_hub_filename or _SAFETENSORS, revision=revision))
    return str(source.url)
