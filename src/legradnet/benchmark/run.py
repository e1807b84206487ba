"""One benchmark: every backbone alone, the loader, the whole ensemble as advised; a table and `benchmark.json`."""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Column, Table

from legradnet.benchmark.advice import advise_batch, advise_precision, advise_workers, overrides
from legradnet.benchmark.archive import archive_speeds
from legradnet.benchmark.loading import loading_rates
from legradnet.benchmark.settings import PRECISIONS, BenchmarkSettings
from legradnet.benchmark.speed import Request, Speed, free_memory, measure
from legradnet.claims import claimed
from legradnet.device import check_compiler, choose_device, choose_precision, processor
from legradnet.files import write_text
from legradnet.machine import cores
from legradnet.network.backbones import network_settings
from legradnet.run_folder import RunFolder, versions
from legradnet.settings import checked

log = logging.getLogger(__name__)


def benchmark(config: Mapping[str, Any], run_folder: str | Path) -> dict[str, Any]:
    """Measure as `conf/benchmark.yaml` composes it; print a table, and write `benchmark.json` into the run folder.

    Returns:
        What is in `benchmark.json`.

    Raises:
        UserError: A mistake in the config or the films; a folder that is another run's or can't be written.
    """
    settings = checked(BenchmarkSettings, config)
    with claimed(Path(run_folder)):
        folder = RunFolder(Path(run_folder))
        folder.check_other_runs(folder.last, folder.best, folder.benchmark)
        if settings.archive is not None:
            return _archive(settings, settings.archive, folder)
        return _benchmark(settings, folder)


def _archive(settings: BenchmarkSettings, archive: float, folder: RunFolder) -> dict[str, Any]:
    speeds = archive_speeds(settings, archive)
    machine = {"processor": processor(choose_device(settings.device)), "cores": cores(), **versions()}
    result = {"machine": machine, "archive": archive, "grading": [asdict(speed) for speed in speeds]}
    write_text(folder.benchmark, json.dumps(result, indent=2) + "\n", shared=True)
    print(f"{archive:,.0f} films, by {machine['processor']}:", *(speed.words for speed in speeds), sep="\n")
    print(folder.benchmark)
    return result


def _benchmark(settings: BenchmarkSettings, folder: RunFolder) -> dict[str, Any]:
    device = choose_device(settings.device)
    native = choose_precision("cpu" if device.type == "cpu" else "gpu") == "bf16-mixed"
    precisions = settings.precisions or PRECISIONS[: 1 + native]
    workers = settings.workers or [0, *(2**k for k in range(4) if 2**k <= cores())]
    # what training would tell, before the first measurement
    for backbone in settings.backbone.values():
        network_settings(backbone.timm_name)
    settings.gating.build(len(settings.backbone), settings.model.feature_dim)
    if settings.compile:
        check_compiler(device.type)

    loading = loading_rates(settings.data, settings.model.num_classes, workers, settings.seconds)
    asked = Request(settings, {}, "f32", settings.data.batch_size, device=str(device), threads=torch.get_num_threads())
    alone: dict[str, dict[str, Speed]] = {}
    for key, backbone in settings.backbone.items():
        only = {key: backbone.model_copy(update={"precision": None})}
        for precision in precisions:
            log.info("Measuring %s in %s", key, precision)
            speed = measure(replace(asked, backbone=only, precision=precision))
            alone.setdefault(key, {})[precision] = speed

    trainer_precision, backbone_precision = advise_precision(alone)
    advised = replace(
        asked,
        backbone={
            key: backbone.model_copy(update={"precision": backbone_precision[key]})
            for key, backbone in settings.backbone.items()
        },
        precision="bf16" if trainer_precision == "bf16-mixed" else "f32",
    )
    together = next(iter(alone.values())).get(advised.precision) if len(alone) == 1 else None
    if together is None:
        log.info("Measuring %s together, %s", ", ".join(alone), trainer_precision)
        together = measure(advised)
    compiled = None
    if settings.compile:
        log.info("Measuring the same compiled")
        compiled = measure(replace(advised, compiled=True))
    compile_pays = bool(compiled and compiled.train and together.train and compiled.train >= 1.05 * together.train)
    training = compiled if compiled and compile_pays else together
    batch = advise_batch(asked.batch_size, training.largest_batch)
    reading = advise_workers(loading, training.train)
    words = overrides(trainer_precision, backbone_precision, batch, reading, compile_pays) if batch else []
    result = {
        "machine": {"processor": processor(device), "cores": cores(), "free_memory": free_memory(), **versions()},
        "device": str(device),
        "bf16_hardware": native,
        "batch_size": asked.batch_size,
        "image_size": settings.data.image_size,
        "backbones": {key: {name: asdict(speed) for name, speed in by.items()} for key, by in alone.items()},
        "ensemble": asdict(together),
        "compiled": asdict(compiled) if compiled else None,
        "loading": {str(count): rate for count, rate in loading.items()},
        "advice": words,
    }
    write_text(folder.benchmark, json.dumps(result, indent=2) + "\n", shared=True)
    rows = [(key, name, speed) for key, by in alone.items() for name, speed in by.items()]
    rows.append(("together", trainer_precision, together))
    if compiled:
        rows.append(("compiled", trainer_precision, compiled))
    _show(rows, result, settings)
    print(folder.benchmark)
    return result


def _show(rows: list[tuple[str, str, Speed]], result: Mapping[str, Any], settings: BenchmarkSettings) -> None:
    machine, size = result["machine"], result["batch_size"]
    title = f"{machine['processor']}, {machine['threads']} threads, {size} films of {result['image_size']} px"
    figures = "train, films/s", "grade, films/s", "memory, MB", "MB a film", "largest batch"
    table = Table("network", "precision", *(Column(name, justify="right") for name in figures), title=title)
    for key, precision, speed in rows:
        if speed.problem:
            table.add_row(key, precision, speed.problem)
            continue
        at = f" (batch {speed.measured_at})" if speed.measured_at else ""
        films = f"{speed.train:.1f}{at}", f"{speed.grade:.1f}{at}"
        memory = _megabytes(speed.memory), _megabytes(speed.per_film)
        table.add_row(key, precision, *films, *memory, _bounded(speed.largest_batch, settings.largest_batch))
    console = Console(width=None if Console().is_terminal else 110)
    console.print(table)
    source = "generated PNG films" if settings.data.source == "synthetic" else settings.data.dataset_path
    rates = ", ".join(f"{workers}: {rate:.0f}" for workers, rate in result["loading"].items())
    print(f"Reading {source}, films/s by the number of processes: {rates}")
    if not result["bf16_hardware"]:
        print("No bf16 hardware here: bfloat16 would be emulated, and is measured only with 'precisions=[f32,bf16]'.")
    if result["advice"]:
        print("Advice for legradnet-train:", " ".join(result["advice"]))
    else:
        print("No advice: not even one film fits into memory; choose fewer or smaller backbones.")


def _megabytes(size: int | None) -> str:
    return "" if size is None else f"{size / 2**20:.0f}"


def _bounded(size: int | None, bound: int) -> str:
    return "" if size is None else f"{size} or more" if 2 * size > bound else str(size)
