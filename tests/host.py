"""What a process has of its own that a package must leave alone."""

import ctypes
import logging
import os
import random
import signal
import sys
import warnings

import matplotlib
import numpy as np
import timm
import torch
from hydra.core.config_store import ConfigStore

LIBRARIES = ("captum.attr", "lightning.pytorch", "pandas", "pydicom", "scipy.stats", "torchmetrics", "optuna", "rich")


def state_of_the_process():
    """Everything here that training, importing or grading could change, by name."""
    return {
        "environment": dict(os.environ),
        "warnings": list(warnings.filters),
        "levels": {name: logging.getLogger(name).level for name in [*logging.root.manager.loggerDict, ""]},
        "handlers of loggers": {name: list(logging.getLogger(name).handlers) for name in ("", "lightning.pytorch")},
        "handlers of signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "random": [random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()],
        "torch": [
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.get_num_threads(),
            torch.get_float32_matmul_precision(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        ],
        **{f"matplotlib {name}": str(value) for name, value in dict.items(matplotlib.rcParams)},
        "Hydra": ["__deepcopy__" in vars(ConfigStore), sorted(ConfigStore.instance().repo)],
        "timm": timm.list_models(),
        "telemetry": "openvino_telemetry" in sys.modules,
        "path": list(sys.path),
        "excepthook": sys.excepthook,
    }


def changes(before):
    """The names of what is no longer as in `before`; loggers and variables of libraries imported since are not ours."""
    after = state_of_the_process()
    after["levels"] = {name: level for name, level in after["levels"].items() if name in before["levels"]}
    return {name: (value, after.get(name)) for name, value in before.items() if after.get(name) != value}


class Watched(ctypes.CDLL):
    """The C library, noting who reaches for its allocator's settings."""

    asked = False

    def __getattr__(self, name):
        Watched.asked |= name == "mallopt"
        return super().__getattr__(name)
