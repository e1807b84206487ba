"""What a training run leaves behind."""

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from legradnet.checkpoint import BEST, LAST
from legradnet.errors import UserError
from legradnet.files import write_text, written_whole
from legradnet.tables import read_numbers, table_text

if TYPE_CHECKING:
    import pandas as pd  # torch and pandas are slow to import, and predicting from an export needs neither

_PACKAGES = (
    *("legradnet", "torch", "torchvision", "timm", "lightning", "torchmetrics"),
    *("hydra-core", "numpy", "pandas", "pillow"),
)
_SPLIT_COLUMNS = ["filename", "label", "patient", "side", "split"]


class RunFolder:
    """Names of the files in a run folder.

    Attributes:
        path: The folder.
        best: Checkpoint of the epoch with the highest `val/qwk`, without optimiser state.
        last: Checkpoint to resume from.
        metrics: One row an epoch.
        split: Which film was in which split.
        skipped: Films left out, with the reason.
        test_metrics: Test metrics of the best checkpoint.
        predictions: One row a graded film.
        predictions_json: The same, one JSON object a line.
        report: The page of an evaluation.
        benchmark: What `legradnet-benchmark` measured and advises.
        versions: Versions of the packages and the machine's kind.
        config: The composed config.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.best, self.last = path / "checkpoints" / BEST, path / "checkpoints" / LAST
        self.metrics = path / "metrics.csv"
        self.split, self.skipped = path / "split.csv", path / "skipped.csv"
        self.test_metrics = path / "test_metrics.json"
        self.predictions, self.predictions_json = path / "predictions.csv", path / "predictions.jsonl"
        self.report = path / "report.html"
        self.benchmark = path / "benchmark.json"
        self.versions = path / "versions.json"
        self.config = path / ".hydra" / "config.yaml"

    def check_other_runs(self, *files: Path) -> None:
        """Raise UserError if one of `files`, which another command has left, is here: it would be overwritten."""
        if others := [file.name for file in files if file.exists()]:
            raise UserError(f"{self.path} holds another run ({others[0]}): choose another hydra.run.dir=.")

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write the composed config (plain values)."""
        write_text(self.config, OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def read_config(self) -> dict[str, Any]:
        """The composed config that was written, as plain values."""
        return OmegaConf.to_container(OmegaConf.load(self.config))  # type: ignore[return-value]

    def best_epoch(self) -> dict[str, float]:
        """The row of `metrics.csv` with the highest `val/qwk`, whose weights `best.ckpt` holds; empty without one.

        An undefined `val/qwk` is the lowest; where all are, the first epoch is the best.
        """
        if not self.metrics.is_file():
            return {}
        rows = read_numbers(self.metrics)
        if rows.empty:
            return {}
        best = rows.iloc[int(rows["val/qwk"].fillna(-math.inf).argmax())]
        return {str(name): float(value) for name, value in best.items()}

    def write_data(self, table: "pd.DataFrame", skipped: "pd.DataFrame", resumed: bool) -> None:
        """Write `split.csv` and, if films were left out, `skipped.csv`.

        Raises:
            UserError: The run is resumed, but its films or split are no longer the same.
        """
        if resumed:
            self.check_split(table)
        write_text(self.split, table_text(table[_SPLIT_COLUMNS]))
        if len(skipped):
            write_text(self.skipped, table_text(skipped))

    def check_split(self, table: "pd.DataFrame") -> None:
        """Compare films with `split.csv`, where there is one.

        Raises:
            UserError: They differ.
        """
        if not self.split.is_file():
            return
        written = self.split.read_bytes()
        if written != table_text(table[_SPLIT_COLUMNS]).encode() and written != _as_once_written(table):
            raise UserError(
                f"The films, labels or split have changed since this run began ({self.split} differs): going on would "
                "mix training with other films. Start a new run; init_from=PATH starts it from this one's weights."
            )

    def carry_over(self, other: "RunFolder") -> None:
        """Take the best checkpoint, metrics and split of a run that is gone on with here from its own folder."""
        for ours, theirs in ((self.best, other.best), (self.metrics, other.metrics), (self.split, other.split)):
            if theirs.is_file():
                with written_whole(ours) as file:
                    file.write(theirs.read_bytes())

    def write_versions(self) -> None:
        """Write what this run was made with."""
        write_text(self.versions, json.dumps(versions(), indent=2) + "\n")


def _as_once_written(table: "pd.DataFrame") -> bytes:
    """`split.csv` as older versions wrote it."""
    return table[_SPLIT_COLUMNS].to_csv(index=False).encode("utf-8", "backslashreplace")


def versions() -> dict[str, Any]:
    """Versions of the packages here, and the machine's kind."""
    import torch

    made_with: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _PACKAGES:
        try:
            made_with[name] = version(name)
        except PackageNotFoundError:
            made_with[name] = None
    made_with["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
    made_with["threads"] = torch.get_num_threads()
    return made_with
