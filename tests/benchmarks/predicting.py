"""Time grading of film files against the network alone: what reading adds, and that memory is flat.

    python tests/benchmarks/predicting.py [--backbone lite0 | five | tiny] [--film crop | auto] [--films N]
                                          [--rounds N] [--json PATH]

Both run in turn in one process, so that other jobs on the machine hit both; the figures are medians. Weights are
random; films are generated. With `--film auto` each is also asked whether it is cut close, as `legradnet-predict` does.
`busy` is about the most that could be had here: what one thread takes to prepare the films one after the other, spread
over all cores, and the network's own time; as if every core were busy all along.
"""

import argparse
import json
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from omegaconf import OmegaConf

from legradnet.data.synthetic import write_knees
from legradnet.files import written_whole
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.whole_films import forget_looks, prepare_knees
from legradnet.machine import cores
from legradnet.training.module import GradingModule

CONF = Path(__file__).parents[2] / "conf" / "backbone"
FIVE = ("densenet", "swin", "convnext", "vit", "xception")
BATCH, SIDE = 16, 224
LIMITS = {"lite0": 1.25, "five": 1.10, "tiny": 1.25}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def untrained_checkpoint(backbone: str, folder: Path) -> Path:
    """A checkpoint as training leaves it, at random weights."""
    keys = [backbone] if backbone == "lite0" else FIVE
    chosen = {key: dict(OmegaConf.load(CONF / f"{key}.yaml")[key]) for key in keys}
    if backbone == "tiny":
        chosen = {key: {"timm_name": f"tiny_{key}"} for key in FIVE}
    module = GradingModule(
        backbone=chosen,
        gating={"name": "mha"},
        model={"feature_dim": 256, "num_classes": 5},
        loss={"name": "cross_entropy"},
        films={"image_size": SIDE, "fit": "pad", "mirror_left": False},
        run={"batch_size": BATCH},
    )
    path = folder / "best.ckpt"
    with written_whole(path) as file:
        torch.save({"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}, file)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", choices=LIMITS, default="lite0")
    parser.add_argument("--films", type=int, default=400, help="films a measurement")
    parser.add_argument("--film", choices=("crop", "auto"), default="crop", help="what is asked of each film")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        grader = Grader.from_checkpoint(untrained_checkpoint(arguments.backbone, folder))
        write_knees(folder / "films", arguments.films, size=512)
        requests = [Request(film) for film in sorted((folder / "films").glob("*.png"))]
        batch = np.random.default_rng(0).integers(0, 256, (BATCH, 1, SIDE, SIDE), np.uint8)

        def network_alone() -> None:
            for _ in range(-(-arguments.films // BATCH)):
                grader.networks[0](batch)

        def prepared_by_one() -> None:
            forget_looks()
            for request in requests:
                prepare_knees(grader.networks, request, arguments.film)

        def from_files() -> None:
            forget_looks()
            for _ in grader.stream_knees(iter(requests), film=arguments.film):
                pass

        core_seconds = min(seconds(prepared_by_one) for _ in range(2))  # first: no other process looks at films yet
        work = {"network alone": network_alone, "from files": from_files}
        times: dict[str, list[float]] = {name: [] for name in work}
        peaks: list[int] = []
        for turn in range(arguments.rounds + 1):
            for name, run in work.items():
                spent = seconds(run)
                if turn:  # the first warms up
                    times[name].append(spent)
            peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    medians = {name: statistics.median(values) for name, values in times.items()}
    medians["busy"] = medians["network alone"] + core_seconds / cores()
    ratio, limit = medians["from files"] / medians["network alone"], LIMITS[arguments.backbone]
    grown = (peaks[-1] - peaks[0]) / 1024
    load = os.getloadavg()[0]

    print(f"{arguments.backbone}, {arguments.films} films of 512 px, film={arguments.film}, batch {BATCH}, "
          f"{torch.get_num_threads()} threads, torch {torch.__version__}, load {load:.1f}")  # fmt: skip
    for name, value in medians.items():
        print(f"{name:16}{arguments.films / value:>8.1f} films/s")
    least = medians["busy"] / medians["network alone"]
    print(f"a film takes {1000 * core_seconds / arguments.films:.1f} ms of a core before the network sees it: "
          f"with {cores()} cores busy all along the ratio is {least:.2f}")  # fmt: skip
    print(f"ratio {ratio:.2f}, promised at most {limit}: {'kept' if ratio <= limit else 'BROKEN'}")
    print(f"peak memory {peaks[-1] / 1024:.0f} MB, {grown:.0f} MB of it after the first {arguments.films} films")
    if arguments.json:
        figures = {
            "backbone": arguments.backbone,
            "films": arguments.films,
            "film": arguments.film,
            "load": load,
            "grown_mb": grown,
        }
        arguments.json.write_text(json.dumps(figures | {"seconds": medians, "ratio": ratio}, indent=2) + "\n")
    raise SystemExit(ratio > limit)


if __name__ == "__main__":
    main()
