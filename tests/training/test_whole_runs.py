"""Runs as a user types them: the quick start, two processes, the five at full size, real knees, loggers."""

import json
from pathlib import Path

import pandas as pd
import pytest

from legradnet.checkpoint import read_checkpoint
from legradnet.data.synthetic import write_knees
from small_runs import SMALL, command

OAI = Path(__file__).parents[3] / "shared" / "oai"
needs_real_knees = pytest.mark.skipif(not OAI.is_dir(), reason="the real knees are not on this machine")


@pytest.mark.slow
def test_quickstart_reaches_a_qwk_of_090_and_says_where_everything_is(tmp_path):
    done = command(
        "legradnet-train",
        "experiment=quickstart",
        f"hydra.run.dir={tmp_path}/run",
        timeout=900,
        OMP_NUM_THREADS="1",  # beside it another worker of pytest has its tests
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run/test_metrics.json").read_text())
    assert metrics["test/qwk"] >= 0.90
    assert "GENERATED" in done.stdout + done.stderr
    for words in ("test/qwk", "best.ckpt", "metrics.csv", "split.csv", "test_metrics.json"):
        assert words in done.stdout


@pytest.mark.slow
def test_two_gloo_processes_train_together(tmp_path):
    done = command(
        "legradnet-train",
        *SMALL,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        "callbacks.ema_decay=0.9",
        f"hydra.run.dir={tmp_path}",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["epoch"].tolist() == [0, 1]
    assert table["step"].tolist() == [2, 4]  # 42 films, 21 a process, 8 a batch
    assert (tmp_path / "test_metrics.json").is_file()


def full_size_batch(tmp_path, *data):
    done = command(
        "legradnet-train",
        "backbone=all",
        "gating=mha",
        "model.pretrained=false",
        "data.batch_size=2",
        "trainer.fast_dev_run=true",
        "trainer=cpu",
        f"hydra.run.dir={tmp_path}/run",
        *data,
        timeout=900,
        OMP_NUM_THREADS="1",  # beside it another worker of pytest has its tests
    )
    assert done.returncode == 0, done.stderr
    assert "went through" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_five_at_full_size_train_and_validate_on_generated_films_of_224_pixels(tmp_path):
    write_knees(tmp_path / "films", 20, size=224)
    full_size_batch(
        tmp_path, "data=csv", f"data.dataset_path={tmp_path}/films", f"data.csv_path={tmp_path}/films/knees.csv"
    )


@pytest.mark.by_hand
@needs_real_knees
def test_the_five_at_full_size_train_and_validate_on_real_knees(tmp_path):
    full_size_batch(
        tmp_path, "data=csv", f"data.dataset_path={OAI}", f"data.csv_path={OAI}/knees.csv", "data.verify=header"
    )


@pytest.mark.by_hand
@needs_real_knees
def test_csv_and_folders_of_the_real_knees_are_the_same_data(tmp_path):
    tables = []
    for name, source in {"csv": ["data=csv", f"data.csv_path={OAI}/knees.csv"], "folder": ["data=folder"]}.items():
        done = command(
            "legradnet-train",
            *SMALL[6:],
            "backbone=vit",
            "backbone.vit.timm_name=tiny_vit",
            "trainer.max_epochs=1",
            *source,
            f"data.dataset_path={OAI}",
            "+trainer.limit_train_batches=1",
            f"hydra.run.dir={tmp_path}/{name}",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        tables.append(pd.read_csv(tmp_path / name / "split.csv", dtype=str).sort_values("filename", ignore_index=True))
    pd.testing.assert_frame_equal(*tables)
    assert tables[0].groupby("patient")["split"].nunique().max() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "left_behind"), [("tensorboard", "tensorboard"), ("mlflow", "mlruns"), ("wandb", "wandb")]
)
def test_loggers_write_beside_metrics_csv(name, left_behind, tmp_path):
    pytest.importorskip(name)
    done = command(
        "legradnet-train", *SMALL, f"logger={name}", f"hydra.run.dir={tmp_path}/run", timeout=300, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / left_behind).is_dir()
    assert len(pd.read_csv(tmp_path / "run/metrics.csv")) == 2


@pytest.mark.by_hand
def test_a_compiled_run_trains_and_its_checkpoint_is_like_any_other(tmp_path):
    one = [*SMALL, "~backbone.swin", "trainer.max_epochs=1"]
    done = command("legradnet-train", *one, "compile=true", f"hydra.run.dir={tmp_path}/run", timeout=900)
    assert done.returncode == 0, done.stderr
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert not any("_orig_mod" in name for name in read_checkpoint(best)["state_dict"])
    again = command("legradnet-train", *one, f"init_from={best}", f"hydra.run.dir={tmp_path}/plain")
    assert again.returncode == 0, again.stderr
