"""Where a network's starting weights come from: a local file, a checkpoint of ours, timm's hub, or nowhere."""

import logging
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import timm
import torch
from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from timm.models import _hub as timm_hub
from torch import Tensor, nn

from legradnet.backbones import BackboneConfig
from legradnet.checkpoint import is_ours, read_checkpoint
from legradnet.ensemble import KneeEnsemble
from legradnet.errors import UserError

log = logging.getLogger(__name__)

PROBE_SECONDS = 10.0
_WAYS_OUT = (
    "Ways out: model.pretrained=false (random start), backbone.<key>.weights=FILE (local safetensors or state dict), "
    "or run once with a network and copy the filled hub cache (HF_HOME, TORCH_HOME) to this machine."
)


def check_weights(backbones: Mapping[str, BackboneConfig], pretrained: bool) -> None:
    """Make sure that every starting weight can be had, before anything expensive, within about PROBE_SECONDS.

    Raises:
        UserError: A `weights` file is missing, or a download is needed and its server can't be reached.
    """
    problems = [
        f"backbone.{key}.weights: no file at {config.weights}"
        for key, config in backbones.items()
        if config.weights and not Path(config.weights).is_file()
    ]
    if problems:
        raise UserError("\n".join(problems))
    wanted = {key: c for key, c in backbones.items() if pretrained and not c.weights and not _is_untrained(c)}
    missing = {key: config for key, config in wanted.items() if cached_file(config.timm_name) is None}
    if not missing:
        return
    names = ", ".join(f"{key} ({config.timm_name})" for key, config in missing.items())
    if constants.HF_HUB_OFFLINE:
        raise UserError(f"HF_HUB_OFFLINE is set and no pretrained weights are in the hub cache for {names}. {_WAYS_OUT}")
    for url in {_address(config.timm_name) for config in missing.values()}:
        if reason := _unreachable(url):
            raise UserError(f"Pretrained weights are needed for {names}, but {url} can't be reached: {reason}. {_WAYS_OUT}")


def load_starting_weights(ensemble: KneeEnsemble, backbones: Mapping[str, BackboneConfig], pretrained: bool) -> None:
    """Fill the trunks of a fresh ensemble: from `weights` files, else, if `pretrained`, from timm's hub or its cache."""
    for key, config in backbones.items():
        backbone = ensemble.backbones[key]
        if config.weights:
            state = _pick_trunk(_read_state(Path(config.weights)), key, config.weights)
            load_trunk(backbone.trunk, state, f"backbone.{key}.weights={config.weights}")
            log.info("%s: trunk from %s", key, config.weights)
        elif pretrained and not _is_untrained(config):
            load_trunk(backbone.trunk, _pretrained_state(config.timm_name), f"timm's {config.timm_name}")
            log.info("%s: pretrained trunk of %s", key, config.timm_name)
        elif config.frozen:
            log.warning("%s is frozen at random weights: backbone.%s.frozen=true without weights.", key, key)


def load_ensemble(ensemble: KneeEnsemble, path: str | Path) -> None:
    """Start a whole ensemble from a checkpoint of ours (`init_from`).

    Raises:
        UserError: The file is no checkpoint of ours, or its ensemble is another than this one.
    """
    checkpoint = read_checkpoint(path)
    if not is_ours(checkpoint):
        raise UserError(f"init_from={path} is no LegRadNet checkpoint; for one trunk use backbone.<key>.weights=FILE.")
    theirs = {k.removeprefix("ensemble."): v for k, v in checkpoint["state_dict"].items() if k.startswith("ensemble.")}
    if differences := _differences(ensemble.state_dict(), theirs):
        keys = sorted({name.split(".")[1] for name in theirs if name.startswith("backbones.")})
        gate = checkpoint["hyper_parameters"].get("gating", {}).get("name")
        raise UserError(
            f"init_from={path} doesn't fit this network (it holds 'backbone=[{','.join(keys)}]' and gating={gate}; "
            f"backbones, their timm_name, gating, model.* and loss must be alike): {differences}"
        )
    ensemble.load_state_dict(theirs)


