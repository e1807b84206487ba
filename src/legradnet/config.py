"""Checking a composed config before anything is done with it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from legradnet.errors import UserError


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


def check_config(config: Mapping[str, Any], rules: Mapping[str, Number | Choice]) -> None:
    """Check the values of a composed config (plain dicts), all at once.

    Raises:
        UserError: Names every key with a wrong value and what it may be.
    """
    if problems := list(_problems(config, dict(rules))):
        raise UserError("\n".join(["The configuration has mistakes:", *problems]))


def _problems(config: Mapping[str, Any], rules: dict[str, Number | Choice]) -> Iterator[str]:
    for key, rule in rules.items():
        group, _, name = key.rpartition(".")
        values: Any = config
        for part in group.split(".") if group else ():
            values = values.get(part) or {}
        if name in values and (problem := rule.problem(values[name])):
            yield f"  {key}={values[name]} {problem}"
