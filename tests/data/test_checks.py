"""What a film in the table may be: inside its folder, itself, and no film twice."""

import os

import pytest
from PIL import Image
from tables_of_films import film, table, told

from legradnet.data.datamodule import KneeDataModule
from legradnet.data.manifest import (
    ManifestError,
    load_manifest,
)
from legradnet.errors import UserError


# --------------------------------------------------------------------------------------------- nothing outside is read
@pytest.mark.parametrize(
    "name", ["../secret.png", "a/../../secret.png", "{parent}/secret.png", "..", "a/link/secret.png", "link.png"]
)
def test_a_filename_cannot_leave_the_dataset(root, name, monkeypatch):
    film(root.parent, "secret.png")
    film(root, "a/b.png")
    (root / "a/link").symlink_to(root.parent)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    monkeypatch.setattr("legradnet.data.checks.fingerprint", lambda gray: pytest.fail("opened"))
    message = told(root, f"filename,label\n{name.format(parent=root.parent)},1\n", on_bad_image="skip")
    assert "filename leaves data.dataset_path" in message
    assert "No such file" not in message


def test_a_folder_whose_name_begins_alike_is_outside(root):
    film(root.parent / "films2", "a.png")
    assert "leaves data.dataset_path" in told(root, "filename,label\n../films2/a.png,1\n")


def test_an_absolute_name_inside_is_that_film_and_called_as_the_others_are(root):
    film(root, "a/b.png"), film(root, "c.png")
    (root.parent / "way").symlink_to(root)
    text = f"filename,label\n{root}/a/b.png,1\n{root.parent}/way/c.png,2\n"
    assert load_manifest(root, table(root, text), num_classes=5).table["filename"].tolist() == ["a/b.png", "c.png"]
    message = told(root, text + "c.png,2\n")
    assert "row 4 'c.png': the same file as row 3 'c.png'" in message


def test_a_link_that_leads_out_is_named_with_its_target(root):
    film(root.parent, "elsewhere/a.png")
    (root / "link.png").symlink_to(root.parent / "elsewhere/a.png")
    (root / "folder").symlink_to(root.parent / "elsewhere")
    message = told(root, "filename,label\nlink.png,1\nfolder/a.png,1\n../elsewhere/a.png,1\n")
    assert f"row 2 'link.png': is a link to {root.parent}/elsewhere/a.png, which is not in {root}" in message
    assert f"row 3 'folder/a.png': 'folder' is a link to {root.parent}/elsewhere, which is not in {root}" in message
    assert f"row 4 '../elsewhere/a.png': is not in {root}" in message


def test_backslashes_are_told_with_the_remedy(root):
    film(root, "a/b.png"), film(root, "c\\d.png")
    message = told(root, "filename,label\na\\b.png,1\nc\\d.png,2\n")
    assert "write / instead of \\ between folders" in message
    assert message.count("instead of") == 1  # a name may have one


def test_links_that_stay_inside_are_followed(root):
    film(root, "real/a.png")
    (root / "link").symlink_to(root / "real")
    (root / "b.png").symlink_to(root / "real/a.png")
    for name in ("link/a.png", "b.png"):
        assert len(load_manifest(root, table(root, f"filename,label\n{name},1\n"), num_classes=5).table) == 1
    message = told(root, "filename,label\nreal/a.png,1\nlink/a.png,1\nb.png,1\n")
    assert "row 3 'link/a.png': the same file as row 2 'real/a.png'" in message
    assert "row 4 'b.png': the same file as row 2" in message


def test_the_dataset_itself_may_be_a_link(root):
    film(root, "a.png")
    (root.parent / "link").symlink_to(root)
    manifest = load_manifest(root.parent / "link", table(root, "filename,label\na.png,1\n"), num_classes=5)
    assert manifest.root == root.resolve()


@pytest.mark.parametrize("name", [".", "a", "a/", "a/."])
def test_a_folder_is_no_film(root, name):
    (root / "a").mkdir()
    with pytest.raises(ManifestError, match="is a folder"):
        load_manifest(root, table(root, f"filename,label\n{name},1\n"), num_classes=5, verify="header")


def test_a_loop_of_links_is_told(root):
    (root / "a.png").symlink_to(root / "a.png")
    assert "symbolic links" in told(root, "filename,label\na.png,1\n")


# --------------------------------------------------------------------------------------------------------------- pixels
def test_equal_pixels_in_two_given_splits_are_an_error(root):
    film(root, "a.png", seed=1), film(root, "b.png", seed=1)
    message = told(root, "filename,label,split\na.png,1,train\nb.png,1,val\n")
    assert "row 2 'a.png' (split train) = row 3 'b.png' (split val)" in message


