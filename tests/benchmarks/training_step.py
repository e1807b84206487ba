"""Time our training step against a plain hand-written timm loop of equal precision.

    python tests/benchmarks/training_step.py [--backbones KEY ...] [--batch N] [--rounds N] [--threads N] [--json PATH]

Promised: a step of one backbone at most 1.05 times the plain loop's, a step of the ensemble at most 1.05 times the sum
of its backbones' steps, peak memory at most 1.1 times the plain loop's, and, where the hardware multiplies bfloat16,
films at least twice as fast as in a plain loop in float32.

Every step has the same uint8 films, normalisation, gradient clipping and fused AdamW; `step` is `GradingModule` in a
bare loop, `trainer` the time from batch to batch in Lightning's Trainer as `legradnet-train` builds it. Steps are
measured in turn in one process, so that other jobs on the machine hit all of them; figures are medians, and ratios are
medians of each turn's ratio. Memory is the peak of a process of its own for each, without what it held before the
network was built. Networks of conf/backbone/tiny.yaml, to try this script itself, are `--backbones tiny_vit tiny_swin`:
so small that projection and gate cost as much as they do.
"""

import argparse
import json
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from lightning.pytorch import Callback
from omegaconf import OmegaConf

from legradnet.cli import config_folder
from legradnet.data.datamodule import Batch
from legradnet.device import choose_precision, processor
from legradnet.memory import keep_freed_memory
from legradnet.run_folder import RunFolder
from legradnet.training.run import build_module, build_trainer

FIVE = ("densenet", "swin", "convnext", "vit", "xception")
SIDE, STEP_LIMIT, ENSEMBLE_LIMIT, MEMORY_LIMIT, BF16_GAIN = 224, 1.05, 1.05, 1.1, 2.0
WARM_UP = 2


def config_of(keys, batch_size, precision):
    """The training config of these backbones, without augmentation, which has a benchmark of its own."""
    shipped = [key for key in keys if not key.startswith("tiny_")]
    tiny = [key.removeprefix("tiny_") for key in keys if key.startswith("tiny_")]
    overrides = [
        f"backbone=[{','.join([*shipped, *(['tiny'] if tiny else [])])}]",
        *(f"~backbone.{key}" for key in FIVE if tiny and key not in tiny),
        "augment=none",
        "trainer=cpu",
        "trainer.max_epochs=1000000",
        f"trainer.precision={precision}",
        f"data.batch_size={batch_size}",
    ]
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return OmegaConf.to_container(compose("train", overrides), resolve=True)


def batch_of(size):
    torch.manual_seed(0)
    films = torch.randint(0, 256, (size, 1, SIDE, SIDE), dtype=torch.uint8)
    return Batch(films, torch.randint(5, (size,)), torch.arange(size))


