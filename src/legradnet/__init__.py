"""LegRadNet: Kellgren-Lawrence grades from knee radiographs.

Names are loaded when first used, as torch is slow to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legradnet.data.datamodule import KneeDataModule as KneeDataModule
    from legradnet.data.film import ImageError as ImageError
    from legradnet.errors import UserError as UserError
    from legradnet.grading.grader import Grader as Grader
    from legradnet.grading.grading import Grading as Grading
    from legradnet.network.ensemble import KneeEnsemble as KneeEnsemble
    from legradnet.training.module import GradingModule as GradingModule

    __version__: str

_HOMES = {
    "Grader": "grading.grader",
    "Grading": "grading.grading",
    "GradingModule": "training.module",
    "ImageError": "data.film",
    "KneeDataModule": "data.datamodule",
    "KneeEnsemble": "network.ensemble",
    "UserError": "errors",
}
__all__ = ["Grader", "Grading", "GradingModule", "ImageError", "KneeDataModule", "KneeEnsemble", "UserError"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f"legradnet.{_HOMES[name]}"), name)
    elif name == "__version__":
        value = import_module("importlib.metadata").version("legradnet")
    else:
        raise AttributeError(f"module 'legradnet' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
