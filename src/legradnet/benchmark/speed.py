"""Rate and memory of one network, measured in a process of its own, which may run out of memory alone."""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from legradnet.benchmark.settings import BenchmarkSettings
from legradnet.memory import keep_freed_memory
from legradnet.network.backbones import BackboneSettings
from legradnet.training.lone_film import let_norms_rest
from legradnet.training.module import GradingModule
from legradnet.training.optimizer import OptimizerSettings

_LEARNING = OptimizerSettings(learning_rate=1e-4)
_SPARE = 0.85  # share of the free memory that a batch may take: the loader and the system need some too


@dataclass(frozen=True)
class Request:
    """What to measure.

    Args:
        settings: Of the benchmark: gate, shape, films, augmentation, and how long to measure.
        backbone: Config group `backbone`, at random weights.
        precision: f32 or bf16.
        batch_size: Films a batch.
        device: A device by its name in torch.
        threads: Threads of the CPU.
        compiled: Compile the trunks.
    """

    settings: BenchmarkSettings
    backbone: Mapping[str, BackboneSettings]
    precision: str
    batch_size: int
    device: str
    threads: int
    compiled: bool = False


@dataclass(frozen=True)
class Speed:
    """What was measured. None: it couldn't be.

    Args:
        train: Films a second in a whole training step: augmentation, forward, backward, clipping, optimiser.
        grade: Films a second in grading (eval mode, no gradients).
        memory: Peak of memory in training at `batch_size`, bytes: the process on a CPU, the device's own on a GPU.
        per_film: What another film in a training batch takes, bytes.
        largest_batch: The largest batch to train with, of 1, 2, 4, ...; 0 if not even one film fits.
        problem: Why there are no figures.
        measured_at: Films of the batches that were measured, where those that were asked for do not fit.
    """

    train: float | None = None
    grade: float | None = None
    memory: int | None = None
    per_film: int | None = None
    largest_batch: int | None = None
    problem: str | None = None
    measured_at: int | None = None


def measure(request: Request) -> Speed:
    """Measure in a new process; if it dies there of too little memory, half the batch is tried, down to one film."""
    context = multiprocessing.get_context("spawn")  # a fork would take this process's memory along
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(_measure, request).result()
        except BrokenProcessPool:
            if request.batch_size == 1:
                return Speed(largest_batch=0, problem="the process died, probably of memory, at batch 1")
    half = request.batch_size // 2
    speed = measure(replace(request, batch_size=half))
    largest = None if speed.largest_batch is None else min(half, speed.largest_batch)
    return replace(speed, largest_batch=largest, measured_at=speed.measured_at or half)


def _measure(request: Request) -> Speed:
    torch.set_num_threads(request.threads)
    keep_freed_memory()
    torch.manual_seed(0)
    device = torch.device(request.device)
    settings = request.settings
    module = GradingModule(
        backbone={key: own.model_copy(update={"weights": None}) for key, own in request.backbone.items()},
        gating=settings.gating,
        model=settings.model.model_dump(),
        augment=settings.augment,
        optimizer=_LEARNING,
    ).to(device)
    if request.compiled:
        module.ensemble.compile_trunks()
    step, grade = _training_step(module, request, device), _grading(module, request, device)
    half = max(1, request.batch_size // 2)
    try:
        # small before large, so that each peak of memory is its own
        grading_rate = _rate(lambda: grade(request.batch_size), request.batch_size, settings.seconds, device)
        module.train()
        step(half)
        step(half)  # AdamW's averages are there from the first step on
        before = _peak_memory(device)
        training_rate = _rate(lambda: step(request.batch_size), request.batch_size, settings.seconds, device)
        after = _peak_memory(device)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError) and "memory" not in str(error):
            raise
        problem = f"out of memory at batch {request.batch_size}"
        return Speed(largest_batch=_try_largest(step, half, device), problem=problem)
    per_film = None
    if before is not None and after is not None and request.batch_size > half:
        per_film = max(0, after - before) // (request.batch_size - half)
    if device.type == "cuda":
        largest: int | None = _try_largest(step, settings.largest_batch, device)
    else:
        largest = _largest_that_fits(after, per_film, request)
    return Speed(training_rate, grading_rate, after, per_film, largest)


def _training_step(module: GradingModule, request: Request, device: torch.device) -> Callable[[int], None]:
    optimizer = module.build_optimizer()
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def step(batch_size: int) -> None:
        films, grades = _batch(batch_size, request, device)
        films = module.augment(films) if module.augment else films
        wake = let_norms_rest(module.ensemble) if batch_size == 1 else None
        with _autocast(request, device):
            loss = module.loss(module.ensemble(films).logits, grades)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        if wake:
            wake()

    return step


def _grading(module: GradingModule, request: Request, device: torch.device) -> Callable[[int], None]:
    def grade(batch_size: int) -> None:
        module.eval()
        with torch.inference_mode(), _autocast(request, device):
            module.ensemble(_batch(batch_size, request, device)[0]).logits.cpu()

    return grade


def _autocast(request: Request, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=request.precision == "bf16")


def _batch(batch_size: int, request: Request, device: torch.device) -> tuple[Tensor, Tensor]:
    side, classes = request.settings.data.image_size, request.settings.model.num_classes
    films = torch.randint(0, 256, (batch_size, 1, side, side), dtype=torch.uint8)
    return films.to(device), torch.randint(classes, (batch_size,)).to(device)


def _rate(work: Callable[[], None], films: int, seconds: float, device: torch.device) -> float:
    """Films a second by the median of the runs that fit into `seconds`, after one that warms up."""
    work()
    times: list[float] = []
    while not times or sum(times) < seconds:
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        times.append(time.perf_counter() - start)
    return films / statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _peak_memory(device: torch.device) -> int | None:
    """Highest memory so far, bytes: the device's, or this process's on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage: its peak is that of the process which started this one, if that was higher
        return _kilobytes(status, "VmHWM")
    try:
        import resource  # there is none on Windows
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def free_memory() -> int | None:
    """Bytes that this machine, or the container's limit, still gives; None where nothing tells."""
    sizes: list[int | None] = []
    meminfo, limit, used = (
        Path(name) for name in ("/proc/meminfo", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current")
    )
    if meminfo.is_file():
        sizes.append(_kilobytes(meminfo, "MemAvailable"))
    if limit.is_file() and used.is_file() and (most := limit.read_text().strip()).isdecimal():
        sizes.append(int(most) - int(used.read_text()))
    return min((size for size in sizes if size is not None), default=None)


def _kilobytes(file: Path, name: str) -> int | None:
    for line in file.read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return None


def _largest_that_fits(peak: int | None, per_film: int | None, request: Request) -> int | None:
    """Largest power of two up to the bound whose memory, by what a film takes, is there."""
    free = free_memory()
    if peak is None or not per_film or free is None:
        return None
    # what this process holds is not free any more, but will be when it is gone
    room = _SPARE * (free + (_kilobytes(Path("/proc/self/status"), "VmRSS") or 0))
    largest = 0
    size = 1
    while size <= request.settings.largest_batch and peak + (size - request.batch_size) * per_film <= room:
        largest, size = size, 2 * size
    return largest


def _try_largest(step: Callable[[int], None], bound: int, device: torch.device) -> int:
    """Train with 1, 2, 4, ... films until the memory is used up."""
    largest = 0
    size = 1
    while size <= bound:
        try:
            step(size)
            _wait(device)
        except torch.OutOfMemoryError:
            break
        largest, size = size, 2 * size
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return largest
