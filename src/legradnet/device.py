"""What this machine is good for: its device and its precision."""

import platform
from pathlib import Path

import torch

from legradnet.errors import UserError


def choose_device(name: str = "auto") -> torch.device:
    """`auto`: CUDA, else MPS, else the CPU; or a device by its name in torch.

    Raises:
        UserError: torch has no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device={name} can't be used here: {str(error).splitlines()[0]}") from error
    return torch.device(name)


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
