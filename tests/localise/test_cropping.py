import pandas as pd
from PIL import Image

from legradnet.data.manifest import load_manifest
from whole_films import LEFT, RIGHT, whole_film


def test_cropped_knees_are_a_table_that_training_takes(typed, tmp_path):
    films = tmp_path / "films"
    films.mkdir()
    Image.fromarray(whole_film(RIGHT, LEFT)).save(films / "a.png")
    Image.fromarray(whole_film(RIGHT, LEFT, seed=3)).save(films / "b.png")
    (films / "c.png").write_bytes(b"no film")
    pd.DataFrame(
        [["a.png", "R", 2], ["a.png", "L", 3], ["b.png", "L", 0], ["c.png", "", 1]],
        columns=["filename", "knee", "label"],
    ).to_csv(films / "list.csv", index=False)
    done = typed("legradnet-crop", f"input={films}/list.csv", f"output={tmp_path}/out")
    assert done.returncode == 1, done.stderr  # c.png
    table = pd.read_csv(tmp_path / "out/knees.csv")
    assert table[["filename", "label", "patient", "side"]].to_numpy().tolist() == [
        ["knees/a_R.png", 2, "a.png", "R"],
        ["knees/a_L.png", 3, "a.png", "L"],
        ["knees/b_L.png", 0, "b.png", "L"],
    ]
    side = int(table["box"][0].split()[-1])
    assert Image.open(tmp_path / "out/knees/a_R.png").size == (side, side)
    assert "c.png" in (tmp_path / "out/left_out.csv").read_text()
    assert Image.open(tmp_path / "out/sheet_1.png").width > 200
    manifest = load_manifest(tmp_path / "out", tmp_path / "out/knees.csv", num_classes=5)
    assert len(manifest.table) == 3


def test_squares_come_in_one_size_where_it_is_given(typed, tmp_path):
    Image.fromarray(whole_film(RIGHT, LEFT)).save(tmp_path / "a.png")
    done = typed("legradnet-crop", f"input={tmp_path}/a.png", f"output={tmp_path}/out", "image_size=64")
    assert done.returncode == 0, done.stderr
    assert [Image.open(path).size for path in (tmp_path / "out/knees").iterdir()] == [(64, 64)] * 2
    again = typed("legradnet-crop", f"input={tmp_path}/a.png", f"output={tmp_path}/out")
    assert again.returncode == 2 and "not empty" in again.stderr
