"""Tables in which a row is a knee of a whole film."""

import numpy as np
import pytest
from tables_of_films import film, table, told

from hostile_films import dicom, dicom_bytes
from legradnet.data.datamodule import KneeDataModule
from legradnet.data.manifest import load_manifest


def rows(root, text):
    return load_manifest(root, table(root, text), num_classes=5, knees=True).table


def test_a_film_may_be_named_once_for_each_knee_and_is_one_patients(root):
    film(root, "a.png"), film(root, "b.png"), film(root, "c.png")
    text = "filename,knee,label,patient\na.png,right,1,\na.png,L,3,\nb.png,L,2,P7\nb.png,R,2,\nc.png,,0,\n"
    found = rows(root, text)
    assert found[["filename", "knee", "side", "label", "patient"]].to_numpy().tolist() == [
        ["a.png", "R", "R", 1, "a.png"],
        ["a.png", "L", "L", 3, "a.png"],
        ["b.png", "L", "L", 2, "P7"],
        ["b.png", "R", "R", 2, "P7"],
        ["c.png", "", "", 0, ""],
    ]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a.png,R,1,,\na.png,R,1,,", "row 3 'a.png': the same file as row 2 'a.png'"),
        ("a.png,R,1,,\na.png,,1,,", "the same file as row 2"),
        ("a.png,,1,,\na.png,R,1,,", "the same file as row 2"),
        ("a.png,R,1,,\n../films/a.png,R,1,,", "the same file as row 2"),
        ("a.png,both,1,,", "knee is not L, R, left, right or empty:\n    row 2 'a.png': 'both'"),
        ("a.png,R,1,L,", "side is not that of the knee:\n    row 2 'a.png': 'L'"),
        ("a.png,R,1,,P1\na.png,L,1,,P2", "knees of a film are in two patients:\n    row 3 'a.png'"),
    ],
)
def test_rows_that_contradict_each_other_are_told(root, lines, words):
    film(root, "a.png")
    assert words in told(root, f"filename,knee,label,side,patient\n{lines}\n", knees=True)


def test_knees_of_a_film_in_two_splits_are_told(root):
    film(root, "a.png")
    text = "filename,knee,label,split\na.png,R,1,train\na.png,L,1,test\n"
    assert "knees of a film are in two splits" in told(root, text, knees=True)


def test_copies_of_a_film_are_compared_knee_by_knee(root):
    film(root, "a.png", seed=1), film(root, "b.png", seed=1)
    header = "filename,knee,label\na.png,R,1\na.png,L,3\n"
    assert len(rows(root, f"{header}b.png,L,3\n")) == 3
    assert "equal pixels under two labels" in told(root, f"{header}b.png,L,2\n", knees=True)


def test_a_tag_of_one_side_counts_for_a_film_of_one_knee_alone(root):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30)).astype(np.uint8)
    for name in ("one", "both"):
        (root / f"{name}.dcm").write_bytes(dicom_bytes(dicom(pixels, ImageLaterality="R")))
        pixels = pixels[::-1].copy()
    both = "filename,knee,label\nboth.dcm,L,1\nboth.dcm,R,1\n"
    assert rows(root, f"{both}one.dcm,,2\n")["side"].tolist() == ["L", "R", "R"]
    assert "L, but the file says R" in told(root, f"{both}one.dcm,L,2\n", knees=True)


@pytest.mark.parametrize(
    "text",
    ["filename,knee,label\na.png,R,1\na.png,L,3\n", 'filename,knee,box,label\na.png,R,"1 2 9",1\n'],
    ids=["both knees", "a square"],
)
def test_training_takes_squares_and_tells_the_command_that_cuts_them(root, text):
    film(root, "a.png")
    told_of = told(root, text)
    assert f"legradnet-crop input={root.parent}/knees.csv data.dataset_path={root} output=KNEES" in told_of
    assert "data.csv_path=KNEES/knees.csv" in told_of


def test_a_column_knee_of_films_that_are_one_knee_each_stays_what_it_is(root):
    film(root, "a.png"), film(root, "b.png")
    module = KneeDataModule(
        {"source": "csv", "dataset_path": str(root), "cache": "off", "csv_path": str(
            table(root, "filename,knee,label\na.png,Right,1\nb.png,2,3\n"))}
    )  # fmt: skip
    module.read()
    assert module.table["knee"].tolist() == ["Right", "2"]
