"""Time the cache against what decodes every film each time.

    python tests/benchmarks/cache.py FILMS [--json PATH] [--cache-dir FOLDER] [--rounds N] [--warm-films N]

FILMS holds class folders, as data=folder takes them. Two promises, each per core, in one process without workers:

- warm: an epoch of batches out of the cache is at least 10 times as fast as torchvision's ImageFolder, whose loader is
  PIL, at the same size and batch;
- cold: the manifest's check that fills the cache takes at most 1.3 times as long as one plain decode of all films, by
  PIL to gray, read in the same order with as many threads. (The check without the cache is shown as well.)

All are measured in turn, so that other jobs on the machine hit all of them; the figures are medians.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from legradnet.data.cache import CacheSettings
from legradnet.data.cached import CachedFilms
from legradnet.data.dataset import KneeDataset, collate
from legradnet.data.manifest import Manifest, load_manifest
from legradnet.data.settings import FilmSettings

SIDE, BATCH, WARM, COLD = 224, 16, 10.0, 1.3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def decoded(path: Path) -> int:
    return int(np.asarray(Image.open(path).convert("L")).shape[0])


def epoch(loader: DataLoader) -> None:
    for _ in loader:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path, help="films in {0..4}/, or in {train,val,test}/{0..4}/")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--cache-dir", type=Path, help="where the cache is built, in a temporary folder")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--warm-films", type=int, default=2000, help="films an epoch, drawn at random")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # per core

    if arguments.cache_dir:
        arguments.cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=arguments.cache_dir) as temporary:
        cache_dir = Path(temporary) / "cache"
        settings = CacheSettings(SIDE, "pad", cache_dir)

        def check(cache: CacheSettings | None) -> Manifest:
            return load_manifest(arguments.films, num_classes=5, workers=1, on_bad_image="skip", cache=cache)

        manifest = check(settings)
        table, cached = manifest.table, manifest.cached
        assert isinstance(cached, CachedFilms)
        assert cached.count == len(table)
        paths = [manifest.root / name for name in table["filename"]]
        chosen = np.random.default_rng(0).permutation(len(table))[: arguments.warm_films].tolist()
        of_cache = DataLoader(
            KneeDataset(table.iloc[chosen], manifest.root, FilmSettings(image_size=SIDE), cached=cached),
            batch_size=BATCH,
            collate_fn=collate,
        )
        folder = arguments.films / "train" if (arguments.films / "train").is_dir() else arguments.films
        images = ImageFolder(folder, v2.Compose([v2.Resize((SIDE, SIDE)), v2.PILToTensor()]))
        shown = np.random.default_rng(0).permutation(len(images))[: arguments.warm_films].tolist()
        of_folder = DataLoader(Subset(images, shown), batch_size=BATCH)

        def plain() -> None:
            with ThreadPool(1) as pool:
                assert all(pool.imap(decoded, paths, chunksize=32))

        def cold() -> None:
            shutil.rmtree(cache_dir)
            check(settings)

        works: dict[str, tuple[Callable[[], object], int]] = {
            "ImageFolder + PIL": (lambda: epoch(of_folder), len(shown)),
            "warm cache": (lambda: epoch(of_cache), len(chosen)),
            "plain decode": (plain, len(paths)),
            "check without cache": (lambda: check(None), len(paths)),
            "cold check": (cold, len(paths)),
            "warm check": (lambda: check(settings), len(paths)),
        }
        times: dict[str, list[float]] = {name: [] for name in works}
        for turn in range(arguments.rounds + 1):
            for name, (work, films) in works.items():
                spent = 1e6 * seconds(work) / films
                if turn:  # the first one warms up
                    times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    load = os.getloadavg()[0]
    print(f"{len(paths)} films, {SIDE} px, batch {BATCH}, one core, load {load:.1f}")
    for name, value in medians.items():
        print(f"{name:20}{value:>9.1f} us a film{1e6 / value:>12,.0f} films/s")
    warm = statistics.median(a / b for a, b in zip(times["ImageFolder + PIL"], times["warm cache"], strict=True))
    slow = statistics.median(a / b for a, b in zip(times["cold check"], times["plain decode"], strict=True))
    print(f"warm {warm:.1f} x ImageFolder, promised at least {WARM:.0f}: {'kept' if warm >= WARM else 'BROKEN'}")
    print(f"cold {slow:.2f} x a plain decode, promised at most {COLD}: {'kept' if slow <= COLD else 'BROKEN'}")
    if arguments.json:
        figures = {"films": len(paths), "side": SIDE, "batch": BATCH, "load": load}
        figures |= {"microseconds": medians, "warm_ratio": warm, "cold_ratio": slow}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    raise SystemExit(warm < WARM or slow > COLD)


if __name__ == "__main__":
    main()
