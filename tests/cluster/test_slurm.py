"""A real SLURM cluster of two nodes on this machine: archives with a node that dies, training on both, a search."""

import json
import os
import shutil

import pandas as pd
import pytest
from slurm_cluster import NEEDED, Cluster

from legradnet.cli import config_folder
from small_runs import SMALL

pytestmark = [pytest.mark.by_hand, pytest.mark.timeout(3600)]
SCRIPT = config_folder() / "cluster/legradnet.sbatch"
TWO = [*(word for word in SMALL if word != "trainer=cpu"), "trainer=ddp", "trainer.accelerator=cpu"]
TWO += ["trainer.num_nodes=2", "trainer.max_epochs=8", "calibration=none", "test=false"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    if missing := [name for name in NEEDED if not shutil.which(name)]:
        pytest.skip(f"Debian's slurm-wlm and munge are not installed ({', '.join(missing)})")
    if os.getuid() != 0:
        pytest.skip("only root may start slurmd")
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    yield cluster
    cluster.stop()


def test_two_nodes_train_to_the_same_numbers_when_their_job_was_requeued(cluster, tmp_path):
    both = ["--nodes=2", "--ntasks-per-node=1", SCRIPT, "legradnet-train", *TWO]
    whole = cluster.submit(*both, "hydra.run.dir=whole", cwd=tmp_path)
    cluster.finish(whole)
    job = cluster.submit(*both, cwd=tmp_path)
    run = tmp_path / f"outputs/train/slurm_{job}_0"  # as nobody named another
    cluster.wait(lambda: (run / "metrics.csv").is_file() and "\n1," in (run / "metrics.csv").read_text())
    cluster.call("scancel", "--signal=USR1", job)
    cluster.wait(lambda: cluster.state(job, name="Restarts") == "1")
    cluster.finish(job)
    told = (tmp_path / f"slurm-{job}.out").read_text()
    assert f"SLURM's signal: job {job} is requeued" in told and told.count("epoch 0  train/loss") == 1, told
    for name in ("metrics.csv", "split.csv"):
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [path.name for path in (tmp_path / "outputs/train").iterdir()] == [run.name]


def test_tasks_devices_and_nodes_that_disagree_are_told_by_srun_at_once(cluster, tmp_path):
    for words, nodes, told in (
        (["trainer.num_nodes=3"], 2, "srun has started 2 processes on 2 nodes, and"),
        (["trainer.devices=2"], 2, "they must be 1 and 2"),
        (["trainer=cpu"], 2, "each of which would train alone: add trainer=ddp"),
        ([], 1, "trainer.num_nodes=2 needs torchrun or srun, and srun has started 1 process on 1 node"),
    ):
        srun = ["srun", f"--nodes={nodes}", f"--ntasks={nodes}", "legradnet-train", *TWO]
        if "trainer=cpu" in words:
            srun = [word for word in srun if word not in ("trainer=ddp", "trainer.num_nodes=2")]
        said = cluster.call(*srun, *words, check=False, cwd=tmp_path)
        assert told in said and "Traceback" not in said, said
    assert not list((tmp_path / "outputs/train").glob("*/*"))


def test_an_archive_is_whole_though_a_node_died(cluster, tmp_path, knees, best):
    predict = ["legradnet-predict", f"checkpoint={best}", f"input={knees / 'knees.csv'}", "batch_size=4", "film=crop"]
    predict += [f"data.dataset_path={knees}"]
    job = cluster.submit("--array=0-3", SCRIPT, *predict, f"hydra.run.dir={tmp_path / 'parts'}", cwd=tmp_path)
    on_n2 = ["squeue", "-h", "-w", "n2", "-t", "R", "-o", "%A"]
    cluster.wait(lambda: cluster.call(*on_n2, check=False).strip())
    cluster.kill_node("n2")
    cluster.finish(job)
    merged = cluster.call("legradnet-predict", f"merge={tmp_path / 'parts'}", f"hydra.run.dir={tmp_path / 'merged'}")
    assert "Traceback" not in merged
    cluster.call(*predict, f"hydra.run.dir={tmp_path / 'one'}")
    for name in ("predictions.csv", "predictions.jsonl"):
        assert (tmp_path / "merged" / name).read_bytes() == (tmp_path / "one" / name).read_bytes()
    marks = [json.loads(path.read_text()) for path in (tmp_path / "parts").glob("*/done.json")]
    assert sorted(mark["number"] for mark in marks) == [0, 1, 2, 3]
    cluster.call("slurmd", "-f", cluster.folder / "slurm.conf", "-N", "n2")  # for whoever comes next
    cluster.wait(lambda: cluster.call("sinfo", "-h", "-o", "%T", check=False).split() == ["idle"])


def test_tasks_of_an_array_are_workers_of_one_search(cluster, tmp_path):
    small = ["backbone=vit", "backbone.vit.timm_name=tiny_vit", "backbone.vit.image_size=48", "model.pretrained=false"]
    small += [word for word in SMALL if word.startswith(("model.", "data.", "trainer"))]
    search = ["legradnet-train", "-m", *small, "tuning=custom", "optimizer.learning_rate=interval(1e-4,1e-2)"]
    search += ["hydra.sweeper.n_trials=4", "hydra.sweeper.storage=journal:outputs/train/custom/study.journal"]
    job = cluster.submit("--array=1-2", SCRIPT, *search, cwd=tmp_path)
    cluster.finish(job)
    trials = pd.read_csv(tmp_path / "outputs/train/custom/trials.csv")
    told = "".join(path.read_text() for path in tmp_path.glob("slurm-*.out"))
    assert trials["state"].tolist() == ["complete"] * 4, told
    assert (tmp_path / "outputs/train/custom/experiment/best.yaml").is_file()
