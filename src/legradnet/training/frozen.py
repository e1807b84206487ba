"""Frozen backbones once: their pooled features are computed before training, and kept beside the films."""

import hashlib
import logging
import sys
import time
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from legradnet.data.augment import Augmentation
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.features import Features
from legradnet.data.splits import SPLITS, Split
from legradnet.files import NotWrittenError, written_whole
from legradnet.network.backbones import Backbone
from legradnet.network.ensemble import KneeEnsemble
from legradnet.training.module import GradingModule

log = logging.getLogger(__name__)

_VERSION = 1  # of what is kept


def feature_views(module: GradingModule, asked: int | None) -> int:
    """Views of each training film whose features are computed once; 0: every epoch passes films through the trunks.

    Args:
        module: All its trunks must be frozen.
        asked: `data.feature_views`. None: one view where films aren't augmented, and 0 where they are, because an
            epoch would no longer see new films.
    """
    if not all(cast(Backbone, backbone).settings.frozen for backbone in module.ensemble.backbones.values()):
        if asked:
            log.warning("data.feature_views=%d has no effect: not every backbone is frozen.", asked)
        return 0
    if asked is None and module.augment:
        log.info("All backbones are frozen: data.feature_views=4 would pass each film through them four times in all, "
                 "augmented in four ways, instead of once an epoch.")  # fmt: skip
    if module.augment or asked == 0:
        return asked or 0
    return 1


def compute_features(
    module: GradingModule, data: KneeDataModule, *, views: int, device: torch.device, precision: str
) -> None:
    """Give `data` the features of its films, from the cache or computed; it then yields them instead of films.

    The cache is the pixel cache's folder; without one they are kept in memory. A file's name is a digest of all that
    the features follow from, the films' pixels and the weights among them.

    Args:
        module: Frozen trunks with their weights, and the augmentation.
        data: Films that are set up.
        views: Augmented views of each training film; epoch e sees view e modulo `views`.
        device: Where to compute.
        precision: Of the trainer: 32-true, bf16-mixed, 16-mixed.
    """
    start = time.monotonic()
    folder = data.cached.path.parent if data.cached else None
    network = digest_of_network(module.ensemble, precision)
    ensemble = module.ensemble.to(device)
    features: Features = {}
    computed = 0
    for split in SPLITS:
        if not len(data.films(split)):
            continue
        stacked = []
        films = _digest_of_films(data, split)
        for view in range(views if split == "train" else 1):
            augment = module.augment if split == "train" else None
            augmented = module.hparams["augment"], module.hparams["seed"], view, data.settings.batch_size
            drawn = repr(augmented) if augment else ""
            name = hashlib.sha256(f"{_VERSION} {network} {films} {drawn}".encode()).hexdigest()[:32]
            path = folder / f"{name}.features" if folder else None
            pooled = _read(path, len(data.films(split))) if path else None
            if pooled is None:
                log.info("Computing features of %d films of %s, view %d of %d", len(data.films(split)), split, view + 1,
                         views if split == "train" else 1)  # fmt: skip
                seeds = np.random.SeedSequence([module.hparams["seed"], view]).generate_state(1)
                pooled = _computed(ensemble, data, split, augment, int(seeds[0]), device, precision)
                computed += len(pooled)
                if path:
                    _write(path, pooled)
            stacked.append(pooled)
        features[split] = torch.stack(stacked)
    data.features = features
    size = sum(views_of_split.nbytes for views_of_split in features.values()) / 1e6
    log.info(
        "Features of frozen backbones: %d films in %d view%s of training, %.1f MB, %s, %s",
        *(len(data.table), views, "s" if views > 1 else "", size),
        f"computed in {time.monotonic() - start:.0f} s" if computed else "all known",
        f"kept in {folder}; they may be deleted at any time" if folder else "not kept, as films are not cached",
    )


def _computed(
    ensemble: KneeEnsemble,
    data: KneeDataModule,
    split: Split,
    augment: Augmentation | None,
    seed: int,
    device: torch.device,
    precision: str,
) -> Tensor:
    """Features [N, W] of one view of a split, in table order; frozen trunks are in eval mode, whatever the ensemble."""
    kinds = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
    loader = data.loader(split, whole=True)
    pooled = []
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        torch.no_grad(),
        torch.autocast(device.type, kinds.get(precision, torch.bfloat16), enabled=precision in kinds),
    ):
        bar = tqdm(loader, desc=f"features of {split}", unit="batch", disable=not sys.stderr.isatty())
        for number, batch in enumerate(bar):
            films = batch.films.to(device)
            if augment:
                torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
                films = augment(films)
            pooled.append(ensemble.pool(films).float().cpu())
    return torch.cat(pooled)


def digest_of_network(ensemble: KneeEnsemble, precision: str) -> str:
    """Of the trunks: what they are, their weights, how they are computed."""
    digest = hashlib.sha256(f"{torch.__version__} {precision}".encode())
    for key, module in ensemble.backbones.items():
        backbone = cast(Backbone, module)
        settings = backbone.settings
        digest.update(repr((key, settings.timm_name, backbone.image_size)).encode())
        digest.update((settings.precision or "").encode())
        for name, tensor in backbone.trunk.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _digest_of_films(data: KneeDataModule, split: Split) -> str:
    """Of the pixels that the network would see, film by film."""
    digest = hashlib.sha256()
    for batch in data.loader(split, whole=True):
        digest.update(batch.films.numpy().tobytes())
    return digest.hexdigest()


def _read(path: Path, films: int) -> Tensor | None:
    """Features [N, W]; None if there are none, or not whole."""
    try:
        with safe_open(path, "pt") as file:
            features: Tensor = file.get_tensor("features")
            if file.metadata()["sha256"] == _checksum(features) and len(features) == films:
                return features
    except FileNotFoundError:
        return None
    except (SafetensorError, OSError, KeyError, TypeError):
        pass
    log.warning("%s is damaged: these features are computed again.", path)
    return None


def _write(path: Path, features: Tensor) -> None:
    content = save({"features": features}, {"sha256": _checksum(features)})
    try:
        with written_whole(path) as file:  # two runs may compute the same: each writes a file of its own
            file.write(content)
    except NotWrittenError as error:
        log.warning("Features are not kept: %s The next run computes them again.", error)


def _checksum(features: Tensor) -> str:
    return hashlib.sha256(features.numpy().tobytes()).hexdigest()
