"""What this machine is good for: its device and its precision."""

import platform
from pathlib import Path

import torch

from legradnet.errors import UserError


def devices() -> list[str]:
    """Names of the devices here, `cpu`, `cuda:0`, ..., `mps`."""
    names = [f"cuda:{number}" for number in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)]
    return ["cpu", *names, *(["mps"] if torch.backends.mps.is_available() else [])]


def choose_device(name: str | torch.device = "auto") -> torch.device:
    """`auto`: CUDA, else MPS, else the CPU; or one of `devices`, of which `cuda` is the first of its kind.

    Raises:
        UserError: There is no such device here, or it can't be used.
    """
    name = str(name)
    there = devices()
    kinds = [kind for kind in ("cuda", "mps", "cpu") if any(device.split(":")[0] == kind for device in there)]
    if name not in ("auto", *kinds, *there):
        raise UserError(f"device={name}: there is no such device here; choose one of {', '.join(['auto', *there])}.")
    chosen = kinds[0] if name == "auto" else name
    try:
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={chosen} can't be used here: {str(error).splitlines()[0]}") from error
    return torch.device(chosen)


def check_trainer_devices(accelerator: str, wanted: int | str | list[int]) -> None:
    """Check what Lightning's Trainer is asked for, `trainer.accelerator` and `trainer.devices`, in our words.

    Raises:
        UserError: There are no such devices here, or the words mean none.
    """
    there = devices()
    kinds = {"auto": ("cuda", "mps", "cpu"), "gpu": ("cuda", "mps")} | {
        kind: (kind,) for kind in ("cuda", "mps", "cpu")
    }
    if accelerator not in kinds:
        raise UserError(f"trainer.accelerator={accelerator} must be one of {', '.join(kinds)}.")
    of_kinds = ([device for device in there if device.split(":")[0] == kind] for kind in kinds[accelerator])
    usable = next((some for some in of_kinds if some), [])
    here = f"here {'is' if len(there) == 1 else 'are'} {', '.join(there)}"
    if not usable:
        raise UserError(f"trainer.accelerator={accelerator}: there is no such device, {here}. trainer=cpu needs none.")
    on_cpu = usable == ["cpu"]
    if wanted == "auto" or (wanted in (-1, "-1") and not on_cpu):
        return
    try:
        numbers = _numbers(wanted)
    except ValueError:
        words = "a number of processes" if on_cpu else "a number, a list of their numbers, -1 for all"
        raise UserError(f"trainer.devices={wanted} must be {words}, or auto.") from None
    if accelerator == "cpu" and isinstance(numbers, range):
        return  # processes, of which the CPU bears any number
    if not 0 <= min(numbers) <= max(numbers) < len(usable):
        more = " trainer.accelerator=cpu trains in several processes on it." if on_cpu else ""
        raise UserError(f"trainer.devices={wanted}: there are no such devices, {here}.{more}")


def _numbers(devices: int | str | list[int]) -> range | list[int]:
    """The devices that `trainer.devices` counts, or names by their numbers; ValueError: none."""
    if isinstance(devices, str):
        listed = [int(word) for word in devices.split(",") if word.strip()]
        devices = listed if "," in devices or not listed else listed[0]
    numbers = range(devices) if isinstance(devices, int) else devices
    if not numbers:
        raise ValueError
    return numbers


def choose_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware multiplies bfloat16 natively, else 32-true. From what it is, not from timings."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        native = False
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def processor(device: torch.device) -> str:
    """What `device` is called by its maker."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    models = cpuinfo.read_text().partition("model name")[2].partition("\n")[0] if cpuinfo.is_file() else ""
    return models.lstrip("\t :") or platform.processor() or platform.machine()


def check_compiler(accelerator: str) -> None:
    """Compile a line with torch, as `compile=true` will compile networks.

    Raises:
        UserError: It can't be done here.
    """
    device = "cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
    torch.compiler.reset()
    try:
        torch.compile(torch.sin)(torch.ones(2, device=device))
    except Exception as error:  # of many kinds, from a missing compiler to an unsupported Python
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise UserError(
            f"compile=true can't be done here: {lines[0]} torch needs a C++ compiler (g++ or clang++, or the one that "
            "the variable CXX names) and Python's header files, on a GPU also Triton; compile=false needs none."
        ) from error
