"""What users type, run as they run it."""

import os
import platform
import subprocess
import sys
import tomllib
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from safetensors.torch import save

from hub_server import served
from legradnet.checkpoint import read_checkpoint
from small_runs import SMALL, command

ONE = [
    "backbone=vit",
    "backbone.vit.timm_name=test_vit",
    "backbone.vit.image_size=64",
    *SMALL[6:],
    "trainer.max_epochs=1",
]


ROOT = Path(__file__).parents[2]
PATIENT = r"(?P<patient>S\d+)(?P<side>.)"


COMMANDS = sorted(path.stem for path in (ROOT / "src/legradnet/cli").glob("[a-z]*.py"))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_the_composed_config_come_without_importing_anything_slow(name):
    program = (
        "import sys\n"
        "from hydra.core.global_hydra import GlobalHydra\n"
        f"from legradnet.cli.{name} import main\n"
        "for options in (['--help'], ['--cfg', 'job']):\n"
        f"    sys.argv = ['legradnet-{name}', *options]\n"
        "    try:\n        main()\n    except SystemExit:\n        pass\n"
        "    GlobalHydra.instance().clear()\n"
        "slow = {'torch', 'lightning', 'timm', 'numpy', 'pandas', 'scipy', 'PIL', 'matplotlib', 'pydantic'}\n"
        "slow &= set(sys.modules)\n"
        "assert not slow, slow\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Powered by Hydra" in done.stdout
    assert any(f"\n{key}:" in done.stdout for key in ("seed", "checkpoint", "input"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="left to torch elsewhere")
def test_numpy_is_told_how_many_threads_it_has_before_it_is_loaded(tmp_path):
    program = (
        "import os, sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'numpy':\n            print('threads', os.environ.get('OPENBLAS_NUM_THREADS'))\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from legradnet.cli.predict import main\n"
        "sys.argv = ['legradnet-predict', 'input=none', 'hydra.run.dir=run']\n"
        "main()\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    words = [sys.executable, "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=environment)
    assert done.returncode == 2 and "threads 1\n" in done.stdout, done.stderr


def test_every_command_is_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {f"legradnet-{name}": f"legradnet.cli.{name}:main" for name in COMMANDS}


def test_backbones_are_chosen_by_name_by_list_and_all_five(typed):
    for choice, keys in {
        "backbone=all": ["densenet", "swin", "convnext", "vit", "xception"],
        "backbone=vit": ["vit"],
        "backbone=[densenet,vit]": ["densenet", "vit"],
        "backbone=tiny": ["densenet", "swin", "convnext", "vit", "xception"],
    }.items():
        shown = typed("legradnet-train", choice, "--cfg", "job", "--package", "backbone").stdout
        assert [line[:-1] for line in shown.splitlines() if line and line[0].isalpha()] == keys


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data.batchsize=4"], ["data.batchsize is unknown; there are dataset_path, csv_path, "]),
        (["colour=red"], ["colour is unknown; there are backbone, gating, "]),
        (["gating=attention"], ["gating=attention is unknown; choose one of concat, mean, mha, mlp."]),
        (["backbone=resnet"], ["backbone=resnet is unknown; choose one of all, beit, ", "tiny, vit, xception."]),
        (["backbone=[vit,resnet]"], ["backbone=resnet is unknown; choose one of all, beit, "]),
        (["seed=(1"], ["seed: Hydra can't read the value (1: as text it is written 'seed=\"(1\"'"]),
        (["seed=1,2"], ["seed: 1,2 is several values: -m runs once for each"]),
        (["knee.png"], ["knee.png is no setting: a setting is written KEY=VALUE."]),
        (["hydra.run.dir=/proc/none"], ["/proc/none"]),
        (
            ["data.batch_size=0", "data.fit=squeeze", "model.num_classes=1", "backbone.vit.frozen=maybe"],
            [
                "data.batch_size=0",
                "data.fit=squeeze",
                "pad, crop, stretch",
                "model.num_classes=1",
                "backbone.vit.frozen",
            ],
        ),
        (["data=csv"], ["data=csv needs data.dataset_path and data.csv_path"]),
    ],
)
def test_a_mistake_is_told_in_words_with_an_exit_status(arguments, words, typed, tmp_path):
    base = ["backbone=vit", "data.count=20", "data.image_size=48", f"hydra.run.dir={tmp_path}/run"]
    if arguments[0].startswith("backbone="):
        base = base[1:]
    if arguments[0].startswith("hydra.run.dir="):
        base = base[:-1]
    done = typed("legradnet-train", *base, "model.pretrained=false", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("legradnet: ") and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_help_for_a_reader_who_leaves_ends_without_a_stack_trace():
    script = Path(sys.executable).with_name("legradnet-train")
    with subprocess.Popen([script, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@pytest.mark.parametrize("name", ["膝.png", "Röntgen [2019] (1)", "a=b.png", "a, b", "~", os.fsdecode(b"\xff.png")])
def test_a_film_of_any_name_is_found_by_the_command(name, typed, tmp_path):
    Path(tmp_path / name).write_bytes(b"no film")
    settings = ["checkpoint=none (1).ckpt", f"hydra.run.dir={tmp_path}/run [1]"]
    done = typed("legradnet-predict", *settings, f"input={name}")
    assert (done.returncode, done.stderr) == (2, "legradnet: No checkpoint at none (1).ckpt.\n")
    done = typed("legradnet-predict", *settings, f"input=not {name}")
    assert done.returncode == 2 and " does not exist." in done.stderr


def test_all_mistakes_of_a_csv_are_told_together_by_row(typed, knees, tmp_path):
    table = pd.read_csv(knees / "knees.csv", dtype=str)
    table.loc[1, "label"] = "7"
    table.loc[3, "filename"] = "../outside.png"
    table.loc[4, "filename"] = "missing.png"
    table.to_csv(tmp_path / "bad.csv", index=False)
    done = typed(
        "legradnet-train",
        *ONE,
        "model.pretrained=false",
        "data=csv",
        f"data.dataset_path={knees}",
        f"data.csv_path={tmp_path}/bad.csv",
        f"hydra.run.dir={tmp_path}/run",
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for words in ("row 3", "'7'", "row 5", "leaves data.dataset_path", "row 6", "missing.png"):
        assert words in done.stderr


def test_synthesized_films_can_be_trained_on_as_csv_and_as_folders(typed, tmp_path):
    films = tmp_path / "films"
    done = typed("legradnet-synthesize", f"output={films}", "count=30", "image_size=48")
    assert done.returncode == 0, done.stderr
    assert len(list(films.glob("*.png"))) == 30
    again = typed("legradnet-synthesize", f"output={films}", "count=many")
    assert again.returncode == 2 and "count=many must be a whole number" in again.stderr
    again = typed("legradnet-synthesize", f"output={films}", "count=30")
    assert again.returncode == 2 and "nothing in it is overwritten" in again.stderr
    assert list(tmp_path.iterdir()) == [films]  # no run folder, no log
    for row in pd.read_csv(films / "knees.csv").itertuples():
        place = tmp_path / "folders" / str(row.label)
        place.mkdir(parents=True, exist_ok=True)
        (place / row.filename).write_bytes((films / row.filename).read_bytes())
    sources = {
        "csv": ["data=csv", f"data.dataset_path={films}", f"data.csv_path={films}/knees.csv"],
        "folder": [
            "data=folder",
            f"data.dataset_path={tmp_path}/folders",
            f"data.patient_regex='{PATIENT}'",
        ],
    }
    for name, source in sources.items():
        run = tmp_path / name
        done = typed("legradnet-train", *ONE, "model.pretrained=false", *source, f"hydra.run.dir={run}")
        assert done.returncode == 0, done.stderr
        assert "GENERATED" not in done.stderr + done.stdout
        split = pd.read_csv(run / "split.csv", dtype=str)
        assert len(split) == 30
        assert split.groupby("patient")["split"].nunique().max() == 1
        assert set(split["side"]) == {"L", "R"}
        assert "test/qwk" in done.stdout


@pytest.mark.slow
def test_without_network_and_weights_it_says_at_once_what_to_do(tmp_path):
    done = command(
        "legradnet-train",
        "backbone=[vit,xception]",
        f"hydra.run.dir={tmp_path}/run",
        HF_ENDPOINT="http://127.0.0.1:9",
        HF_HOME=str(tmp_path / "hub"),
        TORCH_HOME=str(tmp_path / "torch"),
        HTTPS_PROXY="http://127.0.0.1:9",  # for what lies on other servers
        timeout=120,  # the hub would try again for four minutes
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for way_out in ("model.pretrained=false", "backbone.<key>.weights=", "hub cache", "vit_base_patch16_224"):
        assert way_out in done.stderr


@pytest.mark.slow
def test_pretrained_weights_come_from_the_hub_once_and_then_from_its_cache(tmp_path):
    torch.manual_seed(7)
    source = timm.create_model("test_vit")  # with its classifier of 1000 classes
    arguments = [*ONE, "backbone.vit.image_size=null", "backbone.vit.frozen=true", "model.pretrained=true"]
    with served({"model.safetensors": save(source.state_dict())}) as hub:
        environment = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "hub")}
        first = command("legradnet-train", *arguments, f"hydra.run.dir={tmp_path}/first", **environment)
    assert first.returncode == 0, first.stderr
    assert any(line.startswith("GET /timm/test_vit") for line in hub.asked)
    second = command("legradnet-train", *arguments, f"hydra.run.dir={tmp_path}/second", **environment)
    assert second.returncode == 0, second.stderr
    for run in ("first", "second"):
        state = read_checkpoint(tmp_path / run / "checkpoints/best.ckpt")["state_dict"]
        trunk = {
            name.removeprefix("ensemble.backbones.vit.trunk."): t for name, t in state.items() if ".trunk." in name
        }
        assert trunk.keys() == {name for name in source.state_dict() if not name.startswith("head.")}
        assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in trunk.items())


def test_multirun_gives_each_job_its_folder(typed, tmp_path):
    done = typed(
        "legradnet-train",
        "-m",
        *ONE,
        "model.pretrained=false",
        "gating=mha,mean",
        "data.count=20",
        f"hydra.sweep.dir={tmp_path}/jobs",
    )
    assert done.returncode == 0, done.stderr
    tables = [(tmp_path / "jobs" / str(job) / "metrics.csv").read_text() for job in range(2)]
    assert len(set(tables)) == 2


def test_predict_grades_a_folder_and_its_exit_status_says_whether_all_were_graded(trained, knees, typed, tmp_path):
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    done = typed("legradnet-predict", best, f"input={knees}", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert len(pd.read_csv(tmp_path / "run/predictions.csv")) == 40
    (tmp_path / "films").mkdir()
    (tmp_path / "films/bad.png").write_bytes(b"no film")
    done = typed("legradnet-predict", best, f"input={tmp_path}/films", f"hydra.run.dir={tmp_path}/bad")
    assert done.returncode == 1
    assert "1 have an error" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_evaluate_measures_a_checkpoint_on_its_own_test_films(trained, typed, blank_figures, tmp_path):
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    done = typed("legradnet-evaluate", best, "resamples=20", "joint_masked=false", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    done = typed("legradnet-evaluate", best, "split=nonsense")
    assert (done.returncode, "split=nonsense must be one of" in done.stderr) == (2, True)


@pytest.mark.parametrize("name", ["legradnet-predict", "legradnet-evaluate"])
def test_a_missing_setting_or_checkpoint_is_told_in_a_line(name, typed, tmp_path, knees):
    done = typed(name)
    assert (done.returncode, name.endswith("evaluate") or "input= is needed" in done.stderr) == (2, True)
    assert len(done.stderr.strip().splitlines()) <= 2
    settings = [f"checkpoint={tmp_path}/none.ckpt", *([f"input={knees}"] if name.endswith("predict") else [])]
    done = typed(name, *settings, f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "No checkpoint at" in done.stderr


def test_explain_draws_a_film(trained, knees, typed, tmp_path):
    film = sorted(knees.glob("*.png"))[0]
    best = f"checkpoint={trained}/checkpoints/best.ckpt"
    done = typed("legradnet-explain", best, f"input={film}", "method=gradcam++", f"hydra.run.dir={tmp_path}/run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"run/maps/{film.stem}.png").is_file()
