"""A user's mistake in a sentence, whoever found it: Hydra, OmegaConf, YAML or the file system."""

import re
from pathlib import Path

from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from legradnet.errors import UserError
from legradnet.files import of_the_system

_OURS = re.compile(r"legradnet\.[\w.]+Error: ")  # what a stack trace from another process ends with
_RAISED = re.compile(r"^\w+ raised while resolving interpolation: ")


def in_words(error: Exception, configs: Path) -> str | None:
    """What a user has to mend; None: `error` is no mistake of a user. `configs` is the folder of our configs."""
    match error:
        case UserError():
            return str(error)
        case MissingMandatoryValue():
            return f"{error.full_key}= is needed."
        case MissingConfigException():
            return _unknown_choice(error, configs)
        case HydraException():
            return _of_hydra(error)
        case OmegaConfBaseException():
            return _of_omegaconf(error)
        case OSError() if error.strerror:
            return of_the_system(error)
    # a mistake found in a process of ddp comes back wrapped in that process's own exception and stack trace
    return _OURS.split(str(error))[-1].strip() if _OURS.search(str(error)) else None


def _unknown_choice(error: MissingConfigException, configs: Path) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    choices = error.options or sorted(file.stem for file in (configs / group).glob("*.yaml"))  # none of a list's
    return f"{group}={choice} is unknown; choose one of {', '.join(choices)}." if group and choices else _joined(error)


def _of_hydra(error: HydraException) -> str:
    cause = error.__cause__
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        there = [str(key) for key in cause.parent_node if key != "hydra"] if _has_keys(cause.parent_node) else []
        return f"{cause.full_key} is unknown{'; there are ' * bool(there)}{', '.join(there)}."
    return f"{_joined(error)} {_of_omegaconf(cause)}" if isinstance(cause, OmegaConfBaseException) else _joined(error)


def _has_keys(node: object) -> bool:
    return OmegaConf.is_dict(node) and not node._is_none() and not node._is_missing()  # type: ignore[attr-defined]


def _of_omegaconf(error: OmegaConfBaseException) -> str:
    words = _RAISED.sub("", str(error.msg or error).splitlines()[0])
    return f"{error.full_key}: {words}" if error.full_key and error.full_key not in words else words


def _joined(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
