"""Time 30 epochs on known features of frozen trunks, and the same steps in a plain loop, which has nothing else to do.

    python tests/benchmarks/known_features.py FILMS CSV OUTPUT [--width 256] [--epochs 30]

`legradnet-train` fits a gate over frozen `lite0` and `lite1` on the films of CSV, batch 128; what it does before its
first epoch, as seeing the films once, is left out. The plain loop takes as many steps of that network, its loss,
gradient clipping and fused AdamW on features at random, without batches, validation, checkpoints and a log. OUTPUT is a
new folder, or one whose cache is there. Promised: 10 s at width 256, 60 s at 1024; what the loop takes is the least.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import torch

from legradnet.checkpoint import read_checkpoint
from legradnet.memory import keep_freed_memory
from legradnet.training.module import GradingModule

BATCH, PROMISED = 128, {256: 10.0, 1024: 60.0}


def trained(arguments):
    """Seconds of the epochs, by those after the first, and the best checkpoint."""
    run = arguments.output / f"run_{arguments.width}_{time.time_ns()}"
    words = [
        "backbone=[lite0,lite1]", "backbone.lite0.frozen=true", "backbone.lite1.frozen=true", "model.pretrained=false",
        "data=csv", f"data.dataset_path={arguments.films}", f"data.csv_path={arguments.csv}", "gating=mha",
        f"data.cache_dir={arguments.output}/cache", f"data.batch_size={BATCH}", "data.image_size=256", "augment=none",
        f"model.feature_dim={arguments.width}", f"trainer.max_epochs={arguments.epochs}", "calibration=none",
        "callbacks.early_stopping_patience=null", "test=false", f"hydra.run.dir={run}",
    ]  # fmt: skip
    command = [Path(sys.executable).with_name("legradnet-train"), *words]
    ends = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if line.startswith("epoch "):
                ends.append(time.perf_counter())
    assert process.returncode == 0, command
    return (ends[-1] - ends[0]) / (len(ends) - 1) * arguments.epochs, run / "checkpoints/best.ckpt"


def plain(checkpoint, steps):
    """Seconds of so many steps."""
    saved = read_checkpoint(checkpoint)
    module = GradingModule(**saved["hyper_parameters"]).train()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, 1e-4, fused=True)
    width = sum(backbone.trunk.num_features for backbone in module.ensemble.backbones.values())
    features, labels = torch.randn(BATCH, width).abs(), torch.randint(5, (BATCH,))

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            loss = module.loss(module.ensemble(features).logits, labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    for _ in range(20):
        step()
    begun = time.perf_counter()
    for _ in range(steps):
        step()
    return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("csv", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--width", type=int, choices=PROMISED, default=256)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.epochs < 2:
        parser.error("the first epoch is not counted: at least two are needed")
    keep_freed_memory()
    ours, checkpoint = trained(arguments)
    metrics = (checkpoint.parents[1] / "metrics.csv").read_text().splitlines()
    steps = round(float(dict(zip(metrics[0].split(","), metrics[-1].split(","), strict=True))["step"]))
    least = plain(checkpoint, steps)
    limit = PROMISED[arguments.width] * arguments.epochs / 30
    threads = torch.get_num_threads()
    print(f"width {arguments.width}, {arguments.epochs} epochs, {steps} steps of {BATCH}, {threads} threads")
    print(f"legradnet-train {ours:.1f} s, a plain loop {least:.1f} s; promised {limit:.0f} s: "
          f"{'kept' if ours <= limit else 'BROKEN'}")  # fmt: skip
    raise SystemExit(ours > limit)


if __name__ == "__main__":
    main()
