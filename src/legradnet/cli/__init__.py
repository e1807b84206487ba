"""Commands: one thin file each. What they share is how they start Hydra and how they tell a mistake."""

import gc
import io
import logging
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from legradnet.claims import give_back_unused
from legradnet.cli._config_files import look_at_config_files
from legradnet.cli._mistakes import in_words
from legradnet.cli._run_folder import claim_run_folders
from legradnet.errors import without_passwords
from legradnet.machine import quota
from legradnet.run_folder import written_as_references
from legradnet.tables import readable as readable_text

_ENVIRONMENT = re.compile(r"\$\{\s*oc\.env\s*:")
_OTHER_KEY = re.compile(r"\$\{\s*([\w.]+)\s*\}")
_PIPE = 141  # exit status: 128 + SIGPIPE
_WARNINGS = "PYTHONWARNINGS"
_FULL_ERROR = "HYDRA_FULL_ERROR"  # Hydra's own: with it, it leaves exceptions to others


def config_folder() -> Path:
    """Folder of the Hydra configs: inside the installed package, else the checkout's `conf/`."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def run(config_name: str, task: Callable[[dict[str, Any], str], Any], keys: Callable[[], Iterable[Any]]) -> None:
    """Compose `config_name` from the command line and call `task(config, run_folder)` with plain values.

    A user's mistake is printed in words, without a stack trace, and ends the command with exit status 2.

    Args:
        config_name: File in `conf/`.
        task: What the command does.
        keys: Gives its keys, each a `legradnet.settings.Key`, of which it takes paths as the shell gives them.
    """

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    def app(config: DictConfig) -> Any:
        with _told_in_words(), _warnings_in_the_log():
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            with written_as_references(_references(config)):
                return task(plain, HydraConfig.get().runtime.output_dir)  # type: ignore[arg-type]

    _set_threads()
    with _output_may_close(), _exceptions_left_to_us(), _told_in_words():
        if get_args_parser().parse_args().overrides:
            from legradnet.cli._arguments import readable  # late: --help must not wait for pydantic

            sys.argv = [sys.argv[0], *readable(sys.argv[1:], keys)]
        _share_schemas()
        look_at_config_files(config_folder())
        claim_run_folders()
        try:
            app()
        finally:
            give_back_unused()


@contextmanager
def _told_in_words() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("legradnet: stopped.", file=sys.stderr)
        gc.freeze()  # on its way out Python would look through all that torch has made: for two seconds
        raise SystemExit(130) from None
    except BrokenPipeError:
        raise SystemExit(_PIPE) from None
    except Exception as error:
        if (words := in_words(error, config_folder())) is None:
            raise
        _stop(words)


@contextmanager
def _warnings_in_the_log() -> Iterator[None]:
    """Keep what libraries warn of in the log file of the run, if it has one; a user is told by us, or asks by -W."""
    if sys.warnoptions or os.environ.get(_WARNINGS):
        yield
        return
    files: list[logging.Handler] = [
        handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)
    ]
    logger = logging.getLogger("py.warnings")
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = files or [logging.NullHandler()], False
    os.environ[_WARNINGS] = "ignore"  # in processes that it starts
    of_compiler = logging.getLogger("torch.utils.cpp_extension")  # which says that there is no CUDA to compile for
    level = of_compiler.level
    of_compiler.setLevel(logging.ERROR)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        logger.handlers, logger.propagate = before
        of_compiler.setLevel(level)
        os.environ.pop(_WARNINGS, None)


@contextmanager
def _exceptions_left_to_us() -> Iterator[None]:
    asked = os.environ.get(_FULL_ERROR)
    os.environ[_FULL_ERROR] = "1"
    try:
        yield
    finally:
        if asked is None:
            os.environ.pop(_FULL_ERROR, None)
        else:
            os.environ[_FULL_ERROR] = asked


@contextmanager
def _output_may_close() -> Iterator[None]:
    """End like any other program when whoever reads the output has gone, `| head`; print names whatever their bytes."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="surrogateescape")
    before, logging.raiseExceptions = logging.raiseExceptions, False  # a line of the log that nobody reads is no fault
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):  # else Python complains at its end
            os.dup2(nowhere, stream.fileno())
        raise SystemExit(_PIPE) from None
    finally:
        logging.raiseExceptions = before


def _references(config: DictConfig) -> dict[str, Any]:
    """What a config takes from the environment, by dotted key, as it refers to it; also by way of other keys."""
    plain: Any = OmegaConf.to_container(config, resolve=False)
    written = {key: str(value) for key, value in _leaves(plain)}
    found = {key for key, text in written.items() if _ENVIRONMENT.search(text)}
    while more := {key for key, text in written.items() if set(_OTHER_KEY.findall(text)) & found} - found:
        found |= more
    return {key: value for key, value in _leaves(plain) if key in found}


def _leaves(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set_threads() -> None:
    """How many threads libraries begin with, which they look up as they are loaded: after this."""
    if threads := quota():
        os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # torch counts cores
    if platform.machine() == "x86_64":  # elsewhere torch may have it too
        # numpy's products are few and small, while its threads, once they had one, keep cores busy waiting for more
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _share_schemas() -> None:
    """Spare Hydra 1.3.8 a copy of its store of schemas for each group that --help lists: half a second in all.

    Its CachingConfigRepository copies all that it reads from, and has no switch for that; what is loaded from the store
    is copied anyway. Only in the process of a command, whose Hydra nobody else uses.
    """
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010 a method that the class has not


def _stop(mistake: str) -> NoReturn:
    print(f"legradnet: {readable_text(without_passwords(mistake))}", file=sys.stderr)
    raise SystemExit(2)
