"""Where a network's starting weights come from: a local file, a checkpoint of ours, timm's hub, or nowhere."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from legradnet.checkpoint import is_ours, read_checkpoint, whole_tensors
from legradnet.errors import UserError
from legradnet.models.folder import read_tensors, read_trained
from legradnet.models.named import local_path
from legradnet.network import hub
from legradnet.network.backbones import Backbone, BackboneSettings
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.timm_private import renamed
from legradnet.settings import flat

log = logging.getLogger(__name__)

_TRUNKS = "ensemble.backbones."


def check_weights(backbones: Mapping[str, BackboneSettings], pretrained: bool) -> None:
    """Make sure that every starting weight can be had, before anything expensive, within 20 s.

    Raises:
        UserError: `weights` files are missing, or a download is needed and can't be had.
    """
    problems = [
        f"backbone.{key}.weights: no file at {settings.weights}"
        for key, settings in backbones.items()
        if settings.weights and not Path(settings.weights).is_file()
    ]
    if problems:
        raise UserError("\n".join(problems))
    hub.check_downloads(settings.timm_name for settings in backbones.values() if _is_from_hub(settings, pretrained))


def load_starting_weights(ensemble: KneeEnsemble, backbones: Mapping[str, BackboneSettings], pretrained: bool) -> None:
    """Fill the trunks of a fresh ensemble, as `load_trunks` does."""
    load_trunks({key: cast(Backbone, ensemble.backbones[key]) for key in backbones}, backbones, pretrained)


def load_trunks(networks: Mapping[str, Backbone], backbones: Mapping[str, BackboneSettings], pretrained: bool) -> None:
    """Fill the trunks of fresh networks: from `weights` files, else, if `pretrained`, from timm's hub or cache."""
    for key, settings in backbones.items():
        trunk = networks[key].trunk
        if settings.weights:
            state = _pick_trunk(_read_state(Path(settings.weights)), key, settings.weights)
            load_trunk(trunk, state, f"backbone.{key}.weights={settings.weights}")
            log.info("%s: trunk from %s", key, settings.weights)
        elif _is_from_hub(settings, pretrained):
            cached = hub.cached_file(settings.timm_name)
            if cached:
                hub.check_undamaged(cached)
            state = _read_state(cached) if cached else hub.download(settings.timm_name)
            load_trunk(trunk, state, f"timm's pretrained file of {settings.timm_name}")
            log.info("%s: pretrained trunk of %s", key, settings.timm_name)
        elif settings.frozen:
            log.warning("%s is frozen at random weights: backbone.%s.frozen=true without weights.", key, key)


def load_ensemble(ensemble: KneeEnsemble, path: str | Path) -> None:
    """Start a whole ensemble from a checkpoint or a model of ours (`init_from`).

    Raises:
        UserError: The file is no checkpoint of ours, or its ensemble is another than this one.
    """
    checkpoint = read_trained(local_path(path))
    if not is_ours(checkpoint):
        raise UserError(f"init_from={path} is no LegRadNet checkpoint; for one trunk use backbone.<key>.weights=FILE.")
    theirs = _whole(checkpoint["state_dict"], f"init_from={path}", "ensemble.")
    if differences := _differences(ensemble.state_dict(), theirs):
        keys = sorted({name.split(".")[1] for name in theirs if name.startswith("backbones.")})
        said = checkpoint["hyper_parameters"]
        gate = flat(said).get("gating.name") if isinstance(said, Mapping) else None
        raise UserError(
            f"init_from={path} doesn't fit this network: it holds 'backbone=[{','.join(keys)}]' gating={gate}, and "
            f"backbones, their timm_name, gating, model.feature_dim, num_classes and loss must be alike. {differences}"
        )
    ensemble.load_state_dict(theirs)


def load_trunk(trunk: Any, state: Mapping[str, Tensor], source: str) -> None:
    """Load `state` into a timm network: the classifier head is left out, everything else must fit exactly.

    Keys of older releases are renamed and position embeddings resampled by timm's own filter of that network.

    Raises:
        UserError: Names what is missing, unknown or of another shape.
    """
    heads = trunk.pretrained_cfg["classifier"]
    state = _whole(state, source)
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads or ()))
    try:
        known = renamed(state, trunk)
    except Exception as error:  # whatever timm's filters raise over what they don't expect
        raise UserError(f"{source} doesn't fit {trunk.pretrained_cfg['architecture']}: {error}") from error
    state = {name: tensor for name, tensor in known.items() if not name.startswith(prefixes)}
    if differences := _differences(trunk.state_dict(), state):
        raise UserError(f"{source} doesn't fit {trunk.pretrained_cfg['architecture']}: {differences}")
    trunk.load_state_dict(state, strict=False)  # only num_batches_tracked may be missing


def _is_from_hub(settings: BackboneSettings, pretrained: bool) -> bool:
    return pretrained and not settings.weights and hub.has_weights(settings.timm_name)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Tensors by name out of a safetensors file, a state dict, or a file that wraps one; of ours, the whole module."""
    if path.suffix == ".safetensors":
        return read_tensors(path)
    content: Any = read_checkpoint(path)
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    state = {str(name).removeprefix("module."): value for name, value in content.items() if isinstance(value, Tensor)}
    if not state:
        raise UserError(f"{path} holds no tensors by name.")
    return state


def _whole(state: Mapping[Any, Any], source: str, prefix: str = "") -> dict[str, Tensor]:
    try:
        return whole_tensors(state, prefix)
    except UserError as error:
        raise UserError(f"{source} is damaged: {error}.") from error


def _pick_trunk(state: dict[str, Tensor], key: str, path: str) -> dict[str, Tensor]:
    """Out of a checkpoint of ours the trunk of backbone `key`; any other state as it is."""
    keys = sorted({name.split(".")[2] for name in state if name.startswith(_TRUNKS)})
    if not keys:
        return state
    if key not in keys:
        raise UserError(f"{path} has no backbone {key!r}; it holds {', '.join(keys)}.")
    prefix = f"{_TRUNKS}{key}.trunk."
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _differences(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str:
    """What keeps `theirs` from being loaded into `ours`, in words; empty if it fits."""
    shapes = [
        f"{name} {tuple(theirs[name].shape)} instead of {tuple(ours[name].shape)}"
        for name in ours
        if name in theirs and ours[name].shape != theirs[name].shape
    ]
    kinds = {
        "missing": [name for name in ours if name not in theirs and not name.endswith("num_batches_tracked")],
        "unknown": [name for name in theirs if name not in ours],
        "of another shape": shapes,
        "not finite": [name for name in ours if name in theirs and not theirs[name].isfinite().all()],
    }
    return "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"
        for kind, names in kinds.items()
        if names
    )