def load_trunk(trunk: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into `trunk`: the classifier head is left out, everything else must fit exactly.

    Keys of older releases are renamed and position embeddings resampled by timm's own filter of that network.
    """
    module = sys.modules[type(trunk).__module__]
    if rename := getattr(module, "checkpoint_filter_fn", None):
        state = rename(dict(state), trunk)
    elif rename := getattr(module, "_filter_torchvision_pretrained", None):
        state = rename(dict(state))
    heads = trunk.pretrained_cfg["classifier"]
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads or ()))
    state = {name: tensor for name, tensor in state.items() if not prefixes or not name.startswith(prefixes)}
    if differences := _differences(trunk.state_dict(), state):
        raise UserError(f"{source} doesn't fit {trunk.pretrained_cfg['architecture']}: {differences}")
    trunk.load_state_dict(state, strict=False)  # only num_batches_tracked may be missing


def cached_file(timm_name: str) -> Path | None:
    """Local file with timm's pretrained weights of this network, if a cache holds it; never asks the network."""
    source = timm.get_pretrained_cfg(timm_name)
    if source.hf_hub_id:
        repo, revision = timm_hub.hf_split(source.hf_hub_id)
        for name in (source.hf_hub_filename or "model.safetensors", "pytorch_model.bin"):
            found = try_to_load_from_cache(repo, name, revision=revision)
            if isinstance(found, str):
                return Path(found)
        return None
    return Path(cached) if source.url and (cached := timm_hub.check_cached_file(source.url)) else None


def _is_untrained(config: BackboneConfig) -> bool:
    source = timm.get_pretrained_cfg(config.timm_name)
    if source.has_weights:
        return False
    if source.tag != "untrained":
        raise UserError(
            f"timm has no pretrained weights for {config.timm_name}: model.pretrained=false or backbone.<key>.weights=FILE."
        )
    return True


def _address(timm_name: str) -> str:
    source = timm.get_pretrained_cfg(timm_name)
    if source.hf_hub_id:
        repo, revision = timm_hub.hf_split(source.hf_hub_id)
        return str(hf_hub_url(repo, source.hf_hub_filename or "model.safetensors", revision=revision))
    return str(source.url)


def _unreachable(url: str) -> str | None:
    """Why `url` can't be had, or None. In a thread, as a name look-up has no time-out of its own."""
    answer: list[str | None] = [f"no answer within {PROBE_SECONDS:.0f} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
                answer[0] = None
        except urllib.error.HTTPError as error:  # the hub answers a HEAD without a token with 401 or 403 at times
            answer[0] = None if error.code in (301, 302, 303, 307, 308, 401) else f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            answer[0] = str(getattr(error, "reason", error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answer[0]


def _pretrained_state(timm_name: str) -> dict[str, Tensor]:
    if cached := cached_file(timm_name):
        return _read_state(cached)
    source = timm.get_pretrained_cfg(timm_name)
    try:
        if source.hf_hub_id:
            name = source.hf_hub_filename or "pytorch_model.bin"  # timm prefers its safetensors alternative
            return dict(timm_hub.load_state_dict_from_hf(source.hf_hub_id, name, weights_only=True))
        return _read_state(Path(timm_hub.download_cached_file(source.url, progress=False)))
    except (OSError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise UserError(f"Downloading {timm_name} from {_address(timm_name)} failed: {error}. {_WAYS_OUT}") from error


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name out of a safetensors file, a state dict, or a file that wraps one; of ours, the whole module."""
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except Exception as error:
            raise UserError(f"{path} is no readable safetensors file: {error}") from error
    content: Any = read_checkpoint(path)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state = {str(name).removeprefix("module."): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors by name.")
    return state


def _pick_trunk(state: dict[str, Tensor], key: str, path: str) -> dict[str, Tensor]:
    """Out of a checkpoint of ours the trunk of backbone `key`; any other state as it is."""
    if not any(name.startswith("ensemble.backbones.") for name in state):
        return state
    prefix = f"ensemble.backbones.{key}.trunk."
    trunk = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not trunk:
        keys = sorted({name.split(".")[2] for name in state if name.startswith("ensemble.backbones.")})
        raise UserError(f"{path} has no backbone {key!r}; it holds {', '.join(keys)}.")
    return trunk


def _differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """What keeps `theirs` from being loaded into `ours`, in words; empty if it fits."""
    missing = [name for name in ours if name not in theirs and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in theirs if name not in ours]
    other = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and ours[name].shape != theirs[name].shape
    ]
    parts = []
    for what, names in (("missing", missing), ("unknown", unexpected), ("of another shape", other)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{len(names)} {what}: {', '.join(names[:3])}{more}")
    return "; ".join(parts)
