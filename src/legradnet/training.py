"""One training run: check everything that can be wrong, train, and measure the best epoch on the test films."""

import ctypes
import json
import logging
import math
import os
import signal
import sys
import threading
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar, WeightAveraging
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf

from legradnet.backbones import parse_backbones
from legradnet.checkpoint import AtomicCheckpointIO, is_ours, read_checkpoint
from legradnet.config import check_config
from legradnet.data.datamodule import KneeDataModule
from legradnet.errors import UserError
from legradnet.module import GradingModule
from legradnet.reporting import describe_films, log_epoch, print_summary, tell_how_to_resume
from legradnet.run_folder import MetricsTable, RunFolder, write_text
from legradnet.weights import check_weights, load_ensemble, load_starting_weights

log = logging.getLogger(__name__)


def train(config: Mapping[str, Any], run_folder: str | Path) -> float:
    """Train as `conf/train.yaml` composes it and leave everything in the run folder.

    Args:
        config: The composed config as plain dicts, lists and values.
        run_folder: Folder for checkpoints, metrics, split; made if need be.

    Returns:
        `val/qwk` of the best epoch.

    Raises:
        UserError: A mistake in the config, the data, the weights or the checkpoint.
    """
    check_config(config)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # its banners and tips say nothing of this run
    keep_freed_memory()
    folder = RunFolder(Path(run_folder))
    ckpt_path = _checkpoint_to_resume(config["ckpt_path"], folder)
    backbones = parse_backbones(config["backbone"])
    pretrained = config["model"]["pretrained"]
    if ckpt_path is None and config["init_from"] is None:
        check_weights(backbones, pretrained)
    seed_everything(config["seed"], workers=True, verbose=False)

    # cheap mistakes first: the films are read when everything else has been found right
    trainer = build_trainer(config, folder)
    module = build_module(config)
    if ckpt_path:
        _check_same_settings(ckpt_path, module)
    elif config["init_from"]:
        load_ensemble(module.ensemble, config["init_from"])
        log.info("The whole ensemble starts from %s", config["init_from"])
    else:
        load_starting_weights(module.ensemble, backbones, pretrained)
    data = KneeDataModule(**config["data"], num_classes=config["model"]["num_classes"], progress=sys.stderr.isatty())
    data.setup()
    describe_films(data)
    module.use_class_counts(data.class_counts())

    dry = bool(config["trainer"]["fast_dev_run"])
    if not dry:
        if ckpt_path and ckpt_path.resolve() != folder.last.resolve():
            folder.carry_over(RunFolder(ckpt_path.parent.parent))
        folder.write_data(data.table, data.skipped, resumed=ckpt_path is not None)
        folder.write_versions()
        write_text(folder.config, OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    try:
        # weights_only: a checkpoint is data, whatever is found in its place
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path, weights_only=True)
    except (SystemExit, KeyboardInterrupt) as stop:
        tell_how_to_resume(folder)
        raise SystemExit(143 if isinstance(stop, SIGTERMException) else 130) from None
    finally:
        if config["logger"]["name"] == "wandb":
            sys.modules["wandb"].finish()  # else the next job of a multirun writes into this one's run
    if dry:
        log.info("fast_dev_run: one batch each of training and validation went through; nothing was saved.")
        return float(trainer.callback_metrics.get("val/qwk", torch.nan))
    if trainer.should_stop and trainer.current_epoch < config["trainer"]["max_epochs"]:
        log.info("Stopped after epoch %d: val/qwk no longer improved.", trainer.current_epoch - 1)
    tested = _test(config, folder, module, data) if config["test"] and len(data.films("test")) else None
    if trainer.is_global_zero:
        print_summary(folder, tested)
    return folder.best_metric()


def keep_freed_memory() -> None:
    """Let glibc reuse the memory of freed tensors instead of giving it back to the kernel and asking again each step.

    On a CPU the kernel's zeroing of fresh pages costs a third of a training step otherwise.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc; musl has no mallopt
        m_trim_threshold, m_top_pad, m_mmap_max = -1, -2, -4  # malloc.h
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 2**28)


def build_module(config: Mapping[str, Any]) -> GradingModule:
    """The module of a composed config, at random weights; where weights came from is not kept in it."""
    trainer, data = config["trainer"], config["data"]
    return GradingModule(
        backbone={key: {**settings, "weights": None} for key, settings in config["backbone"].items()},
        gating=config["gating"],
        model=config["model"],
        loss=config["loss"],
        optimizer=config["optimizer"],
        scheduler=config["scheduler"],
        augment=config["augment"],
        films={name: data[name] for name in ("image_size", "fit", "mirror_left")},
        run={
            **{name: data[name] for name in ("batch_size", "balance")},
            **{name: trainer[name] for name in ("gradient_clip_val", "accumulate_grad_batches")},
            "precision": _precision(trainer),
            **config["callbacks"],
        },
        seed=config["seed"],
    )


def build_trainer(config: Mapping[str, Any], folder: RunFolder, *, testing: bool = False) -> Trainer:
    """Lightning's Trainer for a composed config; when `testing` it has one device, no loggers, and writes nothing."""
    settings = dict(config["trainer"])
    if testing:
        settings |= {"devices": 1, "strategy": "auto"}
    elif settings["strategy"] == "auto" and settings["devices"] != 1:
        settings["strategy"] = "ddp_spawn"  # Lightning's own choice would run the whole command again in each process
    settings["precision"] = _precision(settings)
    callbacks: list[Callback] = [RichProgressBar()] if sys.stderr.isatty() else []
    if not testing:
        log.info("Precision %s, run folder %s", settings["precision"], folder.path)
    if not testing and not settings["fast_dev_run"]:
        callbacks += _callbacks(config, folder)
    try:
        return Trainer(
            **settings,
            callbacks=callbacks,
            logger=False if testing else _loggers(config["logger"]["name"], folder),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=folder.path,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            log_every_n_steps=10,
            use_distributed_sampler=False,  # EpochSampler knows its process
        )
    except (MisconfigurationException, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"trainer: {error}") from error


