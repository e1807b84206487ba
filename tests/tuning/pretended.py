"""`legradnet-train` whose training is a formula of milliseconds: for searches of many trials.

Run as a program it is the whole command, for other launchers and for kills; `train` alone can stand in for the real
one.
"""

import math
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from legradnet.errors import UserError
from legradnet.run_folder import RunFolder
from legradnet.settings import checked
from legradnet.training.settings import TrainSettings


def train(config, run_folder, *, callbacks=(), resumable=True):
    """Pretend to train: val/qwk is highest at a learning rate of 1e-3 and rises by epoch, val/ece falls with dropout.

    `+trainer.pretend.<what>=` says what goes wrong: `mistake`, `error`, `nan` and `kill` are learning rates above which
    that happens (`kill` once, which a file in the sweep's folder remembers), `seconds` an epoch takes time.
    """
    checked(TrainSettings, config)
    folder, wrong = RunFolder(Path(run_folder)), config["trainer"].get("pretend", {})
    folder.path.mkdir(parents=True, exist_ok=True)
    assert not folder.metrics.exists(), "a finished trial is run again"
    rate = config["optimizer"]["learning_rate"]
    folder.write_config(config)
    if rate > wrong.get("mistake", math.inf):
        raise UserError("a mistake of this trial")
    if rate > wrong.get("error", math.inf):
        raise RuntimeError("an error of this trial")
    killed = folder.path.parent / "killed"
    if rate > wrong.get("kill", math.inf) and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    rows = []
    for epoch in range(config["trainer"]["max_epochs"]):
        time.sleep(wrong.get("seconds", 0))
        qwk = 1 - abs(math.log10(rate) + 3) / 4 - 1 / (epoch + 3) + 0.01 * (config["data"]["fold"] or 0)
        values = {"val/qwk": qwk, "val/ece": 0.5 - config["model"]["dropout"] * qwk}
        if rate > wrong.get("nan", math.inf):
            values["val/qwk"] = math.nan
        rows.append({"epoch": epoch, **values})
        pd.DataFrame(rows).to_csv(folder.metrics, index=False)
        trainer = SimpleNamespace(
            is_global_zero=True,
            callback_metrics=values,
            current_epoch=epoch,
            should_stop=False,
            strategy=SimpleNamespace(broadcast=lambda value: value),
        )
        for callback in callbacks:
            callback.on_train_epoch_end(trainer, None)
        if trainer.should_stop:
            break
    folder.best.parent.mkdir(exist_ok=True)
    folder.best.touch()
    if resumable:
        folder.last.touch()
    return folder.best_epoch().get("val/qwk", math.nan)


def _pretend(config, run_folder):
    from legradnet.cli.train import _train
    from legradnet.tuning import objective

    objective.train = train
    return _train(config, run_folder)


if __name__ == "__main__":
    from legradnet.cli import run
    from legradnet.cli.train import _keys

    sys.modules.setdefault("pretended", sys.modules["__main__"])
    run("train", _pretend, _keys)
