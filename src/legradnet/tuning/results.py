"""What comes out of a search: a table of all trials, the best of them in print, and figures."""

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import optuna
import pandas as pd
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Column, Table

from legradnet.errors import without_passwords
from legradnet.files import NotWrittenError, write_text, written_whole
from legradnet.tables import table_text
from legradnet.tuning.best import best_trials
from legradnet.tuning.settings import StudySettings
from legradnet.tuning.trial import DIED, FAILURE, ORIGIN, PRUNED_AT

log = logging.getLogger(__name__)

_PRINTED = 5
_SIZE = (10, 5.5)  # inches, of a figure
_LEGEND = 12  # lines named in a figure, at most


def trial_table(trials: Sequence[FrozenTrial], settings: StudySettings, best: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row a trial, in the order of their numbers.

    Args:
        trials: All trials of the study.
        settings: Of the study.
        best: Best trial, or the Pareto front.

    Returns:
        `number`, `state`, a column for each objective, `best`, `seconds`, `folder`, a column for each searched key,
        `pruned_at`, `origin` (of a point that was not sampled) and `reason` (why it failed).
    """
    front = {trial.number for trial in best}
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = []
    for trial in trials:
        if trial.state is TrialState.WAITING:
            continue
        values = trial.values or [None] * len(settings.optimized_metric)
        attributes = trial.user_attrs
        rows.append(
            {
                "number": trial.number,
                "state": trial.state.name.lower(),
                **dict(zip(settings.optimized_metric, values, strict=True)),
                "best": trial.number in front,
                "seconds": round(trial.duration.total_seconds(), 3) if trial.duration else None,
                "folder": f"trial_{trial.number}",
                **{key: trial.params.get(key) for key in keys},
                "pruned_at": attributes.get(PRUNED_AT),
                "origin": attributes.get(ORIGIN),
                "reason": attributes.get(FAILURE) or attributes.get(DIED),
            }
        )
    return pd.DataFrame(rows)


def searched_keys(table: pd.DataFrame) -> list[str]:
    """The columns of searched keys in a `trial_table`."""
    columns = [str(name) for name in table.columns]
    return columns[columns.index("folder") + 1 : columns.index("pruned_at")]


def write_results(
    folder: Path, settings: StudySettings, study: optuna.Study, trials: Sequence[FrozenTrial], over: str | None
) -> None:
    """Write `trials.csv`; when the search is `over` for a reason, print the best trials and the reason."""
    best = best_trials(study)
    table = trial_table(trials, settings, best)
    write_text(folder / "trials.csv", table_text(table), shared=True)
    if not len(table):
        return
    if over is None:
        counts = ", ".join(f"{count} {state}" for state, count in table["state"].value_counts().items())
        leader = f"; best {best[0].values[0]:.4f}, trial {best[0].number}" if best else ""
        log.info("%s: %s%s", settings.study_name, counts, leader)
        return
    if settings.many:
        shown = table[table["best"]]
    else:
        metric = settings.optimized_metric[0]
        complete = table[table["state"] == "complete"]
        shown = complete.sort_values(metric, ascending=settings.direction[0] == "minimize", kind="stable")[:_PRINTED]
    keys = searched_keys(table)
    title = "Pareto front" if settings.many else f"Best trials of {settings.study_name}"
    columns = (Column(name, overflow="fold") for name in ("trial", *settings.optimized_metric, *keys))
    printed = Table(*columns, title=title)
    for _, row in shown.iterrows():
        printed.add_row(*(_shown(row[name]) for name in ("number", *settings.optimized_metric, *keys)))
    if len(shown):
        Console().print(printed)
    print(f"Stopped: {over.rstrip('.')}.")
    print(f"{'trials':12}  {folder / 'trials.csv'}")
    if best:
        print(f"{'figures':12}  {folder / 'figures'}")
        print(f"{'train again':12}  legradnet-train --config-dir {folder} experiment=best")
    print(f"{'look closer':12}  optuna-dashboard {without_passwords(settings.storage)}")


def write_figures(folder: Path, settings: StudySettings, study: optuna.Study) -> None:
    """Draw `figures/*.png`: history, importance, parallel coordinates, intermediate values, Pareto front."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return
    matplotlib.use("Agg")
    from optuna.visualization import matplotlib as draw

    figures: dict[str, Callable[[], Any]] = {}
    for index, metric in enumerate(settings.optimized_metric):
        name = f"_{metric.replace('/', '_')}" if settings.many else ""
        about: dict[str, Any] = {"target_name": metric}
        if settings.many:
            about["target"] = partial(_objective, index)
        figures[f"history{name}"] = partial(draw.plot_optimization_history, study, **about)
        figures[f"importance{name}"] = partial(draw.plot_param_importances, study, **about)
        figures[f"parallel_coordinates{name}"] = partial(draw.plot_parallel_coordinate, study, **about)
    if settings.many:
        figures["pareto_front"] = partial(draw.plot_pareto_front, study, target_names=list(settings.optimized_metric))
    elif any(trial.intermediate_values for trial in complete):
        figures["intermediate_values"] = partial(draw.plot_intermediate_values, study)
    for name, make in figures.items():
        _draw(make, folder / "figures" / f"{name}.png")


def _draw(make: Callable[[], Any], path: Path) -> None:
    from matplotlib import pyplot

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "experimental", and what they do with few trials
            make()
        figure = pyplot.gcf()
        figure.set_size_inches(_SIZE)
        for axes in figure.axes:
            if (legend := axes.get_legend()) and len(legend.get_texts()) > _LEGEND:
                legend.remove()
        with written_whole(path, shared=True) as file:
            figure.savefig(file, format="png", dpi=150, bbox_inches="tight")
    except NotWrittenError:
        raise
    except (ValueError, RuntimeError, ZeroDivisionError) as error:  # too few trials, or all alike
        log.info("No figure %s: %s", path.name, error)
    finally:
        pyplot.close("all")


def _objective(index: int, trial: FrozenTrial) -> float:
    return trial.values[index]


def _shown(value: Any) -> str:
    if value is None or value != value:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
