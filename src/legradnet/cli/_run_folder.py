"""What Hydra does with a run's folder before the run begins: choosing and making it, and opening the log in it."""

import logging
import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import hydra._internal.hydra
from hydra._internal.callbacks import Callbacks
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from legradnet.claims import claim_for_run, is_later_process, make_numbered
from legradnet.cli._mistakes import unresolved
from legradnet.errors import UserError, without_passwords
from legradnet.files import check_writable, opened_without_links
from legradnet.tables import readable
from legradnet.training.launched import check_one_run, name_of_step


def claim_run_folders() -> None:
    """Let Hydra claim the folder of each run that it begins.

    Its own way, `hydra.callbacks`, would name code in a config. Only in the process of a command, whose Hydra nobody
    else uses.
    """
    setattr(hydra._internal.hydra, "Callbacks", _CallbacksAndOurs)  # noqa: B010


class _CallbacksAndOurs(Callbacks):
    def __init__(self, config: DictConfig | None = None) -> None:
        super().__init__(config)
        if config is not None and "output" not in config:  # with output= that is the folder, and there is no other
            self.callbacks.append(_ClaimsRunFolder())


class _ClaimsRunFolder(Callback):
    """Claim the run's folder; one that nobody has named is a new one, `_2` where two runs begin in the same second.

    Hydra turns a callback's exceptions into warnings: a mistake is told and ends the command here.
    """

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Claim `hydra.run.dir`."""
        _check_references(config, "run")
        folder, numbered = config.hydra.run.dir, _is_default(config, "run")
        try:
            if "trainer" in config:
                check_one_run(config.trainer.devices, config.trainer.num_nodes, os.environ, search=False)
                if numbered and (name := name_of_step(os.environ)):
                    folder, numbered = str(Path(folder).with_name(name)), False
                if is_later_process(config.trainer.devices, config.trainer.num_nodes):
                    _let_the_first_write(config, Path(folder).parent if numbered else Path(folder))
                    return
            if "shard" in config:
                folder = _folder_of_shard(config, folder)
            claimed = claim_for_run(Path(folder), numbered=numbered)
        except UserError as mistake:
            _stop(mistake)
        if claimed != Path(config.hydra.run.dir).absolute():
            _choose(config, "run", claimed)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Make `hydra.sweep.dir`, which all jobs share: each claims its own folder in it."""
        _check_references(config, "sweep", "sweeper")
        folder = Path(config.hydra.sweep.dir)
        try:
            if "trainer" in config:
                check_one_run(config.trainer.devices, config.trainer.num_nodes, os.environ, search=True)
            if _is_default(config, "sweep"):
                made = make_numbered(folder)
                if made != folder:
                    _choose(config, "sweep", made)
            else:
                check_writable(folder)
        except UserError as mistake:
            _stop(mistake)


class RunLog(logging.FileHandler):
    """The run's log: for its owner alone, as it may name films; begun with its first line, and never through a link.

    Where it can't be written it is left: the run itself tells what is wrong with its folder.
    """

    def __init__(self, filename: str) -> None:
        super().__init__(filename, delay=True)

    def _open(self) -> TextIOWrapper:
        file = opened_without_links(Path(self.baseFilename), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return open(file, "a", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123 a descriptor

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        try:
            super().emit(record)
        except OSError:
            self.stream = None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 logging's own name
        """Leave it."""


def _folder_of_shard(config: DictConfig, parts: str) -> str:
    """The folder of a shard in that of all; the folder itself where all films are graded.

    Raises:
        UserError: No such shard, or a folder that is not the one of all shards.
    """
    from legradnet.grading.shards import check_parts, shard_of  # late: --help needs none of it

    if (shard := shard_of(str(config.shard), os.environ)) is None or config.merge is not None:
        return parts
    if _is_default(config, "run"):
        raise UserError(f"Shard {shard} needs hydra.run.dir=, the folder that all shards have in common.")
    check_parts(Path(parts), shard)
    return str(shard.folder(Path(parts)))


def _let_the_first_write(config: DictConfig, folder: Path) -> None:
    """In a later process of a training: write no log, tell warnings only, and make no folder by a time of its own."""
    _choose(config, "run", folder.absolute())
    with read_write(config), open_dict(config):
        config.hydra.job_logging.root = {"level": "WARNING", "handlers": ["console"]}
        config.hydra.job_logging.handlers.pop("file", None)


def _is_default(config: DictConfig, kind: str) -> bool:
    """Whether the folder is named by the time, and not on the command line."""
    given = [str(override).lstrip("+") for override in config.hydra.overrides.hydra]
    if any(override.startswith(f"hydra.{kind}.dir=") for override in given):
        return False
    return "${now:" in str(OmegaConf.to_container(config.hydra[kind], resolve=False)["dir"])  # type: ignore[index,call-overload]


def _choose(config: DictConfig, kind: str, folder: Path) -> None:
    with read_write(config), open_dict(config):
        config.hydra[kind].dir = str(folder)
        text = str(folder).replace("\\", "\\\\").replace("'", "\\'")
        config.hydra.overrides.hydra.append(f"hydra.{kind}.dir='{text}'")  # what the jobs of a sweep are composed with


def _check_references(config: DictConfig, *parts: str) -> None:
    """Stop where a value of Hydra's own can't be had, as of an environment variable that is not set."""
    for part in parts:
        if words := unresolved(config, f"hydra.{part}"):
            _stop(UserError(words))


def _stop(mistake: UserError) -> NoReturn:
    print(f"legradnet: {readable(without_passwords(str(mistake)))}", file=sys.stderr)
    raise SystemExit(2)
