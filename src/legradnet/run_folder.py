"""What a training run leaves behind."""

import copy
import json
import math
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped] # comes with OmegaConf
from omegaconf._utils import get_omega_conf_dumper, get_yaml_loader

from legradnet.checkpoint import BEST, LAST
from legradnet.errors import UserError
from legradnet.files import NOT_YAML, not_yaml, write_text, written_whole
from legradnet.tables import read_numbers, table_text

if TYPE_CHECKING:
    import pandas as pd  # torch and pandas are slow to import, and predicting from an export needs neither

_PACKAGES = (
    *("legradnet", "torch", "torchvision", "timm", "lightning", "torchmetrics"),
    *("hydra-core", "numpy", "pandas", "pillow"),
)
_MACHINE = ("python", "machine", "device", "threads")
_LONGEST_VERSION = 100  # characters
_REFERENCES: ContextVar[Mapping[str, Any]] = ContextVar("references", default={})  # noqa: B039 never changed
_SPLIT_COLUMNS = ["filename", "label", "patient", "side", "split"]


@contextmanager
def written_as_references(references: Mapping[str, Any]) -> Iterator[None]:
    """Let configs that are written have these values, by their dotted keys: a secret stays where it is kept."""
    before = _REFERENCES.set(references)
    try:
        yield
    finally:
        _REFERENCES.reset(before)


def as_references(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as it is written."""
    plain = copy.deepcopy(dict(config))
    for key, reference in _REFERENCES.get().items():
        *groups, name = key.split(".")
        group: Any = plain
        for inner in groups:
            group = group.get(inner, {})
        if name in group:
            group[name] = reference
    return plain


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
        parquet: The same as a Parquet table, of a shard or of all.
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
        self.parquet = path / "predictions.parquet"
        self.report = path / "report.html"
        self.benchmark = path / "benchmark.json"
        self.versions = path / "versions.json"
        self.config = path / ".hydra" / "config.yaml"

    def check_other_runs(self, *files: Path) -> None:
        """Raise UserError if one of `files`, which another command has left, is here: it would be overwritten."""
        if others := [file.name for file in files if file.exists()]:
            raise UserError(f"{self.path} holds another run ({others[0]}): choose another hydra.run.dir=.")

    def write_config(self, config: Mapping[str, Any], *, shared: bool = False) -> None:
        """Write the composed config (plain values); what came from the environment is written as it was referred to.

        Args:
            config: The values.
            shared: As in `write_text`.
        """
        plain = as_references(config)
        # as OmegaConf writes, which would read a path with "${" in it as a reference
        how: dict[str, Any] = {"default_flow_style": False, "allow_unicode": True, "sort_keys": False}
        write_text(self.config, yaml.dump(plain, Dumper=get_omega_conf_dumper(), **how), shared=shared)

    def read_config(self) -> dict[str, Any]:
        """The composed config that was written, as plain values; references as they were written.

        Raises:
            UserError: It is none.
        """
        try:
            config = yaml.load(self.own(self.config).read_text(encoding="utf-8"), Loader=get_yaml_loader())
        except NOT_YAML as error:
            raise not_yaml(self.config, error) from None
        if not isinstance(config, dict):
            raise UserError(f"{self.config} is damaged: it must hold keys and their values.")
        return config

    def read_group(self, name: str) -> dict[str, Any]:
        """A group of the composed config; UserError if there is none."""
        group = self.read_config().get(name)
        if not isinstance(group, dict):
            raise UserError(f"{self.config} is damaged: it has no group {name}.")
        return group

    def read_versions(self) -> dict[str, Any]:
        """What this run was made with; of what the file says nothing but versions. Empty without one.

        Raises:
            UserError: It is damaged.
        """
        if not self.versions.is_file():
            return {}
        file = self.own(self.versions)
        try:
            made_with = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            made_with = None
        if not isinstance(made_with, dict):
            raise UserError(f"{self.versions} is damaged: it must be a JSON object of versions.")
        short = {name: value for name, value in made_with.items() if len(str(value)) <= _LONGEST_VERSION}
        return {name: value for name, value in short.items() if name in (*_MACHINE, *_PACKAGES)}

    def read_metrics(self) -> "pd.DataFrame":
        """`metrics.csv`; UserError if it is no table of epochs."""
        rows = read_numbers(self.own(self.metrics))
        if not {"epoch", "val/qwk"} <= set(rows):
            raise UserError(f"{self.metrics} is damaged: it must be a table with the columns epoch and val/qwk.")
        return rows

    def own(self, file: Path) -> Path:
        """A file of this folder, which may be a stranger's; UserError if it is a link to elsewhere, or not there."""
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise UserError(f"{file} is a link to something outside its run folder, and is not read.")
        if not file.is_file():
            raise UserError(f"There is no {file}.")
        return file

    def best_epoch(self) -> dict[str, float]:
        """The row of `metrics.csv` with the highest `val/qwk`, whose weights `best.ckpt` holds; empty without one.

        An undefined `val/qwk` is the lowest; where all are, the first epoch is the best.
        """
        if not self.metrics.is_file():
            return {}
        rows = self.read_metrics()
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
                content = theirs.read_bytes()
                with written_whole(ours, shared=ours != self.split) as file:
                    file.write(content)

    def write_versions(self) -> None:
        """Write what this run was made with."""
        write_text(self.versions, json.dumps(versions(), indent=2) + "\n", shared=True)


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
