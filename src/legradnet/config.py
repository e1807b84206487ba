"""Finding the shipped configs, and checking a composed one before anything is done with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from legradnet.errors import UserError


def config_folder() -> Path:
    """Folder of the Hydra configs: inside the installed package, else the checkout's `conf/`."""
    installed = Path(__file__).parent / "conf"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "conf"


@dataclass(frozen=True)
class Number:
    """A number from `low` to `high`, whole if `kind` is int."""

    kind: type[int] | type[float]
    low: float
    high: float = float("inf")
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if value is None and self.optional:
            return None
        right_kind = isinstance(value, int if self.kind is int else (int, float)) and not isinstance(value, bool)
        if right_kind and self.low <= value <= self.high:
            return None
        span = f"from {self.low:g} to {self.high:g}" if self.high < float("inf") else f"of at least {self.low:g}"
        return f"must be a {'whole ' if self.kind is int else ''}number {span}{' or null' if self.optional else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    values: tuple[Any, ...]

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if any(value is known or (type(value) is type(known) and value == known) for known in self.values):
            return None
        names = ("null" if v is None else str(v).lower() if isinstance(v, bool) else str(v) for v in self.values)
        return f"must be one of {', '.join(names)}"


_FLAG = Choice((True, False))
RULES: dict[str, Number | Choice] = {
    "model.feature_dim": Number(int, 1),
    "model.num_classes": Number(int, 2, 1000),
    "model.dropout": Number(float, 0, 0.99),
    "model.pretrained": _FLAG,
    "model.gradient_checkpointing": _FLAG,
    "gating.num_heads": Number(int, 1),
    "gating.hidden_dim": Number(int, 1),
    "gating.dropout": Number(float, 0, 0.99),
    "data.source": Choice(("csv", "folder", "synthetic")),
    "data.count": Number(int, 10),
    "data.image_size": Number(int, 32, 4096),
    "data.fit": Choice(("pad", "crop", "stretch")),
    "data.batch_size": Number(int, 1),
    "data.num_workers": Number(int, 0, 256, optional=True),
    "data.val_fraction": Number(float, 0, 0.99),
    "data.test_fraction": Number(float, 0, 0.99),
    "data.fold": Number(int, 0, optional=True),
    "data.num_folds": Number(int, 2, optional=True),
    "data.mirror_left": _FLAG,
    "data.balance": _FLAG,
    "data.on_bad_image": Choice(("error", "skip")),
    "data.verify": Choice(("decode", "header")),
    "data.cache": Choice(("auto", "off")),
    "data.cache_key": Choice(("stat", "hash")),
    "data.feature_views": Number(int, 0, 1000, optional=True),
    "data.seed": Number(int, 0, 2**32 - 1),
    "loss.class_weights": Choice(("none", "balanced")),
    "loss.label_smoothing": Number(float, 0, 0.99),
    "loss.sigma": Number(float, 1e-3),
    "optimizer.learning_rate": Number(float, 1e-9, 100),
    "optimizer.weight_decay": Number(float, 0, 100),
    "optimizer.backbone_scale": Number(float, 0, 100),
    "scheduler.warmup_epochs": Number(float, 0, 1e6),
    "scheduler.final_scale": Number(float, 0, 1),
    "trainer.max_epochs": Number(int, 1),
    "trainer.precision": Choice(("auto", "32-true", "32", 32, "bf16-mixed", "16-mixed")),
    "trainer.accumulate_grad_batches": Number(int, 1),
    "trainer.gradient_clip_val": Number(float, 0, optional=True),
    "callbacks.early_stopping_patience": Number(int, 1, optional=True),
    "callbacks.ema_decay": Number(float, 0, 0.999999, optional=True),
    "calibration.name": Choice((None, "conformal")),
    "calibration.coverage": Number(float, 0.01, 0.999),
    "calibration.target_error": Number(float, 0.001, 0.999),
    "logger.name": Choice((None, "tensorboard", "mlflow", "wandb")),
    "seed": Number(int, 0, 2**32 - 1),
    "compile": _FLAG,
    "test": _FLAG,
    "tuning.folds": _FLAG,
    "tuning.keep_checkpoints": Number(int, 0, optional=True),
}
_BACKBONE_RULES: dict[str, Number | Choice] = {
    "frozen": _FLAG,
    "image_size": Number(int, 32, 4096, optional=True),
    "precision": Choice((None, "f32", "bf16")),
}


