"""What is wrong with a site's films, model or folder is one sentence, and nothing is written."""

import csv
import shutil

import pytest

from legradnet.data.synthetic import write_knees

CALIBRATE = "legradnet-calibrate"


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """40 generated films and their CSV."""
    folder = tmp_path_factory.mktemp("films")
    write_knees(folder, 40, size=48, seed=12)
    return folder


def table(films, tmp_path, **columns):
    """The films' CSV with some columns changed: a function of the row and its number, or None to leave it out."""
    with (films / "knees.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    for name, change in columns.items():
        for number, row in enumerate(rows):
            if change is None:
                row.pop(name)
            else:
                row[name] = change(number)
    with (tmp_path / "films.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return ["data=csv", f"data.dataset_path={films}", f"data.csv_path={tmp_path / 'films.csv'}"]


def refused(typed, tmp_path, *arguments):
    """What the command says; its output folder is as it was."""
    told = typed(CALIBRATE, *arguments, f"output={tmp_path / 'SITE'}")
    assert told.returncode == 2 and "Traceback" not in told.stderr
    left = tmp_path / "SITE"
    assert not left.exists() or not [path for path in left.iterdir() if path.name[0] != "."]
    return told.stderr


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"label": None}, "no column label"),
        ({"label": lambda row: ""}, "label is not a whole number from 0 to 4"),
        ({"label": lambda row: row % 7}, "label is not a whole number from 0 to 4"),
        ({"patient": lambda row: "one"}, "All 40 films are of one patient"),
    ],
    ids=["no labels", "empty labels", "labels outside the grades", "one patient"],
)
def test_films_that_teach_nothing_are_refused(typed, best, films, tmp_path, columns, words):
    assert words in refused(typed, tmp_path, f"checkpoint={best}", *table(films, tmp_path, **columns))


def test_fewer_than_thirty_films_are_refused(typed, best, tmp_path):
    told = refused(typed, tmp_path, f"checkpoint={best}", "data=synthetic", "data.count=29", "data.seed=5")
    assert "29 labelled films are too few to calibrate on: at least 30 are needed" in told


def test_films_that_trained_the_model_are_known_by_their_pictures(typed, best, trained, tmp_path):
    told = refused(typed, tmp_path, f"checkpoint={best}", "data=synthetic", "data.count=60")
    assert "of the 60 films were training films of best.ckpt" in told


def test_a_damaged_model_is_refused(typed, site, films, tmp_path):
    shutil.copytree(site, tmp_path / "damaged")
    weights = tmp_path / "damaged/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    told = refused(typed, tmp_path, f"checkpoint={tmp_path / 'damaged'}", *table(films, tmp_path))
    assert "is damaged" in told


def test_a_folder_with_something_in_it_stays_as_it_is(typed, best, films, tmp_path):
    (tmp_path / "SITE").mkdir()
    (tmp_path / "SITE/mine.txt").write_text("mine")
    told = typed(CALIBRATE, f"checkpoint={best}", *table(films, tmp_path), f"output={tmp_path / 'SITE'}")
    assert told.returncode == 2 and "is not empty" in told.stderr
    assert [path.name for path in (tmp_path / "SITE").iterdir()] == ["mine.txt"]


def test_a_film_that_can_not_be_read_ends_it(typed, best, films, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    broken = sorted((tmp_path / "films").glob("*.png"))[0]
    broken.write_bytes(broken.read_bytes()[:200])
    told = refused(typed, tmp_path, f"checkpoint={best}", *table(tmp_path / "films", tmp_path))
    assert broken.name in told


def test_a_model_that_is_not_there_is_told(typed, films, tmp_path):
    told = refused(typed, tmp_path, f"checkpoint={tmp_path / 'none.ckpt'}", *table(films, tmp_path))
    assert "none.ckpt" in told
