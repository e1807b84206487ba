"""What pretraining without grades is worth on real knees, where few, some or all of them have a grade.

    python tests/benchmarks/pretraining.py FILMS FILMS/knees.csv OUTPUT IMAGENET.safetensors

FILMS/knees.csv has `filename,label,patient,split`. A trunk (`--backbone lite0`, `--size 128`) starts from random
weights, from IMAGENET.safetensors, and from what `legradnet-pretrain` makes of either on the training films, without
their grades. Then it learns from the grades of 1, 10 and 100 % of them, patients kept whole: by a line through its
features (`probe`, that of `val/qwk` in pretraining) and by `legradnet-train` (`tuned`). Three draws of patients for 1
and 10 %, the same for every start. A row is the validation films after the last epoch: no epoch is chosen by them.

OUTPUT/rows.csv has a row as soon as it is known, the most telling first; OUTPUT/table.md is the table so far. Killed,
the same command goes on, within a run too. Films are decoded once, to OUTPUT/cache.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from legradnet.data.datamodule import KneeDataModule
from legradnet.network.backbones import Backbone, BackboneSettings
from legradnet.network.weights import load_trunks
from legradnet.pretraining.watch import linear_probe

STARTS = {"random": None, "ImageNet": None, "pretrained": "random", "ImageNet, pretrained": "ImageNet"}
EPOCHS = {1: 100, 10: 30, 100: 6}  # by per cent of the grades: 300 to 1,080 steps
SEEDS = {1: (0, 1, 2), 10: (0, 1, 2), 100: (0,)}
COLUMNS = ["how", "percent", "seed", "start", "qwk", "accuracy"]
# as in experiment=oai_trunk
TUNED = ["loss=corn", "data.mirror_left=true", "augment.mirror=0.0", "augment.rotation=12.0", "model.feature_dim=256"]
TUNED += ["optimizer.backbone_scale=0.5", "callbacks.early_stopping_patience=null", "calibration=none", "test=false"]


def rows_in_order():
    """Rows of the table: all that needs no pretraining and little time, then what is dearer and what is repeated."""
    found = [("probe", percent, seed, start) for start in ("ImageNet", "random") for percent in SEEDS
             for seed in SEEDS[percent]]  # fmt: skip
    found += [("probe", percent, seed, "ImageNet, pretrained") for percent in SEEDS for seed in SEEDS[percent]]
    found += [("tuned", percent, 0, start) for percent in (10, 1) for start in ("ImageNet, pretrained", "ImageNet")]
    found += [("probe", percent, seed, "pretrained") for percent in SEEDS for seed in SEEDS[percent]]
    found += [("tuned", percent, 0, start) for percent in (10, 1) for start in ("pretrained", "random")]
    found += [("tuned", percent, seed, start) for seed in (1, 2) for percent in (10, 1) for start in STARTS]
    return found + [("tuned", 100, 0, start) for start in reversed(STARTS)]


def graded(table, percent, seed):
    """Which training films have a grade: of every patient, or of each `100 / percent`-th by their worse knee."""
    rng = np.random.default_rng([seed, percent])
    train = table[table["split"] == "train"]
    worse = train.groupby("patient")["label"].max()
    patients = worse.index[np.lexsort([rng.random(len(worse)), worse.to_numpy()])]
    every = 100 // percent
    return train["patient"].isin(patients[rng.integers(every) :: every]).reindex(table.index, fill_value=False)


class Comparison:
    """One folder of results, gone on with by whoever names it again."""

    def __init__(self, films, table, output, imagenet, backbone, size, epochs):
        self.films, self.output, self.imagenet = films, output, imagenet
        self.backbone, self.size, self.epochs = backbone, size, epochs
        self.table = pd.read_csv(table, dtype={"patient": str})
        self.rows = output / "rows.csv"
        output.mkdir(parents=True, exist_ok=True)

    def run(self):
        for how, percent, seed, start in rows_in_order():
            done = pd.read_csv(self.rows) if self.rows.exists() else pd.DataFrame(columns=COLUMNS)
            if ((done["how"] == how) & (done["percent"] == percent) & (done["seed"] == seed)
                    & (done["start"] == start)).any():  # fmt: skip
                continue
            found = (self.probed if how == "probe" else self.tuned)(percent, seed, start)
            row = dict(zip(COLUMNS, (how, percent, seed, start), strict=False)) | found
            done = pd.DataFrame([*done.to_dict("records"), row], columns=COLUMNS)
            whole = self.rows.with_suffix(".part")
            done.round(4).to_csv(whole, index=False)
            whole.replace(self.rows)
            print(*row.values(), flush=True)
            (self.output / "table.md").write_text(as_table(done))

    def weights(self, start):
        """The trunk's file that a start means, pretrained if need be; None for random weights."""
        if STARTS[start] is None:
            return self.imagenet if start == "ImageNet" else None
        folder = self.output / start.replace(", ", "_")
        trunk = folder / "checkpoints/trunk.safetensors"
        if not trunk.exists():
            table = self.output / "ungraded.csv"
            self.table.drop(columns="label").to_csv(table, index=False)
            epochs = [f"trainer.max_epochs={self.epochs}", "pretrained=false"]
            self.command("legradnet-pretrain", folder, table, self.weights(STARTS[start]), *epochs)
        return trunk

    def tuned(self, percent, seed, start):
        table, folder = self.output / f"{percent}_{seed}.csv", self.output / "tuned"
        weights = self.weights(start)
        keep = graded(self.table, percent, seed) | (self.table["split"] == "val")
        self.table[keep].to_csv(table, index=False)
        epochs, batch = EPOCHS[percent], 32 if percent == 100 else 16
        folder = self.output / f"tuned_{percent}_{seed}_{start.replace(', ', '_')}"
        steps = [f"trainer.max_epochs={epochs}", f"+trainer.check_val_every_n_epoch={epochs}"]
        steps += [f"data.batch_size={batch}", f"seed={seed}", "model.pretrained=false"]
        self.command("legradnet-train", folder, table, weights, *TUNED, *steps)
        last = pd.read_csv(folder / "metrics.csv").iloc[-1]
        assert last["epoch"] == epochs - 1
        shutil.rmtree(folder)
        return {"qwk": last["val/qwk"], "accuracy": last["val/accuracy"]}

    def command(self, name, folder, table, weights, *words):
        size = [f"data.image_size={self.size}", f"backbone.{self.backbone}.image_size={self.size}"]
        films = ["data=csv", f"data.dataset_path={self.films}", f"data.csv_path={table}"]
        films += [f"data.cache_dir={self.output / 'cache'}", "data.num_workers=0", f"hydra.run.dir={folder}"]
        start = [f"backbone.{self.backbone}.weights={weights}"] if weights else []
        resume = ["ckpt_path=last"] if (folder / "checkpoints/last.ckpt").exists() else []
        command = [Path(sys.executable).with_name(name), f"backbone={self.backbone}", *size, *films, *start, *words]
        subprocess.run([*command, *resume], check=True)

    def probed(self, percent, seed, start):
        features, labels, is_val = self.features(start)
        train = graded(self.table, percent, seed).to_numpy()
        return linear_probe(features[train], labels[train], features[is_val], labels[is_val], 5)

    def features(self, start):
        """Features of all films in the order of the table, their grades, and which are of validation."""
        kept = self.output / f"features_{start.replace(', ', '_')}.npy"
        if not kept.exists():
            features = self.computed(start)
            with kept.with_suffix(".part").open("wb") as file:
                np.save(file, features)
            kept.with_suffix(".part").replace(kept)
        labels, is_val = self.table["label"].to_numpy(), (self.table["split"] == "val").to_numpy()
        return np.load(kept), labels, is_val

    @torch.inference_mode()
    def computed(self, start):
        torch.manual_seed(0)
        weights = self.weights(start)
        name = {"lite0": "tf_efficientnet_lite0"}.get(self.backbone, self.backbone)
        settings = BackboneSettings(timm_name=name, image_size=self.size, weights=weights and str(weights))
        trunk = Backbone(settings, feature_dim=1).eval()
        load_trunks({"trunk": trunk}, {"trunk": settings}, pretrained=False)
        films = {"source": "csv", "dataset_path": str(self.films), "csv_path": str(self.output / "all.csv")}
        self.table.to_csv(films["csv_path"], index=False)
        more = {"image_size": self.size, "batch_size": 32, "cache_dir": str(self.output / "cache"), "num_workers": 0}
        data = KneeDataModule({**films, **more})
        data.setup()
        features = np.empty((len(self.table), trunk.width))
        for split in ("train", "val"):
            for batch in data.loader(split):
                features[batch.rows] = trunk.pool(batch.films.float() / 255).double().numpy()
        return features


def as_table(rows):
    """Markdown of QWK: mean, and where there are several draws, least to most."""
    lines = ["| grades | how | " + " | ".join(STARTS) + " |", "| --- | --- |" + " --- |" * len(STARTS)]
    for percent in SEEDS:
        for how in ("probe", "tuned"):
            cells = []
            for start in STARTS:
                known = rows[(rows["how"] == how) & (rows["percent"] == percent) & (rows["start"] == start)]["qwk"]
                span = f" ({known.min():.3f}-{known.max():.3f}, {len(known)})" if len(known) > 1 else ""
                cells.append(f"{known.mean():.3f}{span}" if len(known) else "")
            lines.append(f"| {percent} % | {how} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("films", "table", "output", "imagenet"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--backbone", default="lite0", help="a key of conf/backbone")
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--epochs", type=int, default=10, help="of pretraining")
    given = parser.parse_args()
    Comparison(
        given.films.resolve(),
        *(given.table, given.output.resolve(), given.imagenet.resolve()),
        *(given.backbone, given.size, given.epochs),
    ).run()
