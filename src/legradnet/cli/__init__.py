"""Commands: one thin file each. What they share is how they start Hydra and how they tell a mistake."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from legradnet.errors import UserError
from legradnet.memory import keep_freed_memory

_MISTAKE = re.compile(r"legradnet\.[\w.]+Error: ")  # what a stack trace from another process ends with


def config_folder() -> Path:
    """Folder of the Hydra configs: inside the installed package, else the checkout's `conf/`."""
    package = Path(__file__).parents[1]
    installed = package / "conf"
    return installed if installed.is_dir() else package.parents[1] / "conf"


def run(config_name: str, task: Callable[[dict[str, Any], str], Any]) -> None:
    """Compose `config_name` from the command line and call `task(config, run_folder)` with plain values.

    A `UserError` is printed as it is, without a stack trace, and ends the command with exit status 2.
    """

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    def app(config: DictConfig) -> Any:
        keep_freed_memory()  # here: launchers call this in processes of their own
        try:
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            return task(plain, HydraConfig.get().runtime.output_dir)  # type: ignore[arg-type]
        except MissingMandatoryValue as missing:
            _stop(f"{missing.full_key}= is needed.")
        except (UserError, OmegaConfBaseException) as mistake:
            _stop(str(mistake))
        except KeyboardInterrupt:
            print("legradnet: stopped.", file=sys.stderr)
            raise SystemExit(130) from None
        except Exception as error:
            # a mistake found in a process of ddp comes back wrapped in that process's own exception and stack trace
            if not _MISTAKE.search(str(error)):
                raise
            _stop(str(error))

    _share_schemas()
    app()


def _share_schemas() -> None:
    """Spare Hydra 1.3.8 a copy of its store of schemas for each group that --help lists: half a second in all.

    Its CachingConfigRepository copies all that it reads from, and has no switch for that; what is loaded from the store
    is copied anyway. Only in the process of a command, whose Hydra nobody else uses.
    """
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010 a method that the class has not


def _stop(mistake: str) -> NoReturn:
    print(f"legradnet: {_MISTAKE.split(mistake)[-1].strip()}", file=sys.stderr)
    raise SystemExit(2)
