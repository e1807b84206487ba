"""What a training run leaves behind, and the callback that writes one row an epoch."""

import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from legradnet.checkpoint import BEST, LAST, written_whole
from legradnet.errors import UserError

_PACKAGES = (
    "legradnet",
    "torch",
    "torchvision",
    "timm",
    "lightning",
    "torchmetrics",
    "hydra-core",
    "numpy",
    "pandas",
    "pillow",
)
_SPLIT_COLUMNS = ["filename", "label", "patient", "side", "split"]


@dataclass(frozen=True)
class RunFolder:
    """Names of the files in a run folder."""

    path: Path

    @property
    def best(self) -> Path:
        """Checkpoint of the epoch with the highest `val/qwk`, without optimiser state."""
        return self.path / "checkpoints" / BEST

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.path / "checkpoints" / LAST

    @property
    def metrics(self) -> Path:
        """One row an epoch."""
        return self.path / "metrics.csv"

    @property
    def split(self) -> Path:
        """Which film was in which split."""
        return self.path / "split.csv"

    @property
    def skipped(self) -> Path:
        """Films left out, with the reason."""
        return self.path / "skipped.csv"

    @property
    def test_metrics(self) -> Path:
        """Test metrics of the best checkpoint."""
        return self.path / "test_metrics.json"

    @property
    def versions(self) -> Path:
        """Versions of the packages and the machine's kind."""
        return self.path / "versions.json"

    @property
    def config(self) -> Path:
        """The composed config."""
        return self.path / ".hydra" / "config.yaml"

    def best_metric(self, name: str = "val/qwk") -> float:
        """Highest value of a metric in `metrics.csv`; nan without one."""
        return float(pd.read_csv(self.metrics)[name].max()) if self.metrics.is_file() else float("nan")

    def write_data(self, table: pd.DataFrame, skipped: pd.DataFrame, resumed: bool) -> None:
        """Write `split.csv` and, if films were left out, `skipped.csv`.

        Raises:
            UserError: The run is resumed, but its films or split are no longer the same.
        """
        text = table[_SPLIT_COLUMNS].to_csv(index=False)
        if resumed and self.split.is_file() and self.split.read_bytes() != text.encode():
            raise UserError(
                f"The films, labels or split have changed since this run began ({self.split} differs): resuming would "
                "mix training and validation films. Start a new run; init_from=PATH starts it from this one's weights."
            )
        write_text(self.split, text)
        if len(skipped):
            write_text(self.skipped, skipped.to_csv(index=False))

    def carry_over(self, other: "RunFolder") -> None:
        """Take the best checkpoint, metrics and split of a run that is gone on with here from its own folder."""
        for ours, theirs in ((self.best, other.best), (self.metrics, other.metrics), (self.split, other.split)):
            if theirs.is_file():
                with written_whole(ours) as file:
                    file.write(theirs.read_bytes())

    def write_versions(self) -> None:
        """Write what this run was made with."""
        found: dict[str, Any] = {"python": platform.python_version(), "machine": platform.machine()}
        for name in _PACKAGES:
            try:
                found[name] = version(name)
            except PackageNotFoundError:
                found[name] = None
        found["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or "cpu"
        found["threads"] = torch.get_num_threads()
        write_text(self.versions, json.dumps(found, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with written_whole(path) as file:
        file.write(text.encode())


class MetricsTable(Callback):
    """Append one row an epoch to `metrics.csv`; on resume drop the rows of epochs that are run again.

    Args:
        folder: The run folder.
        report: Called with each row, for a line in the log; None is silent.
    """

    def __init__(self, folder: RunFolder, report: Callable[[dict[str, float]], None] | None = None) -> None:
        self.folder = folder
        self.report = report
        self.rows = pd.DataFrame()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the rows of epochs that are done; save the start of a fresh run, so that it can be resumed too."""
        if not trainer.ckpt_path:
            trainer.save_checkpoint(self.folder.last)
        elif self.folder.metrics.is_file():
            # "round_trip" reads back every digit, so that a resumed file equals one never interrupted
            rows = pd.read_csv(self.folder.metrics, float_precision="round_trip")
            self.rows = rows[rows["epoch"] < trainer.current_epoch]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write this epoch's row."""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        if not trainer.is_global_zero:
            return
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step}
        row["learning_rate"] = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        row |= {name: metrics[name] for name in sorted(metrics, key=lambda n: (n.split("/")[0], n != "val/loss"))}
        self.rows = pd.concat([self.rows, pd.DataFrame([row])], ignore_index=True)
        write_text(self.folder.metrics, self.rows.to_csv(index=False))
        if self.report:
            self.report(row)
