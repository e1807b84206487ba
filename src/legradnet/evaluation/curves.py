"""Metrics over epochs, of one training run or many."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from legradnet.errors import UserError
from legradnet.figures import COLOURS, FAINT, MARKERS
from legradnet.run_folder import RunFolder
from legradnet.tables import read_numbers

SHOWN = ("loss", "qwk", "accuracy", "mae")
MOST_NAMED = 24


def find_runs(places: Sequence[str | Path]) -> dict[str, Path]:
    """Run folders by name: as many last parts of their paths as tell them apart.

    Args:
        places: Run folders, or patterns like `outputs/train/*/*`, which mean the folders with a `metrics.csv`.

    Raises:
        UserError: A place without `metrics.csv`, or no place.
    """
    folders: list[Path] = []
    for place in map(Path, places):
        matching = [place] if place.is_dir() else _matching(place)
        if not matching or not all(RunFolder(path).metrics.is_file() for path in matching):
            raise UserError(
                f"There is no {place / 'metrics.csv'}: legradnet-train experiment=quickstart "
                "hydra.run.dir=outputs/quickstart makes a run; the jobs of a multirun are the folders below its own."
            )
        folders += [path.resolve() for path in matching]
    if not folders:
        raise UserError("No run folder was given.")
    folders = list(dict.fromkeys(folders))
    length = next(n for n in count(1) if len({path.parts[-n:] for path in folders}) == len(folders))
    return {Path(*path.parts[-length:]).as_posix(): path for path in folders}


def read_curves(runs: Mapping[str, Path]) -> pd.DataFrame:
    """Rows of the `metrics.csv` of some runs, with a first column `run`: its name."""
    curves = pd.concat(
        [read_numbers(RunFolder(path).metrics).assign(run=name) for name, path in runs.items()], ignore_index=True
    )
    return curves[["run", *curves.columns.drop("run")]]


def varied_settings(runs: Mapping[str, Path]) -> pd.DataFrame:
    """The settings in which runs differ: a row a run, a column a key of their configs; no column if they are alike."""
    settings = {}
    for name, path in runs.items():
        config = RunFolder(path).read_config() if RunFolder(path).config.is_file() else {}
        settings[name] = pd.json_normalize(config).astype(str).T.squeeze(axis=1)
    table = pd.DataFrame(settings).T.fillna("")
    return table.loc[:, table.nunique() > 1]


def best_epochs(curves: pd.DataFrame) -> pd.DataFrame:
    """The row with the highest `val/qwk` of each run, the best run first."""
    defined = curves.dropna(subset="val/qwk")
    best = defined.loc[defined.groupby("run", sort=False)["val/qwk"].idxmax()]
    return best.sort_values("val/qwk", ascending=False).reset_index(drop=True)


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Validation loss, QWK, accuracy and MAE by epoch, a line a run; dotted: training loss; marked: the best epoch."""
    figure = Figure((10, 6), layout="constrained")
    best = best_epochs(curves)
    for axes, name in zip(figure.subplots(2, 2).flat, SHOWN, strict=True):
        for i, (run, rows) in enumerate(curves.groupby("run", sort=False)):
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]
            if name == "loss":
                axes.plot(rows["epoch"], rows["train/loss"], ":", color=colour)
            marked = rows["epoch"].isin(best.loc[best["run"] == run, "epoch"]).to_numpy().nonzero()[0].tolist()
            style = {"color": colour, "marker": marker, "markevery": marked, "markersize": 8}
            axes.plot(rows["epoch"], rows[f"val/{name}"], label=run, markeredgecolor="white", **style)
        axes.set(xlabel="Epoch", ylabel=f"val/{name}" + (", dotted: train/loss" if name == "loss" else ""))
        axes.grid(color=FAINT, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if curves["run"].nunique() <= MOST_NAMED:
        handles, names = figure.axes[0].get_legend_handles_labels()
        for text in figure.legend(handles, names, loc="outside right upper", frameon=False).get_texts():
            text.set_parse_math(False)  # a folder's name is not a formula
    return figure


def _matching(pattern: Path) -> list[Path]:
    """Run folders that match, job 2 before job 10."""
    tables = Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor) / "metrics.csv"))
    folders = (path.parent for path in tables)
    return sorted(folders, key=lambda path: (path.parent, path.name.zfill(9) if path.name.isdigit() else path.name))
