"""Config files from elsewhere, `--config-dir`: settings only, nothing that names code to run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, ListConfig, OmegaConf

from legradnet.errors import UserError
from legradnet.files import NOT_YAML, not_yaml, of_the_system

_OF_HYDRA = ("mode", "run", "sweep", "sweeper", "verbose")  # what such a file may say of Hydra: the rest loads code
_CODE = ("_target_", "custom_search_space")
_OUR_SWEEPER = ("hydra/sweeper", "legradnet_optuna")


def look_at_config_files(ours: Path) -> None:
    """Let Hydra take only settings from files that do not lie in `ours`, and tell what is no YAML.

    Hydra has no hook for this; only in the process of a command, whose Hydra nobody else uses.
    """

    Plugins.instance()  # which loads the class of its sources anew
    sources = SourcesRegistry.instance().resolve("file")
    load = sources.load_config

    def look(source: Any, config_path: str) -> ConfigResult:
        file = Path(source.path, source._normalize_file_name(config_path)).resolve()
        try:
            found: ConfigResult = load(source, config_path)
        except NOT_YAML as error:
            raise not_yaml(file, error) from None
        except OSError as error:
            if error.strerror:
                raise UserError(of_the_system(error)) from None
            raise UserError(f"{file} must hold keys and their values.") from None
        if not isinstance(found.config, DictConfig):
            raise UserError(f"{file} must hold keys and their values, not a list.")
        defaults = found.config.get("defaults", [])
        if not isinstance(defaults, ListConfig | list) or not all(isinstance(d, str | DictConfig) for d in defaults):
            raise UserError(f"{file}: defaults must be a list of files, or of groups with their choices.")
        if not file.is_relative_to(ours.resolve()) and (code := next(_code(config_path, found), None)):
            raise UserError(
                f"{file} is refused: {code} decides what code is run, and a config file from elsewhere may hold "
                "settings only. Who means it says it on the command line."
            )
        return found

    setattr(sources, "load_config", look)  # noqa: B010


def _code(config_path: str, found: ConfigResult) -> Iterator[str]:
    """What in a config file starts code, if anything does."""
    if config_path.startswith("hydra/"):
        yield f"a choice of {config_path.rpartition('/')[0]}"
    if "hydra" in (package := found.header.get("package") or ""):
        yield f"@package {package}"
    plain = OmegaConf.to_container(found.config, resolve=False)
    if not isinstance(plain, dict):
        return
    of_hydra = plain.get("hydra", {})
    if not isinstance(of_hydra, dict):
        yield "hydra:"
    else:
        yield from (f"hydra.{key}" for key in of_hydra if key not in _OF_HYDRA)
    for default in plain.get("defaults") or ():
        for group, choice in default.items() if isinstance(default, dict) else [(default, None)]:
            name = str(group).removeprefix("override").strip().removeprefix("optional").strip().lstrip("/")
            if ("@" in name or name.startswith("hydra")) and "hydra" in name and (name, choice) != _OUR_SWEEPER:
                yield f"the default {group}"
    yield from _named(plain)


def _named(values: Any) -> Iterator[str]:
    """Names of code in nested values."""
    if isinstance(values, dict):
        for key, value in values.items():
            if key in _CODE and value is not None:
                yield f"{key}: {value}"
            yield from _named(value)
    elif isinstance(values, list):
        for value in values:
            yield from _named(value)
    elif isinstance(values, str) and "_target_" in values:
        yield values
