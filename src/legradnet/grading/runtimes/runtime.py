"""What a format of exports needs to be written and run; each has a file beside this one, and a row in `RUNTIMES`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from legradnet.errors import UserError, how_to_install

OUTPUTS = ("probabilities", "raw", "logits", "gate_weights", "stages")

Films = Sequence[npt.NDArray[np.uint8]]
Outputs = Mapping[str, npt.NDArray[np.float32]]
Run = Callable[[npt.NDArray[np.uint8]], Outputs]


class Quantise(Protocol):
    """Gives a graph 8-bit trunks."""

    def __call__(
        self, graph: Any, nodes: list[tuple[str, str]], items: list[Any], *, smooth: bool, per_channel: bool | None
    ) -> Any:
        """Quantise `graph`, whose nodes (name, type) are in an order in which they can run, by its answers to `items`.

        `smooth` evens out activations before products; `per_channel` is of activations, None the quantiser's choice.
        """


@dataclass(frozen=True)
class Runtime:
    """What runs the exports of one format on a CPU.

    Attributes:
        name: What its makers call it.
        files: What an export consists of beside its description; the graph first.
        precisions: That it computes in.
        package: What grading an export needs.
        quantising: What `precision=int8` needs beside it, to be written.
        start: (folder, precision, threads or None for its own choice) to (the precision that this CPU computes in, the
            side S of its films, a function of them, uint8 [B, 1, S, S], to the `OUTPUTS` there are); a UserError if the
            graph is damaged.
        write: (ONNX file, folder, films [1, 1, S, S] to quantise by or none, `Quantise`): writes its `files`, of which
            the ONNX file may be one already.
    """

    name: str
    files: tuple[str, ...]
    precisions: tuple[str, ...]
    package: str
    quantising: tuple[str, ...]
    start: Callable[[Path, str, int | None], tuple[str, int, Run]]
    write: Callable[[Path, Path, Films, Quantise], None]

    def packages(self, precision: str) -> tuple[str, ...]:
        """What writing an export of this precision needs."""
        return (self.package, *(self.quantising if precision == "int8" else ()))


def imported(package: str) -> Any:
    """A package of the extra `export`; UserError if it isn't installed."""
    try:
        return import_module(package)
    except ImportError as error:
        raise UserError(f"{package} is needed: {how_to_install('export')}.") from error


def unreadable(folder: Path, runtime: str, error: Exception) -> UserError:
    """What is wrong with the graph in `folder`."""
    reason = str(error).strip().splitlines()
    return UserError(f"{runtime} can't read the network in {folder}: {reason[-1] if reason else type(error).__name__}")
