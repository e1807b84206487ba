import errno
import os
import shutil

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf
from PIL import Image

from legradnet.cli import config_folder
from legradnet.data.images import read_image
from legradnet.errors import UserError
from legradnet.explain import run
from legradnet.explain.run import explain
from whole_films import CLEAR, LEFT, RIGHT, whole_film


@pytest.fixture
def settings(trained, knees, tmp_path):
    """The config of legradnet-explain for three films and a broken one in a folder below."""
    films = tmp_path / "films"
    (films / "more").mkdir(parents=True)
    for i, path in enumerate(sorted(knees.glob("*.png"))[:3]):
        shutil.copy(path, films / ("more" if i == 2 else ".") / path.name)
    (films / "zz.png").write_bytes(b"no film")
    config = OmegaConf.to_container(OmegaConf.load(config_folder() / "explain.yaml"), resolve=False)
    del config["hydra"]
    return config | {"checkpoint": str(trained / "checkpoints/best.ckpt"), "input": str(films)}


def test_every_film_gets_a_picture_maps_and_a_row(settings, tmp_path):
    assert explain(settings, tmp_path / "run") is False  # one can't be read
    table = pd.read_csv(tmp_path / "run/predictions.csv")
    assert table["error"].notna().tolist() == [False, False, False, True]
    for name in table["filename"][:3]:
        place = tmp_path / "run/maps" / name
        gray = read_image(tmp_path / "films" / name)
        maps = np.load(place.with_suffix(".npz"))
        assert set(maps) == {"fused", "swin", "vit", "native_swin", "native_vit"}
        assert maps["fused"].shape == maps["vit"].shape == gray.shape
        assert Image.open(place.with_suffix(".png")).width > 500
    assert len(list((tmp_path / "run/maps").rglob("*.*"))) == 6


