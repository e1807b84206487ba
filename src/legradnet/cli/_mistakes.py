"""A user's mistake in a sentence, whoever found it: Hydra, OmegaConf, YAML or the file system."""

import re
from pathlib import Path
from typing import Any

from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import (
    ConfigAttributeError,
    ConfigKeyError,
    InterpolationToMissingValueError,
    MissingMandatoryValue,
    OmegaConfBaseException,
)

from legradnet.errors import UserError
from legradnet.files import of_the_system

_OURS = re.compile(r"legradnet\.[\w.]+Error: ")  # what a stack trace from another process ends with
_PRIMARY = "Cannot find primary config "
_NOT_DELETED = re.compile(r"Could not delete (?:from config\. '(.*?)' does not exist|'(.*?)'\. No match)")
_NO_CHOICE = re.compile(r"Config group override (?:deletion value )?must be a string")
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
        case ValueError() | TypeError() if _NO_CHOICE.match(str(error)) or _among_choices(error):
            return "What a group of configs is set to must be the name of one of its files, as in data=folder."
        case OSError() if error.strerror:
            return of_the_system(error)
    # a mistake found in a process of ddp comes back wrapped in that process's own exception and stack trace
    return _OURS.split(str(error))[-1].strip() if _OURS.search(str(error)) else None


def _among_choices(error: Exception) -> bool:
    """Whether Hydra took a member of a list for the name of a file, as of backbone=[5], and looked no further."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    return place is not None and place.tb_frame.f_globals.get("__name__") == "hydra._internal.defaults_list"


def _unknown_choice(error: MissingConfigException, configs: Path) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if str(error).startswith(_PRIMARY):
        return f"--config-name={error.missing_cfg_file}: there is no such config; each command has its own without it."
    choices = error.options or sorted(file.stem for file in (configs / group).glob("*.yaml"))  # none of a list's
    return f"{group}={choice} is unknown; choose one of {', '.join(choices)}." if group and choices else _joined(error)


def _of_hydra(error: HydraException) -> str:
    if deleted := _NOT_DELETED.match(str(error)):
        name = deleted[1] or deleted[2]
        return f"~{name} takes nothing out: there is no {name}."
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


def unresolved(config: DictConfig, part: str) -> str | None:
    """What to mend in the first value below the key `part` that refers to what is not there; None: there is none."""
    plain: Any = OmegaConf.to_container(OmegaConf.select(config, part), resolve=False)
    for key, value in plain.items():
        try:
            if isinstance(value, str):
                OmegaConf.select(config, f"{part}.{key}")
        except InterpolationToMissingValueError:
            continue  # what Hydra knows later, as the number of a job
        except OmegaConfBaseException as error:
            words = _RAISED.sub("", str(error.msg or error).splitlines()[0]).strip('"')
            return f"{part}.{key}: {words}."
    return None


def _joined(error: BaseException) -> str:
    return " ".join(line.strip() for line in str(error).splitlines() if line.strip())