def _precision(trainer: Mapping[str, Any]) -> str:
    precision = trainer["precision"]
    return choose_precision(trainer["accelerator"]) if precision == "auto" else str(precision)


def choose_precision(accelerator: str) -> str:
    """bf16-mixed where the hardware multiplies bfloat16 natively, else 32-true. From what it is, not from timings."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        native = False
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def _checkpoint_to_resume(ckpt_path: str | None, folder: RunFolder) -> Path | None:
    path = folder.last if ckpt_path == "last" else Path(ckpt_path) if ckpt_path else None
    if folder.last.is_file() and (path is None or path.resolve() != folder.last.resolve()):
        raise UserError(
            f"{folder.path} already holds a run, which would be overwritten: add ckpt_path=last to go on with it, "
            "or choose another hydra.run.dir=."
        )
    if path is None:
        return None
    if not path.is_file():
        hint = " Repeat the run's own hydra.run.dir=." if ckpt_path == "last" else ""
        raise UserError(f"ckpt_path={ckpt_path}: there is no checkpoint at {path}.{hint}")
    checkpoint = read_checkpoint(path)
    if not is_ours(checkpoint):
        raise UserError(f"{path} is no LegRadNet checkpoint.")
    if "optimizer_states" not in checkpoint:
        raise UserError(
            f"{path} has no optimiser state to resume from: use checkpoints/last.ckpt, or init_from={path}."
        )
    return path


def _check_same_settings(path: Path, module: GradingModule) -> None:
    theirs, ours = _flat(read_checkpoint(path)["hyper_parameters"]), _flat(dict(module.hparams))
    keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if keys := [key for key in keys if key not in ("model.pretrained", "class_counts")]:
        changes = "\n".join(f"  {key}: was {theirs.get(key)}, now {ours.get(key)}" for key in keys)
        raise UserError(
            f"A resumed run goes on with its own settings; these differ (init_from= starts a new run):\n{changes}"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _callbacks(config: Mapping[str, Any], folder: RunFolder) -> list[Callback]:
    settings = config["callbacks"]
    callbacks: list[Callback] = [StopAfterBatch()]
    if settings["ema_decay"] is not None:
        callbacks.append(WeightAveraging(avg_fn=partial(exponential_average, decay=settings["ema_decay"])))
    if settings["early_stopping_patience"] is not None:
        patience = settings["early_stopping_patience"]
        callbacks.append(
            ResumableEarlyStopping("val/qwk", mode="max", patience=patience, check_finite=False, verbose=False)
        )
    place: dict[str, Any] = {
        "dirpath": folder.last.parent,
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    return [
        *callbacks,
        MetricsTable(folder, report=None if sys.stderr.isatty() else log_epoch),
        # last.ckpt comes last: it holds the state of all the others, and the row is in metrics.csv before it
        PortableCheckpoint(filename=folder.best.stem, monitor="val/qwk", mode="max", **place),
        PortableCheckpoint(filename=folder.last.stem, **place),
    ]


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that, resumed from the epoch at which it stopped, does not train on."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop at once if patience had run out; Lightning restores the count but not the stop."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class StopAfterBatch(Callback):
    """Take Ctrl-C at the end of a batch, where nothing can swallow it; a second one at once.

    Raised just anywhere, a KeyboardInterrupt that falls into a destructor or callback of some library is lost.
    """

    asked = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take over SIGINT for the time of the fit, if it is Python's own to give."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._ask)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give SIGINT back."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.default_int_handler)

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


def exponential_average(average: torch.Tensor, current: torch.Tensor, count: int, *, decay: float) -> torch.Tensor:
    """Next moving average of a weight; unlike torch's own closure it can be sent to the processes of ddp."""
    return decay * average + (1 - decay) * current


def _loggers(name: str | None, folder: RunFolder) -> list[Logger] | bool:
    if name is None:
        return False
    try:
        match name:
            case "tensorboard":
                return [TensorBoardLogger(folder.path, name="tensorboard", version="")]
            case "mlflow":
                os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a database would need the whole of mlflow
                return [MLFlowLogger("legradnet", tracking_uri=f"file:{folder.path.resolve() / 'mlruns'}")]
            case _:
                return [WandbLogger(project="legradnet", save_dir=folder.path, offline=True)]
    except ModuleNotFoundError as error:
        raise UserError(
            f"logger={name} needs a package that isn't installed: pip install 'legradnet[loggers]'"
        ) from error


def _test(
    config: Mapping[str, Any], folder: RunFolder, module: GradingModule, data: KneeDataModule
) -> dict[str, float]:
    module.load_state_dict(read_checkpoint(folder.best)["state_dict"])
    trainer = build_trainer(config, folder, testing=True)
    metrics = {name: float(value) for name, value in trainer.test(module, datamodule=data, verbose=False)[0].items()}
    if trainer.is_global_zero:
        defined = {name: None if math.isnan(value) else value for name, value in metrics.items()}  # JSON has no nan
        write_text(folder.test_metrics, json.dumps(defined, indent=2) + "\n")
    return metrics
