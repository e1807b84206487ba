"""Hydra's door to `legradnet.tuning`. Read at every start of any Hydra app: nothing slow is imported here."""

from typing import Any

from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class OptunaSweeper(Sweeper):
    """Search with Optuna; its settings, `hydra.sweeper.*`, are read where they are not yet resolved: in the config."""

    def __init__(self, **_: Any) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self._context, self._config = hydra_context, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Search as the command line's `arguments` say."""
        from legradnet.tuning.sweep import sweep

        return sweep(self._config, self._context.config_loader, self._launcher, arguments)
