import logging

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tables_of_films import KAGGLE, film, table, told

from legradnet.data.checks import parse_label
from legradnet.data.manifest import (
    ManifestError,
    load_manifest,
)
from legradnet.errors import UserError


# ----------------------------------------------------------------------------------------------------------- good files
def test_a_csv_becomes_one_table(root):
    film(root, "a/1.png"), film(root, "a/2.png")
    text = "site,filename,side,label,patient\nX, a/1.png ,left,3.0,007\nY,a/2.png,r,0,NA\n"
    manifest = load_manifest(root, table(root, text), num_classes=5)
    assert list(manifest.table) == ["filename", "label", "patient", "side", "split", "site"]
    assert manifest.table.to_dict("list") == {
        "filename": ["a/1.png", "a/2.png"],
        "label": [3, 0],
        "patient": ["007", "NA"],
        "side": ["L", "R"],
        "split": ["", ""],
        "site": ["X", "Y"],
    }
    assert manifest.table["label"].dtype == np.int64
    assert manifest.root == root.resolve()
    assert manifest.skipped.empty


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbffilename,label\na.png,1\n",
        b"filename,label\r\na.png,1\r\n",
        b"filename,label\ra.png,1\r",
        b' "filename" , label\na.png,1\n'.replace(b' "', b'"').replace(b'" ', b'"'),
        b" filename , label \n\n a.png , 1 \n\n",
        b"filename,label\na.png,1",
        b"filename,label,,\na.png,1,,\n,,,\n",
        b"filename,label,\xc3\xa4\na.png,1,\xf0\x9f\xa6\xb4\n",
    ],
)
def test_the_habits_of_spreadsheets_are_understood(root, text):
    film(root, "a.png")
    manifest = load_manifest(root, table(root, text), num_classes=5)
    assert manifest.table[["filename", "label"]].to_numpy().tolist() == [["a.png", 1]]
    assert "" not in manifest.table


def test_split_and_side_are_read_in_any_case(root):
    film(root, "a.png")
    manifest = load_manifest(root, table(root, "filename,label,side,split\na.png,1,RIGHT,Train\n"), num_classes=5)
    assert manifest.table.loc[0, ["side", "split"]].tolist() == ["R", "train"]


# ------------------------------------------------------------------------------------------- all problems, one message
def test_all_problems_are_told_in_one_message_with_their_rows(root):
    for name in ("good.png", "twin.png", "label.png", "side.png", "split.png", "nosplit.png"):
        film(root, name)
    film(root, "copy.png", seed=1), film(root, "paste.png", seed=1)
    (root / "broken.png").write_bytes((root / "good.png").read_bytes()[:90])
    (root / "text.png").write_text("hello")
    message = told(
        root,
        "filename,label,side,split,note\n"
        'good.png,0,L,train,"two\nlines"\n'  # rows 2 and 3
        "label.png,2.5,L,train,\n"
        "side.png,0,up,train,\n"
        "split.png,0,L,holdout,\n"
        "nosplit.png,0,L,,\n"
        ",0,L,train,\n"
        "missing.png,0,L,train,\n"
        "broken.png,0,L,train,\n"
        "text.png,0,L,train,\n"
        "../knees.csv,0,L,train,\n"
        "./x/../good.png,0,L,train,\n"
        "copy.png,1,L,train,\n"
        "paste.png,2,L,train,\n"
        "twin.png,0,L,train\n",
    )
    for line in [
        "row 4 'label.png': '2.5'",
        "row 5 'side.png': 'up'",
        "row 6 'split.png': 'holdout'",
        "row 7 'nosplit.png': ''",
        "row 8 '': ''",
        "row 9 'missing.png': No such file or directory",
        "row 10 'broken.png': ",
        "row 11 'text.png': not a readable PNG, JPEG, TIFF, BMP or DICOM image",
        "row 12 '../knees.csv': is not in ",
        "row 13 './x/../good.png': the same file as row 2 'good.png'",
        "row 14 'copy.png' (label 1) = row 15 'paste.png' (label 2)",
        "row 16 'twin.png': 4, not 5",
    ]:
        assert f"\n    {line}" in message
    assert message.count("\n    ") == 12


def test_a_long_list_of_problems_is_cut(root):
    message = told(root, "filename,label\n" + "".join(f"{i}.png,0\n" for i in range(2000)))
    assert message.count("No such file") == 10
    assert "... and 1,990 more" in message


