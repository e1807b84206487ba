"""Commands: one thin file each. What they share is how they start Hydra and how they tell a mistake."""

import re
import sys
import warnings
from collections.abc import Callable
from typing import Any, NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from legradnet.config import config_folder
from legradnet.errors import UserError

_MISTAKE = re.compile(r"legradnet\.[\w.]+Error: ")  # what a stack trace from another process ends with


def run(config_name: str, task: Callable[[dict[str, Any], str], Any]) -> None:
    """Compose `config_name` from the command line and call `task(config, run_folder)` with plain values.

    A `UserError` is printed as it is, without a stack trace, and ends the command with exit status 2.
    """

    @hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
    def app(config: DictConfig) -> Any:
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

    # Lightning's own deprecated call, once a run and process; nothing a user can mend
    warnings.filterwarnings("ignore", message=r"`isinstance\(treespec, LeafSpec\)` is deprecated")
    # Hydra copies its store of schemas for each group that --help lists; what is loaded from it is copied anyway
    setattr(ConfigStore, "__deepcopy__", lambda store, memo: store)  # noqa: B010 a method that the class has not
    app()


def _stop(mistake: str) -> NoReturn:
    print(f"legradnet: {_MISTAKE.split(mistake)[-1].strip()}", file=sys.stderr)
    raise SystemExit(2)
