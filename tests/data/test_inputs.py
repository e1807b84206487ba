import shutil

import pytest

from legradnet.data.film import ImageError
from legradnet.data.inputs import list_films
from legradnet.errors import UserError


@pytest.fixture
def folder(tmp_path, knees):
    for i, name in enumerate(["b/2.png", "b/10.png", "a.png", "c.txt", "noending"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(sorted(knees.glob("*.png"))[i], tmp_path / name)
    return tmp_path


def names(source, **options):
    return [film.filename for film in list_films(source, **options)]


def test_a_folder_is_read_recursively_in_a_stable_order_and_by_content(folder):
    (folder / "notes.txt").write_text("no film")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".git").mkdir()
    (folder / ".git/x.png").write_bytes(b"")
    assert names(folder) == ["a.png", "b/10.png", "b/2.png", "c.txt", "noending"]


def test_one_file_is_one_film_whatever_its_ending(folder):
    assert names(folder / "c.txt") == [str(folder / "c.txt")]
    (folder / "broken").write_bytes(b"\0\1\2")
    assert names(folder / "broken") == [str(folder / "broken")]


def test_a_csv_is_known_by_its_content_and_may_have_labels_and_sides(folder):
    (folder / "list").write_text("filename,label,side,more\na.png,3,left,x\nb/2.png,?,,\n")
    films = list_films(folder / "list")
    assert [(film.filename, film.label, film.side) for film in films] == [("a.png", 3, "L"), ("b/2.png", None, "")]
    assert all(film.film.is_file() for film in films)


def test_names_in_a_csv_are_relative_to_dataset_path_where_given(folder, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "list.csv"
    table.write_text("filename\na.png\n")
    assert isinstance(list_films(table)[0].film, ImageError)
    assert list_films(table, folder)[0].film == folder / "a.png"


@pytest.mark.parametrize(
    ("cells", "word"),
    [
        ("missing.png", "No such file"),
        ("../outside.png", "leads out"),
        ("/etc/hostname", "leads out"),
        ("x" * 10_000, "longer"),
        ("a\0b.png", "NUL byte"),
        ("a.png,surplus", "has 2 cells"),
        ("b", "folder"),
        ("=cmd()", "No such file"),
        ("b\\2.png", "write / instead"),
        (" ", "empty"),
    ],
)
def test_a_bad_row_is_one_film_with_an_error_and_the_rest_is_listed(folder, cells, word):
    (folder / "list.csv").write_text(f"filename\n{cells}\na.png\n")
    bad, good = list_films(folder / "list.csv")
    assert isinstance(bad.film, ImageError) and word.lower() in str(bad.film).lower()
    assert good.film == folder / "a.png"


def test_a_link_out_of_the_folder_is_not_followed(folder, tmp_path_factory, knees):
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    shutil.copy(next(knees.glob("*.png")), outside)
    (folder / "link.png").symlink_to(outside)
    (folder / "linked_folder").symlink_to(outside.parent)
    films = {film.filename: film.film for film in list_films(folder)}
    assert isinstance(films["link.png"], ImageError)
    assert not any("linked_folder/" in name for name in films)
    assert isinstance(films["linked_folder"], ImageError)
    assert f"is a link to {outside}" in str(films["link.png"])
    assert f"is a link to {outside.parent}" in str(films["linked_folder"])


def test_what_cannot_be_listed_is_told(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list_films(tmp_path / "none")
    with pytest.raises(UserError, match="no film"):
        list_films(tmp_path)
    (tmp_path / "list.csv").write_text("image,label\na.png,1\n")
    with pytest.raises(UserError, match="no column filename"):
        list_films(tmp_path / "list.csv")
    (tmp_path / "utf16.csv").write_bytes("filename\na.png\n".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-8"):
        list_films(tmp_path / "utf16.csv")


def test_a_csv_of_many_columns_is_read_whole(folder):
    more = ",".join(f"column_number_{i:04d}" for i in range(400))
    (folder / "wide.csv").write_text(f"filename,{more}\na.png{',x' * 400}\n")
    assert list_films(folder / "wide.csv")[0].film == folder / "a.png"


def test_an_absolute_name_inside_the_folder_is_that_film(folder):
    (folder / "list.csv").write_text(f"filename\n{folder}/b/2.png\n")
    assert [(film.filename, film.film) for film in list_films(folder / "list.csv")] == [
        (f"{folder}/b/2.png", folder / "b/2.png")
    ]


def test_labels_and_sides_that_are_none_are_told_by_row_and_cost_no_film(folder, caplog):
    (folder / "list.csv").write_text('filename,label,side\na.png,"2,5",rechts\nb/2.png,3,L\n')
    films = list_films(folder / "list.csv")
    assert [(film.label, film.side) for film in films] == [(None, ""), (3, "L")]
    assert "1 rows have a label that is not a whole number, and count as without: row 2: '2,5'" in caplog.text
    assert "1 rows have a side that is not L, R, left or right, and count as without: row 2: 'rechts'" in caplog.text


def test_a_table_in_any_disguise_is_told_as_one_and_not_as_a_broken_film(folder):
    for name, content in (("list", b"filename;label\na.png;1\n"), ("x.txt", "filename\na.png\n".encode("utf-16"))):
        (folder / name).write_bytes(content)
        with pytest.raises(UserError, match="semicolons|UTF-16"):
            list_films(folder / name)
    (folder / "none.csv").write_text("filename\n")
    with pytest.raises(UserError, match="a header and no rows"):
        list_films(folder / "none.csv")