_PRECISION = Choice(("auto", "f32", "bf16"))
EVALUATE_RULES: dict[str, Number | Choice] = {
    "precision": _PRECISION,
    "split": Choice((None, "train", "val", "test", "all")),
    "crossfit": _FLAG,
    "joint_masked": _FLAG,
    "threshold": Number(float, 0, 1),
    "resamples": Number(int, 1, 100_000),
    "confidence_level": Number(float, 0.5, 0.999),
    "seed": Number(int, 0, 2**32 - 1),
    "data.source": Choice(("own", "csv", "folder", "synthetic")),
    "data.batch_size": Number(int, 1, optional=True),
    "data.num_workers": Number(int, 0, 256, optional=True),
    "data.on_bad_image": Choice(("error", "skip")),
    "data.verify": Choice(("decode", "header")),
    "data.cache": Choice(("auto", "off")),
    "data.cache_key": Choice(("stat", "hash")),
}
EXPORT_RULES: dict[str, Number | Choice] = {
    "format": Choice(("onnx", "openvino")),
    "precision": Choice(("f32", "bf16", "int8")),
    "split": Choice(("train", "val", "test", "all")),
    "max_qwk_drop": Number(float, 0, 2, optional=True),
    "seed": Number(int, 0, 2**32 - 1),
    "data.source": Choice(("own", "csv", "folder", "synthetic")),
    "data.num_workers": Number(int, 0, 256, optional=True),
    "data.on_bad_image": Choice(("error", "skip")),
    "data.verify": Choice(("decode", "header")),
}
SYNTHESIZE_RULES: dict[str, Number | Choice] = {
    "count": Number(int, 1),
    "image_size": Number(int, 32, 4096),
    "num_classes": Number(int, 2, 1000),
    "seed": Number(int, 0, 2**32 - 1),
}


BENCHMARK_RULES: dict[str, Number | Choice] = {
    "seconds": Number(float, 0.01, 3600),
    "largest_batch": Number(int, 1, 2**20),
    "compile": _FLAG,
    "seed": Number(int, 0, 2**32 - 1),
    **{
        key: rule
        for key, rule in RULES.items()
        if key.startswith(("model.", "gating.", "data.")) and key != "model.pretrained"
    },
}


def check_config(config: Mapping[str, Any], rules: Mapping[str, Number | Choice] = RULES) -> None:
    """Check the values of a composed config (plain dicts), all at once; each backbone's too.

    Raises:
        UserError: Names every key with a wrong value and what it may be.
    """
    if problems := list(_problems(config, dict(rules))):
        raise UserError("\n".join(["The configuration has mistakes:", *problems]))


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping with dotted keys; an empty mapping stays as a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _problems(config: Mapping[str, Any], rules: dict[str, Number | Choice]) -> Iterator[str]:
    if not config.get("backbone", True):
        yield "  backbone: none chosen; backbone=all, backbone=vit, or 'backbone=[densenet,vit]'"
    for key in config.get("backbone") or {}:
        rules |= {f"backbone.{key}.{name}": rule for name, rule in _BACKBONE_RULES.items()}
    for key, rule in rules.items():
        group, _, name = key.rpartition(".")
        values: Any = config
        for part in group.split(".") if group else ():
            values = values.get(part) or {}
        if name in values and (problem := rule.problem(values[name])):
            yield f"  {key}={values[name]} {problem}"