def test_films_whose_names_differ_in_the_ending_alone_do_not_overwrite_each_other(settings, tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    source = next((tmp_path / "films").glob("S*.png"))
    shutil.copy(source, folder / "a.png")
    Image.open(source).save(folder / "a.bmp")
    explain(settings | {"input": str(folder)}, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run/maps").glob("*.npz")) == ["a.bmp.npz", "a.png.npz"]


@pytest.mark.skipif(os.name != "posix", reason="names of files are text here")
def test_every_film_has_maps_of_its_own_whatever_films_and_folders_are_called(settings, tmp_path):
    folder = tmp_path / "odd"
    (folder / "x.png").mkdir(parents=True)
    source = next((tmp_path / "films").glob("S*.png"))
    for name in ("a.jpg", "a.png", "a.png.jpg", os.fsdecode(b"k\xff.png"), "l" * 251, "x", "x.png/y.png"):
        shutil.copy(source, folder / name)
    assert explain(settings | {"input": str(folder)}, tmp_path / "run") is True
    films = pd.read_csv(tmp_path / "run/predictions.csv")["filename"].tolist()
    assert films == ["a.jpg", "a.png", "a.png.jpg", "k\\xff.png", "l" * 251, "x", "x.png/y.png"]
    maps = tmp_path / "run/maps"
    assert len(list(maps.rglob("*.npz"))) == len([path for path in maps.rglob("*.png") if path.is_file()]) == 7
    assert {"a.jpg.png", "a.png.png", "a.png.jpg.png", "k\\xff.png"} < {path.name for path in maps.glob("*.png")}
    renamed = pd.read_csv(tmp_path / "run/maps.csv", index_col="filename")["map"]
    assert list(renamed.index) == ["l" * 251, "x"] and renamed["x"] == "maps/x_2.png"
    assert all((tmp_path / "run" / place).is_file() for place in renamed)


def test_maps_of_the_knees_of_a_whole_film_go_by_film_and_knee(settings, tmp_path):
    Image.fromarray(whole_film(RIGHT, LEFT, seed=CLEAR)).save(tmp_path / "legs.png")
    (tmp_path / "list.csv").write_text("filename,knee,label\nlegs.png,R,1\nlegs.png,left,3\n")
    assert explain(settings | {"input": str(tmp_path / "list.csv")}, tmp_path / "run") is True
    table = pd.read_csv(tmp_path / "run/predictions.csv", dtype=str)
    assert table[["filename", "knee", "label"]].to_numpy().tolist() == [["legs.png", "R", "1"], ["legs.png", "L", "3"]]
    places = pd.read_csv(tmp_path / "run/maps.csv").to_numpy().tolist()
    assert places == [["legs.png", "R", "maps/legs_R.png"], ["legs.png", "L", "maps/legs_L.png"]]
    for side, box in zip("RL", table["box"], strict=True):
        x, y, width = map(int, box.split())
        fused = np.load(tmp_path / f"run/maps/legs_{side}.npz")["fused"]
        assert fused.shape == (300, 400)
        fused[y : y + width, x : x + width] = 0
        assert not fused.any()


def test_a_map_that_a_file_system_has_no_name_for_is_its_films_own_trouble(settings, tmp_path, monkeypatch):
    whole = run.written_whole

    def refusing(target):
        if target.name == "zz.npz":
            raise OSError(errno.EILSEQ, os.strerror(errno.EILSEQ), str(target))
        return whole(target)

    monkeypatch.setattr(run, "written_whole", refusing)
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.png", "zz.png"):
        shutil.copy(next((tmp_path / "films").glob("S*.png")), folder / name)
    assert explain(settings | {"input": str(folder)}, tmp_path / "run") is False
    errors = pd.read_csv(tmp_path / "run/predictions.csv")["error"]
    assert errors.isna().tolist() == [True, False]
    assert errors[1].startswith("its map can't be written as zz: ")


def test_one_film_is_written_below_maps_wherever_it_lies(settings, tmp_path):
    film = next((tmp_path / "films").glob("S*.png"))
    assert explain(settings | {"input": str(film), "method": "occlusion", "target": 4}, tmp_path / "run") is True
    assert [path.name for path in (tmp_path / "run/maps").rglob("*.npz")] == [f"{film.stem}.npz"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"method": "lime"}, "method=lime is unknown; choose one of gradcam"),
        ({"methods": ["gradcam", "gate"], "faithfulness": True}, "must be a list, '.gradcam,occlusion.', of gradcam"),
        ({"methods": "gradcam"}, "methods=gradcam must be a list"),
        ({"methods": []}, "methods=.. must be a list"),
        ({"sample": 0}, "sample=0 must be a whole number"),
        ({"target": "worst"}, "target=worst must be one of predicted, expected"),
        ({"target": 7}, "target=7"),
        ({"input": "nowhere"}, "does not exist"),
    ],
)
def test_mistakes_are_told_in_words(settings, tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        explain(settings | changes, tmp_path / "run")


@pytest.fixture
def labelled(settings, knees):
    return settings | {"input": str(knees / "knees.csv"), "resamples": 50}


def test_the_gate_over_a_csv_is_a_table_a_figure_and_what_each_backbone_is_worth(labelled, tmp_path):
    assert explain(labelled | {"method": "gate"}, tmp_path / "run") is True
    weights = pd.read_csv(tmp_path / "run/gate.csv")
    assert set(weights["group"]) == {"all", "label", "grade", "right"}
    assert {"swin", "vit"} <= set(weights)
    assert list(pd.read_csv(tmp_path / "run/ablation.csv")["backbone"]) == ["swin", "vit"]
    assert Image.open(tmp_path / "run/gate.png").width > 1000
    assert pd.read_csv(tmp_path / "run/predictions.csv")["grade"].notna().all()
    assert not (tmp_path / "run/maps").exists()


def test_films_that_cannot_be_read_are_rows_and_the_gate_is_told_of_the_rest(settings, tmp_path):
    assert explain(settings | {"method": "gate"}, tmp_path / "run") is False
    assert pd.read_csv(tmp_path / "run/predictions.csv")["error"].notna().tolist() == [False, False, False, True]
    weights = pd.read_csv(tmp_path / "run/gate.csv")
    assert weights["films"].max() == 3


def test_labels_that_the_network_does_not_know_are_told(labelled, knees, tmp_path, caplog):
    films = pd.read_csv(knees / "knees.csv").head(4)
    films.loc[0, "label"] = 9
    films.to_csv(tmp_path / "odd.csv", index=False)
    asked = labelled | {"input": str(tmp_path / "odd.csv"), "method": "gate"}
    assert explain(asked | {"data": {"dataset_path": str(knees)}}, tmp_path / "run") is True
    assert "1 films have a label that the network doesn't know" in caplog.text


@pytest.mark.slow
def test_faithfulness_is_a_table_a_figure_and_words_of_a_seeded_sample(labelled, tmp_path, capsys):
    asked = labelled | {"faithfulness": True, "methods": ["gradcam"], "sample": 4, "seed": 5}
    asked |= {"steps": 2, "resamples": 20}
    for name in ("run", "again"):
        assert explain(asked, tmp_path / name) is True
    for name in ("faithfulness.csv", "faithfulness.txt", "predictions.csv", "faithfulness.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    words = (tmp_path / "run/faithfulness.txt").read_text()
    assert words.startswith("4 films of ") and "gradcam of vit" in words and words in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "run/predictions.csv")) == 4
    assert explain(asked | {"seed": 6}, tmp_path / "other") is True
    one, other = (pd.read_csv(tmp_path / name / "predictions.csv")["filename"] for name in ("run", "other"))
    assert set(one) != set(other)


def test_a_film_that_cannot_be_read_is_not_part_of_the_sample_but_told(settings, tmp_path):
    asked = settings | {"faithfulness": True, "methods": ["gradcam"], "steps": 2, "resamples": 10}
    assert explain(asked, tmp_path / "run") is False
    assert (tmp_path / "run/faithfulness.txt").read_text().startswith("3 films of 3 patients")
    assert pd.read_csv(tmp_path / "run/predictions.csv")["error"].notna().sum() == 1
