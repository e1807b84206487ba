"""What happens around Lightning's loop: rows of metrics, checkpoints, early stopping, Ctrl-C."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, WeightAveraging
from torch import Tensor, nn

from legradnet.checkpoint import BEST, KEPT_IN_BEST, read_checkpoint, write_checkpoint
from legradnet.files import write_text, written_whole
from legradnet.memory import keep_freed_memory
from legradnet.run_folder import RunFolder
from legradnet.tables import table_text


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write a checkpoint beside its place and then move it there, so that a kill leaves the previous one.

    `best.ckpt` is for using, not for resuming: optimiser, schedule and loops are left out of it.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None
    ) -> None:
        """Save `checkpoint` at `path` atomically; missing folders are made."""
        target = Path(path)
        if target.name == BEST:
            checkpoint = {key: checkpoint[key] for key in KEPT_IN_BEST if key in checkpoint}
        with written_whole(target, shared=True) as file:
            write_checkpoint(checkpoint, file)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Load `path` as data only, whatever `weights_only` says."""
        return read_checkpoint(path)


class MetricsTable(Callback):
    """Append one row an epoch to `metrics.csv`; on resume drop the rows of epochs that are run again.

    Args:
        folder: The run folder.
        report: Called with each row, for a line in the log; None is silent.
        resumable: Whether to save the start, so that a run can be resumed from there too.
    """

    def __init__(
        self, folder: RunFolder, report: Callable[[dict[str, float]], None] | None = None, *, resumable: bool = True
    ) -> None:
        self.folder = folder
        self.report = report
        self.resumable = resumable
        self.rows = pd.DataFrame()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take up the rows of epochs that are done; save the start of a fresh run, so that it can be resumed too."""
        if not trainer.ckpt_path:
            if self.resumable:
                trainer.save_checkpoint(self.folder.last)
        elif self.folder.metrics.is_file():
            rows = self.folder.read_metrics()
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
        write_text(self.folder.metrics, table_text(self.rows), shared=True)
        if self.report:
            self.report(row)


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that, resumed from the epoch at which it stopped, does not train on."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if patience had run out; Lightning restores the count but not the stop."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class FirstEpoch(Callback):
    """Knows whether an epoch went through: all of the state that a run goes on with was of use by then."""

    is_over = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note it."""
        self.is_over = True


class KeepFreedMemory(Callback):
    """For commands: their own process keeps freed memory, and so do those that ddp starts."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Called in each process."""
        keep_freed_memory()


class StopAfterBatch(Callback):
    """Take Ctrl-C at the end of a batch, where nothing can swallow it; a second one at once.

    Raised just anywhere, a KeyboardInterrupt that falls into a destructor or callback of some library is lost.
    """

    asked = False
    _before: Any = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over SIGINT for the time of the fit, if it is Python's own to give."""
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is not None:
            self._before = signal.signal(signal.SIGINT, self._ask)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give SIGINT back to whom it belonged."""
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _ask(self, signum: int, frame: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def on_train_batch_end(self, *_: Any) -> None:
        """Stop now if that was asked for."""
        if self.asked:
            raise KeyboardInterrupt

    def on_validation_batch_end(self, *_: Any) -> None:
        """Stop now if that was asked for."""
        self.on_train_batch_end()


class PortableCheckpoint(ModelCheckpoint):
    """Checkpointing that still knows its best epoch when the run folder was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state with all paths in the present folder."""

        def here(path: str) -> str:
            return str(Path(str(self.dirpath)) / Path(path).name) if path else path

        paths = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path", "last_model_path")}
        best = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": self.dirpath})


class MovingAverage(WeightAveraging):
    """Validate and keep an exponential moving average of the weights; what training doesn't move stays as it is.

    A table of whole numbers (Swin's relative positions) would be rounded down to other places, and a constant or frozen
    weight would drift by its last bits: validation would measure another network than the checkpoint holds.

    Args:
        decay: Weight of the average in its next step, 0-1.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=partial(_exponential_average, decay=decay))
        self.unmoved: list[tuple[Tensor, Tensor]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find what doesn't move, in the average and in the network."""
        assert self._average_model is not None
        average = dict(_unmoved(self._average_model.module, pl_module))
        self.unmoved = [(average[name], current) for name, current in _unmoved(pl_module, pl_module)]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Average what moves."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        for average, current in self.unmoved:
            average.copy_(current)


def _exponential_average(average: Tensor, current: Tensor, count: int, *, decay: float) -> Tensor:
    """Next moving average of a weight; unlike torch's own closure it can be sent to the processes of ddp."""
    return decay * average + (1 - decay) * current


def _unmoved(module: nn.Module, trained: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """What `module`, of the same kind as `trained`, has by name of weights and buffers that training leaves alone."""
    saved, parameters = set(trained.state_dict()), dict(trained.named_parameters())
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name in parameters:
            moves = parameters[name].requires_grad
        else:  # running statistics of a trunk that isn't frozen, and nothing else
            training = trained.get_submodule(name.rpartition(".")[0]).training
            moves = training and tensor.is_floating_point() and name in saved
        if not moves:
            yield name, tensor.detach()