def test_equal_pixels_of_one_grade_are_warned_about_once(root, caplog):
    for name in "abcd":
        film(root, name, seed=ord(name) // 2)  # b and c are equal
    text = "filename,label\n" + "".join(f"{name},1\n" for name in "abcd")
    assert len(load_manifest(root, table(root, text), num_classes=5).table) == 4
    (record,) = caplog.records
    assert "1 films are there more than once" in record.message
    assert "row 3 'b' (label 1) = row 4 'c' (label 1)" in record.message


def test_a_wrong_label_is_not_told_twice(root):
    film(root, "a.png", seed=1), film(root, "b.png", seed=1)
    assert "equal pixels" not in told(root, "filename,label\na.png,1\nb.png,x\n")


def test_an_equal_picture_in_another_format_is_found(root):
    film(root, "a.png", seed=1)
    Image.open(root / "a.png").save(root / "b.bmp")
    assert "two labels" in told(root, "filename,label\na.png,1\nb.bmp,2\n")


def test_equal_bytes_in_another_shape_are_another_picture(root):
    for name, shape in (("a.png", (16, 32)), ("b.png", (32, 16))):
        Image.new("L", shape).save(root / name)
    assert len(load_manifest(root, table(root, "filename,label\na.png,1\nb.png,2\n"), num_classes=5).table) == 2


def test_headers_only_means_no_decoding(root):
    film(root, "a.png", seed=1), film(root, "b.png", seed=1)
    (root / "a.png").write_bytes((root / "a.png").read_bytes()[:90])
    path = table(root, "filename,label\na.png,1\nb.png,2\n")
    assert len(load_manifest(root, path, num_classes=5, verify="header").table) == 2
    (root / "b.png").write_text("hello")
    assert "row 3 'b.png': not a readable" in told(root, path.read_text(), verify="header")


def test_bad_films_are_skipped_and_listed(root, caplog):
    film(root, "good.png")
    (root / "text.png").write_text("hello")
    path = table(root, "filename,label\nmissing.png,0\ngood.png,1\ntext.png,2\n")
    manifest = load_manifest(root, path, num_classes=5, on_bad_image="skip")
    assert manifest.table["filename"].tolist() == ["good.png"]
    assert manifest.table.index.tolist() == [0]
    assert manifest.skipped["filename"].tolist() == ["missing.png", "text.png"]
    assert manifest.skipped["error"].tolist()[0] == "No such file or directory"
    assert manifest.skipped["error"].tolist()[1].startswith("not a readable PNG")
    assert "2 of 3 films are left out" in caplog.text


def test_skipping_hides_no_other_problem_and_not_all_films(root):
    assert "'7'" in told(root, "filename,label\nmissing.png,7\n", on_bad_image="skip")
    assert "missing or unreadable" in told(root, "filename,label\nmissing.png,1\n", on_bad_image="skip")


def test_the_number_of_threads_changes_nothing(root):
    names = [film(root, f"{i}.png") for i in range(70)]
    path = table(root, "filename,label\n" + "".join(f"{name},1\n" for name in names))
    one, many = (load_manifest(root, path, num_classes=5, workers=workers) for workers in (0, 3))
    assert one.table.equals(many.table)


def test_a_progress_bar_is_shown_only_when_asked_for(root, capsys):
    path = table(root, f"filename,label\n{film(root, 'a.png')},1\n")
    load_manifest(root, path, num_classes=5)
    assert capsys.readouterr().err == ""
    load_manifest(root, path, num_classes=5, progress=True)
    assert "Checking films" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "choices"), [("verify", "decode, header"), ("on_bad_image", "error, skip"), ("cache_key", "stat, hash")]
)
def test_an_unknown_option_lists_the_choices(option, choices):
    with pytest.raises(UserError, match=rf"data\.{option}=maybe must be one of {choices}"):
        KneeDataModule({option: "maybe"})


def test_many_films_of_one_folder_cost_one_look_each(root, monkeypatch):
    names = [film(root, f"a/{i}.png") for i in range(50)]
    path = table(root, "filename,label\n" + "".join(f"{name},1\n" for name in names))
    looks, lstat = [], os.lstat
    monkeypatch.setattr(os, "lstat", lambda path, **options: looks.append(path) or lstat(path, **options))
    load_manifest(root, path, num_classes=5, verify="header")
    assert len(looks) < 50 + 2 * len(root.parts) + 4
