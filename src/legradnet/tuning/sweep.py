"""A search as Hydra's multirun gives it: overrides, a launcher, a folder for the sweep."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from legradnet.errors import UserError, without_passwords
from legradnet.files import write_text
from legradnet.settings import checked, flat
from legradnet.tuning.best import best_trials, values_of, write_experiments
from legradnet.tuning.record import StudyRecord
from legradnet.tuning.results import write_figures, write_results
from legradnet.tuning.settings import SweeperSettings
from legradnet.tuning.sharing import shared_by_workers
from legradnet.tuning.space import Space, parameter_of, text_of
from legradnet.tuning.storage import has_password
from legradnet.tuning.study import Search

if TYPE_CHECKING:
    from legradnet.training.settings import TrainSettings

log = logging.getLogger(__name__)

# settings of the machine that a worker is on, which may differ between workers
_OF_A_MACHINE = ("data.num_workers", "data.cache", "logger.name")
_COMPOSED = 32  # configs that are kept: composing one takes a tenth of a second


def sweep(config: DictConfig, loader: ConfigLoader, launcher: Launcher, arguments: Sequence[str]) -> None:
    """Search until the study is done, and leave what came out in `hydra.sweep.dir`.

    Args:
        config: As composed for the sweep.
        loader: Hydra's, to compose the jobs' configs with.
        launcher: Runs the jobs.
        arguments: Overrides of the command line.

    A mistake ends the command with exit status 2, too many failed trials with 1.
    """
    try:
        search = _Sweep(config, loader, arguments)
        with shared_by_workers(search.folder, search.settings.study_name):
            search.run(launcher)
    except (UserError, HydraException, OmegaConfBaseException) as mistake:
        print(f"legradnet: {without_passwords(str(mistake))}", file=sys.stderr)
        raise SystemExit(2) from None
    except (StorageInternalError, SQLAlchemyError) as error:
        storage, reason = (
            without_passwords(str(text)) for text in (config.hydra.sweeper.storage, error.__cause__ or error)
        )
        words = f"hydra.sweeper.storage={storage} does not answer: {reason.splitlines()[0]}"
        print(f"legradnet: {words}\nTo go on with the search: the same command.", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    if search.study.too_many_failures:
        raise SystemExit(1)


class _Sweep:
    def __init__(self, config: DictConfig, loader: ConfigLoader, arguments: Sequence[str]) -> None:
        self.config, self.loader = config, loader
        self.composed: dict[tuple[str, ...], DictConfig] = {}  # by overrides, the last ones: some are asked for often
        self.folder = Path(str(config.hydra.sweep.dir))
        raw: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=False)
        if has_password(str(raw["storage"])):
            raise UserError(
                "hydra.sweeper.storage has a password in it, which would be in files and logs: put the URL into an "
                "environment variable and name that, 'hydra.sweeper.storage=${oc.env:NAME}'."
            )
        sweeper: Any = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
        self.settings = SweeperSettings.of(sweeper)
        self.extend = _custom_search_space(self.settings.custom_search_space)

        ours = self.settings.params or {}
        overrides = self._parse(ours, arguments)
        self.fixed = [str(override.input_line) for override in overrides if not override.is_sweep_override()]
        several = [override for override in overrides if override.is_sweep_override()]
        searched = [parameter_of(override, group=self._is_group(override)) for override in several]
        named = {argument.partition("=")[0].lstrip("+") for argument in arguments}
        # the command line may fix the group that a key of `params` belongs to
        self.space = Space(searched, self._keys_under, optional=ours.keys() - named)
        if not self.space.parameters and not self.extend:
            raise UserError("Nothing is searched: give a key several values, e.g. 'gating=mha,mlp', or tuning=gating.")
        shared = self._check_what_all_share()
        self.study = Search(self.settings, self._suggest, record=self._shared_settings(), enqueue=self._first_points())
        logger, metrics = shared.logger.name, self.settings.optimized_metric
        self.record = StudyRecord(logger, self.study.study, metrics, self.folder) if logger else None
        self.best: list[int] = []  # trials that there are experiment files of

    def run(self, launcher: Launcher) -> None:
        self._check_folder()
        write_text(self.folder / "multirun.yaml", OmegaConf.to_yaml(self.config), shared=True)
        try:
            while batch := self.study.next_batch():
                jobs = [self._job(trial, overrides) for trial, overrides in batch]
                with self.study.beating(batch):
                    try:
                        launcher.launch(jobs, initial_job_idx=batch[0][0].number)
                    except Exception as error:  # a worker died; what became of its trial, its heartbeat tells
                        log.error("A job has ended without an answer: %s", without_passwords(str(error)))
                self._write()
        finally:
            self._write(final=True)

    def _job(self, trial: Trial, overrides: Sequence[str]) -> list[str]:
        own = [f"hydra.sweep.subdir=trial_{trial.number}", f"hydra.sweeper.trial={trial.number}"]
        return [*self.fixed, *overrides, *own]

    def _write(self, *, final: bool = False) -> None:
        study, trials = self.study.study, self.study.trials
        best = [trial.number for trial in best_trials(study)]
        over = (self.study.why_over() or "before the end; the same command goes on") if final else None
        write_results(self.folder, self.settings, study, trials, over=over)
        if self.record:
            self.record.add(trials)
        if best != self.best:
            write_experiments(self.folder, study, self._compose, self._overrides)
            self.best = best
        if final:
            write_figures(self.folder, self.settings, study)

    def _parse(self, params: Mapping[str, Any], arguments: Sequence[str]) -> list[Override]:
        parser = OverridesParser.create(config_loader=self.loader)
        given = parser.parse_overrides(list(arguments))
        ours = parser.parse_overrides([f"{key}={value}" for key, value in params.items()])
        chosen = {override.key_or_group: override for override in [*ours, *given]}  # the last word on a key counts
        for override in chosen.values():
            if override.is_delete() and not self._is_group(override):
                raise UserError(f"{override.input_line}: keys cannot be deleted in a search.")
        return list(chosen.values())

    def _is_group(self, override: Override) -> bool:
        return bool(self.loader.get_group_options(override.key_or_group))

    def _compose(self, overrides: Sequence[str]) -> DictConfig:
        asked = tuple(overrides)
        if asked not in self.composed:
            # the command line's hydra.sweeper.* need it, whatever is composed
            config = self.loader.load_sweep_config(self.config, ["hydra/sweeper=legradnet_optuna", *overrides])
            while len(self.composed) >= _COMPOSED:
                del self.composed[next(iter(self.composed))]
            self.composed[asked] = config
        return deepcopy(self.composed[asked])

    def _keys_under(self, chosen: Sequence[str]) -> set[str]:
        return all_keys(values_of(self._compose([*self.fixed, *chosen])))

    def _check_what_all_share(self) -> "TrainSettings":
        """What is wrong with it would fail each trial."""
        shared = self._check(self._compose(self.fixed))
        if shared.trainer.fast_dev_run:
            raise UserError("trainer.fast_dev_run=true measures nothing that could be searched by.")
        if shared.tuning.folds and not shared.data.num_folds:
            raise UserError("tuning.folds=true needs data.num_folds=.")
        if shared.data.source != "synthetic":
            from legradnet.data.datamodule import KneeDataModule  # late: torch

            KneeDataModule(shared.data, num_classes=shared.model.num_classes).setup()
        return shared

    def _check(self, config: DictConfig) -> "TrainSettings":
        with open_dict(config):
            del config["hydra"]  # as in a job
        try:
            plain: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        except MissingMandatoryValue as missing:
            raise UserError(f"{missing.full_key}= is needed.") from missing
        from legradnet.training.settings import TrainSettings  # late: torch

        return checked(TrainSettings, plain)

    def _suggest(self, trial: Trial) -> list[str]:
        drawn = self.space.suggest(trial)
        if self.extend:
            before = set(trial.params)
            self.extend(self._compose([*self.fixed, *drawn]), trial)
            drawn += [f"{key}={text_of(value)}" for key, value in trial.params.items() if key not in before]
        self._check(self._compose([*self.fixed, *drawn]))
        return drawn

    def _overrides(self, params: Mapping[str, Any]) -> list[str]:
        return [*self.fixed, *self.space.overrides(params)]

    def _first_points(self) -> dict[str, dict[str, Any]]:
        if self.settings.sampler.name != "grid":
            return {f"known:{index}": point for index, point in enumerate(self._enqueued(self.settings.enqueue or []))}
        if self.extend:
            raise UserError("sampler=grid cannot count the points of a custom_search_space.")
        grid = list(self.space.grid())
        order = np.random.default_rng(self.settings.seed or 0).permutation(len(grid))
        return {f"grid:{index}": grid[index] for index in order}

    def _enqueued(self, points: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        asked_for = any(str(given).startswith("hydra.sweeper.enqueue") for given in self.config.hydra.overrides.hydra)
        for point in points:
            try:
                yield self.space.drawn(point)
            except UserError as mistake:
                if asked_for:
                    raise
                log.info("Not tried first: %s", mistake)  # the command line has changed the space of `tuning=`

    def _shared_settings(self) -> dict[str, str]:
        fixed = flat(values_of(self._compose(self.fixed)))
        searched = [parameter.key for parameter in self.space.parameters]
        record = {
            key: str(value)
            for key, value in fixed.items()
            if not key.startswith(_OF_A_MACHINE) and not any(f"{key}.".startswith(f"{other}.") for other in searched)
        }
        record |= {f"search of {key}": words for key, words in self.space.describe().items()}
        return record | {
            "custom_search_space": str(self.settings.custom_search_space),
            "optimized_metric": ", ".join(self.settings.optimized_metric),
            "tuning.folds": str(self.config.tuning.folds),
        }

    def _check_folder(self) -> None:
        # in this order: another worker tells the study of a trial before it makes the folder
        if any(self.folder.glob("trial_*")) and all(trial.state is TrialState.WAITING for trial in self.study.trials):
            raise UserError(
                f"{self.folder} holds trials of another study, which would be overwritten: choose another "
                "hydra.sweep.dir=."
            )


def all_keys(values: Mapping[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys of a nested mapping, those of its inner mappings included."""
    keys: set[str] = set()
    for key, value in values.items():
        keys.add(f"{prefix}{key}")
        if isinstance(value, Mapping):
            keys |= all_keys(value, f"{prefix}{key}.")
    return keys


def _custom_search_space(name: str | None) -> Callable[[DictConfig, Trial], None] | None:
    if not name:
        return None
    module, _, function = str(name).rpartition(".")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"hydra.sweeper.custom_search_space={name} must name a function (config, trial) as MODULE.FUNCTION, in a "
            f"module that Python finds (PYTHONPATH): {error}"
        ) from error