def test_a_huge_cell_does_not_flood_the_terminal(root):
    for name in ("x" * 10_000, "x/" * 60_000, "\x1b[31m" * 100):
        message = told(root, f"filename,label\n{name},{'9' * 10_000}\n")
        assert "label is not a whole number from 0 to 4" in message
        assert "missing or unreadable" in message
        assert ("longer than 4,096 characters" in message) == (len(name) > 4096)
        assert len(message) < 1000
        assert "\x1b" not in message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        (b"filename,label\n", "a header and no rows"),
        (b"file,grade\na,1\n", "no column filename and label; found: 'file, grade'"),
        (b"filename;label\na;1\n", "separated by semicolons"),
        (b"filename\tlabel\na\t1\n", "separated by tabs"),
        (b"filename,label,label\na,1,2\n", "more than one column 'label'"),
        (b"filename,label\na,1\n\0,2\n", "row 3 '\\x00': a NUL byte"),
        ("filename,label\na,1\n".encode("utf-16"), "UTF-16"),
        (b"filename,label\na,1\n\xe4,1\n", "row 3 holds byte 0xe4; save the file as UTF-8"),
        (b'filename,label\na,1\n"b,1\nc,1\n', "row 3: unexpected end of data; is a quote missing?"),
        (b"filename,label\n" + b"x" * 200_000 + b",1\n", "xxx...': a cell of 200,000 characters, more than 131,072"),
    ],
)
def test_a_file_that_is_no_such_table_is_told_why(root, text, reason):
    message = told(root, text)
    assert reason in message
    assert "knees.csv" in message


def test_missing_places_are_named(root, tmp_path):
    with pytest.raises(ManifestError, match=r"data\.csv_path=.*missing\.csv does not exist"):
        load_manifest(root, tmp_path / "missing.csv", num_classes=5)
    with pytest.raises(ManifestError, match=r"data\.csv_path=.*films is not a file"):
        load_manifest(root, root, num_classes=5)
    with pytest.raises(ManifestError, match=r"data\.dataset_path=.*nowhere is not a folder"):
        load_manifest(tmp_path / "nowhere", table(root, "filename,label\na,1\n"), num_classes=5)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.lists(st.text(max_size=8), max_size=9).map(
            lambda cells: ("filename,label,side,split\n" + ",".join(cells)).encode("utf-8", "surrogatepass")
        ),
    )
)
def test_any_bytes_are_a_table_or_a_told_mistake(root, content):
    with pytest.raises(ManifestError) as error:
        load_manifest(root, table(root, content), num_classes=5)
    assert str(error.value)


@given(st.one_of(st.text(), st.from_regex(r"[+-]?\d{0,6}\.?\d{0,4}", fullmatch=True)), st.integers(2, 9))
def test_a_label_is_a_whole_number_of_the_classes_or_refused(text, num_classes):
    label = parse_label(text, num_classes)
    assert label in range(-1, num_classes)
    if label >= 0:
        assert float(text) == label


@given(st.integers(0, 8), st.integers(2, 9), st.integers(0, 3), st.sampled_from(["", ".", ".0", ".000"]))
def test_a_label_may_be_written_as_a_float(label, num_classes, zeros, ending):
    expected = label if label < num_classes else -1
    assert parse_label("0" * zeros + str(label) + ending, num_classes) == expected


@pytest.mark.parametrize("text", ["", "x", "2.5", "-1", "-0", "1e0", "nan", "٣", "1,0", "5", "9" * 5000, "0x1", "1 "])
def test_what_is_no_grade_is_refused(text):
    assert parse_label(text, 5) == -1


# -------------------------------------------------------------------------------------------------------------- folders
def test_both_folder_layouts_give_the_same_table(root, tmp_path):
    for name in ("train/0/9001L.png", "train/4/9002R.png", "val/1/9003.png"):
        film(root, name)
        film(tmp_path / "plain", name.partition("/")[2])
    split = load_manifest(root, num_classes=5, patient_regex=KAGGLE, verify="header").table
    plain = load_manifest(tmp_path / "plain", num_classes=5, patient_regex=KAGGLE, verify="header").table
    assert split.to_dict("list") == {
        "filename": ["train/0/9001L.png", "train/4/9002R.png", "val/1/9003.png"],
        "label": [0, 4, 1],
        "patient": ["9001", "9002", "9003"],
        "side": ["L", "R", ""],
        "split": ["train", "train", "val"],
    }
    assert plain["filename"].tolist() == ["0/9001L.png", "1/9003.png", "4/9002R.png"]
    assert plain["split"].eq("").all()
    columns = ["label", "patient", "side"]
    assert plain[columns].to_numpy().tolist() == split.sort_values("label")[columns].to_numpy().tolist()


def test_files_that_are_no_films_are_passed_over(root, caplog):
    film(root, "0/a"), film(root, "0/b.JPG"), film(root, ".git/0/a.png")
    for name in ("Thumbs.db", ".DS_Store", "notes.TXT", "labels.csv", "desktop.ini"):
        (root / "0" / name).write_text("x")
    (root / "README.md").write_text("x")
    assert load_manifest(root, num_classes=5, patient_regex=None, verify="header").table["filename"].tolist() == [
        "0/a",
        "0/b.JPG",
    ]
    assert not caplog.records


def test_unused_folders_are_warned_about_by_name(root, caplog):
    film(root, "train/0/1.png"), film(root, "auto_test/0/2.png"), film(root, "train/0/old/3.png")
    assert len(load_manifest(root, num_classes=5, patient_regex=KAGGLE).table) == 1
    assert "'auto_test', 'train/0/old'" in caplog.text


