"""Time a gradcam of the full five against one forward and backward pass of them: its promise is at most 1.3 times.

    python tests/benchmarks/gradcam.py [--json PATH] [--rounds N] [--tiny]

Both run in turn in one process, so that other jobs on the machine hit both; the figures are medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf

from legradnet.explain import explain
from legradnet.memory import keep_freed_memory
from legradnet.network.ensemble import KneeEnsemble
from legradnet.network.losses import CrossEntropy

CONF = Path(__file__).parents[2] / "conf" / "backbone"
FIVE = ("densenet", "swin", "convnext", "vit", "xception")
BATCH, SIDE, THREADS, LIMIT = 4, 224, 2, 1.3


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=5, help="measurements of each")
    parser.add_argument("--tiny", action="store_true", help="the small five instead of the full")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    torch.manual_seed(0)
    backbone = {key: dict(OmegaConf.load(CONF / f"{key}.yaml")[key]) for key in FIVE}
    if arguments.tiny:
        backbone = {key: {"timm_name": f"tiny_{key}"} for key in FIVE}
    loss = CrossEntropy(5)
    ensemble = KneeEnsemble(backbone, {"name": "mha"}, loss.num_outputs).eval()
    films = torch.randint(0, 256, (BATCH, 1, SIDE, SIDE), dtype=torch.uint8)
    grades = torch.randint(5, (BATCH,))

    def forward_and_backward() -> None:
        loss(ensemble(films).logits, grades).backward()
        ensemble.zero_grad(set_to_none=True)

    work = {"forward and backward": forward_and_backward, "gradcam": lambda: explain(ensemble, loss, films)}
    times: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(arguments.rounds + 1):
        for name, run in work.items():
            spent = milliseconds(run)
            if turn:  # the first warms up
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ratio = medians["gradcam"] / medians["forward and backward"]
    load = os.getloadavg()[0]

    print(f"batch {BATCH}, {SIDE} px, {THREADS} threads, torch {torch.__version__}, load {load:.1f}")
    for name, value in medians.items():
        print(f"{name:22}{value:>8.0f} ms")
    print(f"ratio {ratio:.2f}, promised at most {LIMIT}: {'kept' if ratio <= LIMIT else 'BROKEN'}")
    if arguments.json:
        figures = {"batch": BATCH, "side": SIDE, "threads": THREADS, "torch": torch.__version__, "load": load}
        arguments.json.write_text(json.dumps(figures | {"milliseconds": medians, "ratio": ratio}, indent=2) + "\n")
    raise SystemExit(ratio > LIMIT)


if __name__ == "__main__":
    main()
