"""LegRadNet: Kellgren-Lawrence grades from knee radiographs.

Names are loaded when first used, as torch is slow to import.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from legradnet.data.datamodule import KneeDataModule as KneeDataModule
    from legradnet.grading.grader import Grader as Grader
    from legradnet.network.ensemble import KneeEnsemble as KneeEnsemble
    from legradnet.training.module import GradingModule as GradingModule

_HOMES = {
    "Grader": "legradnet.grading.grader",
    "GradingModule": "legradnet.training.module",
    "KneeDataModule": "legradnet.data.datamodule",
    "KneeEnsemble": "legradnet.network.ensemble",
}
__all__ = ["Grader", "GradingModule", "KneeDataModule", "KneeEnsemble"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'legradnet' has no attribute {name!r}")