def plain_step(config, batch, precision):
    """What a reader of timm's documentation would write."""
    (settings,) = config["backbone"].values()
    model = timm.create_model(settings["timm_name"], num_classes=5).train().to(memory_format=torch.channels_last)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    side = model.pretrained_cfg["input_size"][-1]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05, fused=True)

    def step():
        films = batch.films.float() / 255
        if side != SIDE:
            films = F.interpolate(films, (side, side), mode="bilinear", antialias=True)
        films = ((films - mean) / std).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = F.cross_entropy(model(films).float(), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step


def module_step(config, batch, precision):
    module = build_module(config).train()
    optimizer = module.build_optimizer()
    module.log = lambda *_, **__: None  # there is no Trainer to log to
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
            loss = module.training_step(batch, 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


class InTurn(Callback):
    """After each of the Trainer's steps, time one of each of the others, and stop after `rounds`."""

    def __init__(self, others, rounds):
        self.others = others
        self.rounds = rounds
        self.times = {name: [] for name in ("trainer", *others)}
        self.turn = 0
        self.since = None

    def on_train_batch_end(self, trainer, *_):
        now = time.perf_counter()
        spent = {"trainer": now - self.since if self.since else 0.0}
        spent |= {name: seconds(step) for name, step in self.others.items()}
        self.turn += 1
        if self.turn > WARM_UP:
            for name, value in spent.items():
                self.times[name].append(value)
        if self.turn >= WARM_UP + self.rounds:
            trainer.should_stop = True
        self.since = time.perf_counter()


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(config, batch, precision, others, rounds):
    """Times of the Trainer's step and of the others', one a round."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning")
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, RunFolder(Path(folder)))
    clock = InTurn(others, rounds)
    trainer.callbacks = [clock]  # nothing is written
    endless = torch.utils.data.DataLoader(_Same(batch, 10**6), batch_size=None)
    trainer.fit(build_module(config).train(), train_dataloaders=endless)
    return clock.times


class _Same(torch.utils.data.Dataset):
    def __init__(self, batch, count):
        self.batch = batch
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return self.batch


def peak(name, config, batch_size, precision, threads):
    """(bytes of a process that trains some steps above what it held before the network was built, its whole peak)."""
    torch.set_num_threads(threads)
    batch = batch_of(batch_size)
    before = status("VmRSS")
    if name == "plain":
        step = plain_step(config, batch, precision)
        for _ in range(WARM_UP + 2):
            step()
    else:
        keep_freed_memory()
        in_turn(config, batch, precision, {}, rounds=2)
    return status("VmHWM") - before, status("VmHWM")


def status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def peaks(keys, batch_size, precision, threads):
    found = {}
    for name in ("plain", "ours"):
        config = config_of(keys, batch_size, precision)
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            found[name] = pool.submit(peak, name, config, batch_size, precision, threads).result()
    return found


def ratio(times, name, base):
    return statistics.median(ours / theirs for ours, theirs in zip(times[name], times[base], strict=True))


def verdict(value, limit, *, at_least=False):
    kept = value >= limit if at_least else value <= limit
    return f"{value:.3f}, promised at {'least' if at_least else 'most'} {limit}: {'kept' if kept else 'BROKEN'}", kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--backbones", nargs="+", default=FIVE, help="keys of conf/backbone/, tiny_<key> for small ones"
    )
    parser.add_argument("--batch", type=int, default=8, help="films a batch")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch")
    parser.add_argument("--no-memory", action="store_true", help="leave the peaks of memory out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    native = choose_precision("cpu") == "bf16-mixed"  # emulated bfloat16 is slow and proves nothing
    batch, rows, kept = batch_of(arguments.batch), [], []
    load = os.getloadavg()[0]
    machine = processor(torch.device("cpu"))
    print(f"{machine}, batch {arguments.batch}, {SIDE} px, {arguments.threads} threads, torch {torch.__version__}, "
          f"load {load:.1f}")  # fmt: skip
    print(f"{'':22}{'plain':>10}{'step':>10}{'trainer':>10}   step/plain  trainer/plain")
    for precision in ("32-true", "bf16-mixed")[: 1 + native]:
        for key in arguments.backbones:
            config = config_of([key], arguments.batch, precision)
            steps = {
                "plain": plain_step(config, batch, precision),
                "step": module_step(config, batch, precision),
            }
            times = in_turn(config, batch, precision, steps, arguments.rounds)
            row = {"backbone": key, "precision": precision}
            row |= {name: statistics.median(values) for name, values in times.items()}
            row |= {"step_ratio": ratio(times, "step", "plain"), "trainer_ratio": ratio(times, "trainer", "plain")}
            if not arguments.no_memory:
                row["memory"] = peaks([key], arguments.batch, precision, arguments.threads)
                row["memory_ratio"] = row["memory"]["ours"][0] / row["memory"]["plain"][0]
            rows.append(row)
            times_told = "".join(f"{1000 * row[name]:>7.0f} ms" for name in ("plain", "step", "trainer"))
            print(f"{key + ' ' + precision:22}{times_told}{row['step_ratio']:>13.3f}{row['trainer_ratio']:>15.3f}")
    ensembles = [ensemble(arguments, batch, precision) for precision in ("32-true", "bf16-mixed")[: 1 + native]]

    print()
    for row in rows:
        told, good = verdict(row["trainer_ratio"], STEP_LIMIT)
        kept.append(good)
        print(f"{row['backbone']} {row['precision']}: step in the Trainer / plain step {told}")
        if "memory" in row:
            told, good = verdict(row["memory_ratio"], MEMORY_LIMIT)
            kept.append(good)
            sizes = {name: [f"{size / 2**20:.0f}" for size in both] for name, both in row["memory"].items()}
            whole = ", ".join(f"{name} {own} MB (whole process {all_} MB)" for name, (own, all_) in sizes.items())
            print(f"{row['backbone']} {row['precision']}: peak memory / plain {told}; {whole}")
    for found in ensembles:
        if found:
            told, good = verdict(found["ratio"], ENSEMBLE_LIMIT)
            kept.append(good)
            print(f"ensemble {found['precision']}: step / sum of its backbones' steps {told}")
    gain = None
    if native:
        sums = {p: sum(row["plain" if p == "32-true" else "trainer"] for row in rows if row["precision"] == p)
                for p in ("32-true", "bf16-mixed")}  # fmt: skip
        gain = sums["32-true"] / sums["bf16-mixed"]
        told, good = verdict(gain, BF16_GAIN, at_least=True)
        kept.append(good)
        print(f"films a second in bf16 / plain float32 {told}")
    else:
        print(f"no bf16 hardware here: the gain of at least {BF16_GAIN} over float32 is not measured")
    if arguments.json:
        figures = {"processor": machine, "batch": arguments.batch, "side": SIDE, "threads": arguments.threads}
        figures |= {"torch": torch.__version__, "load": load, "bf16_hardware": native, "rounds": arguments.rounds}
        figures |= {"steps": rows, "ensembles": [found for found in ensembles if found], "bf16_gain": gain}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    raise SystemExit(not all(kept))


def ensemble(arguments, batch, precision):
    """The Trainer's step of all backbones together against the sum of their steps alone, in turn."""
    if len(arguments.backbones) < 2:
        return None
    alone = {
        key: module_step(config_of([key], arguments.batch, precision), batch, precision) for key in arguments.backbones
    }
    config = config_of(arguments.backbones, arguments.batch, precision)
    times = in_turn(config, batch, precision, alone, arguments.rounds)
    times["sum"] = [sum(turn) for turn in zip(*(times[key] for key in alone), strict=True)]
    return {
        "precision": precision,
        **{name: statistics.median(values) for name, values in times.items()},
        "ratio": ratio(times, "trainer", "sum"),
    }


if __name__ == "__main__":
    main()
