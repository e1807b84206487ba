"""What a training run changes in its process, for its own time only."""

import logging
import os
import random
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_VARIABLES = (
    *("CUBLAS_WORKSPACE_CONFIG", "MASTER_ADDR", "MASTER_PORT", "MLFLOW_ALLOW_FILE_STORE"),
    *("PL_GLOBAL_SEED", "PL_SEED_WORKERS"),
)
_LOGGERS = ("lightning.pytorch", "lightning.fabric")

_KNOWN = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # Lightning's own call, once a run and process
    r"Found \d+ module\(s\) in eval mode",  # frozen trunks are
    r"The `srun` command is available",  # on a login node; what a SLURM job's processes are is known (launched.py)
    r"Checkpoint directory .* exists and is not empty",  # a resumed run's does
)


@contextmanager
def process_left_as_found() -> Iterator[None]:
    """Let a run seed, hush and configure what is the whole process's, and put it back on the way out.

    That is: random states, variables of the environment, torch's choice of algorithms, levels of Lightning's loggers,
    filters of warnings, and handlers of signals.
    """
    before = [(put_back, read()) for read, put_back in _STATES]
    with warnings.catch_warnings():
        for message in _KNOWN:
            warnings.filterwarnings("ignore", message)
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)  # its banners and tips say nothing of this run
        try:
            yield
        finally:
            for put_back, state in before:
                put_back(state)


def _variables() -> dict[str, str | None]:
    return {name: os.environ.get(name) for name in _VARIABLES}


def _put_back_variables(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _algorithms() -> tuple[bool, bool, bool]:
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    return torch.are_deterministic_algorithms_enabled(), warn_only, torch.backends.cudnn.benchmark


def _put_back_algorithms(algorithms: tuple[bool, bool, bool]) -> None:
    deterministic, warn_only, torch.backends.cudnn.benchmark = algorithms
    torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def _levels() -> dict[str, int]:
    return {name: logging.getLogger(name).level for name in _LOGGERS}


def _put_back_levels(levels: dict[str, int]) -> None:
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _handlers() -> dict[int, Any]:
    return {number: signal.getsignal(number) for number in signal.valid_signals()}


def _put_back_handlers(handlers: dict[int, Any]) -> None:
    if threading.current_thread() is threading.main_thread():  # no other may
        for number, handler in handlers.items():
            if handler is not None and handler is not signal.getsignal(number):  # None: not Python's own
                signal.signal(number, handler)


def _cuda_states() -> list[torch.Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]


# what can be read, and how it is put back
_STATES: tuple[tuple[Callable[[], Any], Callable[[Any], None]], ...] = (
    (random.getstate, random.setstate),
    (np.random.get_state, np.random.set_state),
    (torch.get_rng_state, torch.set_rng_state),
    (_cuda_states, torch.cuda.set_rng_state_all),
    (_variables, _put_back_variables),
    (_algorithms, _put_back_algorithms),
    (_levels, _put_back_levels),
    (_handlers, _put_back_handlers),
)
