"""Time the augmentation against a training step of tf_efficientnet_lite0: its promise is at most a tenth.

    python tests/benchmarks/augmentation.py [--json PATH] [--rounds N]

Both run in turn in one process, so that other jobs on the machine hit both; the figures are medians.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from legradnet.data.augment import Augmentation, AugmentSettings
from legradnet.device import choose_precision
from legradnet.memory import keep_freed_memory

CONF = Path(__file__).parents[2] / "conf" / "augment"
BATCH, SIDE, THREADS, LIMIT = 32, 224, 2, 0.10


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def training_step(precision: str) -> Callable[[], None]:
    model = timm.create_model("tf_efficientnet_lite0", num_classes=5).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    films = torch.rand(BATCH, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
    grades = torch.randint(5, (BATCH,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = F.cross_entropy(model(films).float(), grades)
        loss.backward()
        optimizer.step()

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rounds", type=int, default=9, help="measurements of each")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    keep_freed_memory()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 1, SIDE, SIDE), dtype=torch.uint8)
    native = choose_precision("cpu") != "32-true"  # emulated bfloat16 is slow and proves nothing
    steps = {precision: training_step(precision) for precision in ("float32", "bfloat16")[: 1 + native]}
    augmentations = {
        file.stem: Augmentation(AugmentSettings(**OmegaConf.load(file))) for file in sorted(CONF.glob("*.yaml"))
    }

    times: dict[str, list[float]] = {name: [] for name in (*steps, *augmentations)}
    for turn in range(arguments.rounds + 2):
        for precision, step in steps.items():
            spent = {precision: milliseconds(step)}
            spent |= {name: milliseconds(lambda run=run: run(images)) for name, run in augmentations.items()}
            if turn >= 2:  # the first two warm up
                for name, value in spent.items():
                    times[name].append(value)
    medians = {name: statistics.median(values) for name, values in times.items()}
    load = os.getloadavg()[0]

    print(f"batch {BATCH}, {SIDE} px, {THREADS} threads, torch {torch.__version__}, load {load:.1f}")
    print(f"{'augment':12}{'ms':>8}" + "".join(f"{f'of {name} step':>20}" for name in steps))
    print(f"{'(the step)':12}{'':8}" + "".join(f"{medians[name]:>17.0f} ms" for name in steps))
    for name in augmentations:
        shares = "".join(f"{medians[name] / medians[precision]:>19.2%} " for precision in steps)
        print(f"{name:12}{medians[name]:>8.1f}{shares}")
    worst = max(medians[name] / medians[precision] for name in augmentations for precision in steps)
    print(f"largest share {worst:.2%}, promised at most {LIMIT:.0%}: {'kept' if worst <= LIMIT else 'BROKEN'}")
    if arguments.json:
        figures = {"batch": BATCH, "side": SIDE, "threads": THREADS, "torch": torch.__version__, "load": load}
        arguments.json.write_text(
            json.dumps(figures | {"milliseconds": medians, "largest_share": worst}, indent=2) + "\n"
        )
    raise SystemExit(worst > LIMIT)


if __name__ == "__main__":
    main()