def test_a_class_folder_beyond_the_grades_is_a_problem_like_all_others(root):
    film(root, "train/0/1.png"), film(root, "train/5/2.png"), film(root, "val/severe/3.png")
    (root / "train/0/text").write_text("hello")
    with pytest.raises(ManifestError) as error:
        load_manifest(root, num_classes=5)
    assert "class folder is not one of 0 to 4 (" in str(error.value)
    assert "as 0 or 0Normal, or list the films in a CSV (data=csv)):\n    'train/5'\n    'val/severe'" in str(
        error.value
    )
    assert "'train/0/text': not a readable" in str(error.value)


def test_a_folder_without_films_is_told_the_layouts(root):
    (root / "knees").mkdir()
    with pytest.raises(ManifestError, match=r"\{train,val,test\}/\{0\.\.4\}/\* or \{0\.\.4\}/\*; found: 'knees'"):
        load_manifest(root, num_classes=5)


@pytest.mark.parametrize("split", ["", "train/"])
def test_class_folders_are_taken_by_the_number_that_they_begin_with(split, root, caplog):
    for grade, name in enumerate(("0Normal", "1 Doubtful", "2-Mild", "03_Moderate", "4Severe")):
        film(root, f"{split}{name}/{grade}.png")
    caplog.set_level(logging.INFO)
    films = load_manifest(root, num_classes=5).table
    assert films["label"].tolist() == [int(name.rpartition("/")[2][0]) for name in films["filename"]]
    assert sorted(films["label"]) == [0, 1, 2, 3, 4]
    assert f"'{split}0Normal' = 0, " in caplog.text


def test_a_plain_number_stands_before_names_and_two_names_for_one_grade_are_a_problem(root, caplog):
    film(root, "0/a.png"), film(root, "0_old/b.png"), film(root, "1/c.png")
    assert load_manifest(root, num_classes=5).table["filename"].tolist() == ["0/a.png", "1/c.png"]
    assert "1 folder in" in caplog.text and "'0_old'" in caplog.text
    film(root, "2Mild/d.png"), film(root, "2nd visit/e.png")
    with pytest.raises(ManifestError, match="'2Mild' and '2nd visit' both begin with 2"):
        load_manifest(root, num_classes=5)


@pytest.mark.parametrize("name", ["Normal", "KL0", "x0", "7Seven", "2019 study"])
def test_other_class_folders_are_told_the_remedy(name, root):
    film(root, f"train/{name}/a.png")
    with pytest.raises(ManifestError, match=rf"begin with the grade, as 0 or 0Normal.*\n    'train/{name}'"):
        load_manifest(root, num_classes=5)
    (root / "train").rename(root.parent / "other")
    with pytest.raises(ManifestError, match=rf"found: '{name}'. A class folder: let its name begin with the grade"):
        load_manifest(root.parent / "other", num_classes=5)


def test_class_folders_that_link_outside_are_not_read(root):
    film(root.parent, "other/1.png")
    (root / "0").symlink_to(root.parent / "other")
    with pytest.raises(ManifestError, match=r"'0/1\.png': '0' is a link to .*/other, which is not in"):
        load_manifest(root, num_classes=5)


# ------------------------------------------------------------------------------------------------------------- patients
def test_the_regex_fills_only_missing_columns(root):
    film(root, "9001L.png")
    path = table(root, "filename,label,patient\n9001L.png,1,A\n")
    row = load_manifest(root, path, num_classes=5, patient_regex=KAGGLE).table.loc[0]
    assert (row["patient"], row["side"]) == ("A", "L")
    path = table(root, "filename,label,side\n9001L.png,1,\n")
    row = load_manifest(root, path, num_classes=5, patient_regex=KAGGLE).table.loc[0]
    assert (row["patient"], row["side"]) == ("9001", "")


def test_names_without_a_patient_are_counted_once(root, caplog):
    for name in ("77L.png", "x.png", "y.png"):
        film(root, f"0/{name}")
    manifest = load_manifest(root, num_classes=5, patient_regex=KAGGLE)
    assert manifest.table["patient"].tolist() == ["77", "", ""]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "2 of 3 file names tell no patient" in record.message


@pytest.mark.parametrize(("regex", "reason"), [("(", "not a regular expression"), (r"(\d+)", "no group")])
def test_a_regex_without_meaning_is_told(root, regex, reason):
    film(root, "0/1.png")
    with pytest.raises(UserError, match=rf"data\.patient_regex=.*{reason}"):
        load_manifest(root, num_classes=5, patient_regex=regex)


def test_a_class_folder_that_names_no_grade_beside_others_is_told_the_remedy(root, caplog):
    film(root, "Grade 0/a.png"), film(root, "1/b.png")
    assert load_manifest(root, num_classes=5).table["filename"].tolist() == ["1/b.png"]
    assert "1 folder in" in caplog.text and "is not used: 'Grade 0' (a class folder: let its name begin" in caplog.text
    assert "as 0 or 0Normal" in caplog.text
