"""Metrics over epochs, of one training run or many."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from legradnet.errors import UserError
from legradnet.run_folder import RunFolder

SHOWN = ("loss", "qwk", "accuracy", "mae")


def read_curves(runs: Sequence[str | Path]) -> pd.DataFrame:
    """Rows of the `metrics.csv` of some run folders, with a first column `run`: the folder's name.

    Raises:
        UserError: A folder without `metrics.csv`, or none given.
    """
    tables = []
    for run in runs:
        path = RunFolder(Path(run)).metrics
        if not path.is_file():
            raise UserError(f"There is no {path}: train first, with hydra.run.dir={run}.")
        tables.append(pd.read_csv(path).assign(run=Path(run).name))
    if not tables:
        raise UserError("No run folder was given.")
    curves = pd.concat(tables, ignore_index=True)
    return curves[["run", *curves.columns.drop("run")]]


def best_epochs(curves: pd.DataFrame) -> pd.DataFrame:
    """The row with the highest `val/qwk` of each run, the best run first."""
    best = curves.loc[curves.groupby("run", sort=False)["val/qwk"].idxmax()]
    return best.sort_values("val/qwk", ascending=False).reset_index(drop=True)


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Validation loss, QWK, accuracy and MAE by epoch, a line a run; dotted: training loss; a dot: the best epoch."""
    figure = Figure((9.6, 6.4), layout="constrained")
    best = best_epochs(curves).set_index("run")
    for axes, name in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        for i, (run, rows) in enumerate(curves.groupby("run", sort=False)):
            axes.plot(rows["epoch"], rows[f"val/{name}"], color=f"C{i % 10}", label=run)
            axes.plot(best.at[run, "epoch"], best.at[run, f"val/{name}"], "o", color=f"C{i % 10}")
            if name == "loss":
                axes.plot(rows["epoch"], rows["train/loss"], ":", color=f"C{i % 10}")
        axes.set_xlabel("Epoch")
        axes.set_ylabel(f"val/{name}")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if len(best) <= 10:
        figure.axes[0].legend(frameon=False)
    return figure
