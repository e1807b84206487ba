"""CSV files are read whole or refused in words, and what we write is text to every table program."""

import csv
import io
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from legradnet.data.film import ImageError
from legradnet.data.inputs import list_films
from legradnet.data.sources import read_csv
from legradnet.errors import UserError
from legradnet.tables import (
    LONGEST_CELL,
    inert,
    inert_text,
    original,
    original_text,
    read_numbers,
    read_table,
    table_line,
    table_text,
)

FORMULAS = ['=HYPERLINK("http://x","y")', "+1", "-1", "@SUM(1)", "\t=1", "\r=1", " =1", "\uff1d1", "'=1", "''=1"]
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
    st.sampled_from([*FORMULAS, 'a "b"', "a,b", "a;b", "two\nlines", "a\rb", "x\r\n", " a ", "ü", ""]),
)
_SOURCE = Path(__file__).parents[1] / "src"
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@pytest.fixture
def table(tmp_path):
    def write(content):
        path = tmp_path / "knees.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


# -------------------------------------------------------------------------------------------------------------- reading
@quick
@given(
    st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["", "\ufeff"]),
)
def test_every_path_reads_whatever_csv_writes_row_for_row(tmp_path, table, rows, ending, quoting, mark):
    text = io.StringIO()
    text.write(mark)
    # a lone \r is not quoted by Python 3.11 where lines end otherwise
    writer = csv.writer(text, lineterminator=ending if quoting else "\r\n", quoting=quoting)
    writer.writerows([("filename", "label", "patient", "site"), *rows])
    path = table(text.getvalue())
    rows = [row for row in rows if any(row)]
    assert [tuple(cells) for cells in read_table(path, ["filename"]).rows] == rows
    if not rows:
        return
    names = [original(name.strip()) for name, *_ in rows]
    patients = [original_text(patient.strip()) for _, _, patient, _ in rows]
    trained_on = read_csv(path, tmp_path)
    assert not trained_on.problems
    assert trained_on.table[["filename", "patient"]].to_numpy().tolist() == [
        *map(list, zip(names, patients, strict=True))
    ]
    assert trained_on.table["site"].tolist() == [site for *_, site in rows]
    to_grade = list_films(path, tmp_path)
    assert [(film.filename, film.patient) for film in to_grade] == [*zip(names, patients, strict=True)]


@quick
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(st.sampled_from('a.png,"\n\r;\0 =/'), max_size=40).map(
            lambda text: b"filename,label\n" + text.encode()
        ),
    )
)
@example(b"II\0*")
def test_any_bytes_are_rows_to_grade_or_a_film_or_refused(tmp_path, table, content):
    path = table(content)
    try:
        films = list_films(path, tmp_path)
    except UserError:
        return
    assert films and all(film.film == path or isinstance(film.film, ImageError) for film in films)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('filename,label\na,1\n"b,1\nc,1\n', "row 3: unexpected end of data; is a quote missing?"),
        ('filename,label,n\nA,1,"knee pain\nb,2,x\nc,3,y\n', "row 2: .*is a quote missing?"),
        ('filename,label,n\na,1,"x" y\n', "row 2: .*is a quote missing?"),
        ('filename,label\na,1\n"b' + "x\n" * 70_000, "row 3: a quote opens a cell of several lines"),
        ('filename,label\na,1\n"b' + "x\n" * 70_000 + '",1\n', "row 3: a quote opens a cell of several lines"),
        ('filename,label\na,1\n"' + "x" * 200_000 + '"y,1\n', "row 3: ',' expected"),
        ("filename;label\na;1\n", "separated by semicolons"),
        ('"filename";"label"\n"a";"1"\n', "separated by semicolons"),
        ("filename\tlabel\na\t1\n", "separated by tabs"),
        ("filename;x,y\na;1,2\n", "separated by semicolons"),
        ("filename,label,label\na,1,2\n", "more than one column 'label'"),
        ("filename,filename,label\na,b,2\n", "more than one column 'filename'"),
        ("filename,label\n\n\xe4,1\n".encode("latin-1"), "row 3 holds byte 0xe4; save the file as UTF-8"),
        (b"filename,label\ra,1\r\xe4,1\r", "row 3 holds byte 0xe4; save the file as UTF-8"),
        ("filename,label\na,1\n".encode("utf-16"), "UTF-16"),
        ("filename,label\na,1\n".encode("utf-16-be"), "UTF-16"),
        ("filename,label\na,1\n".encode("utf-32"), "UTF-16|UTF-32"),
        ("", "is empty|no column"),
    ],
)
def test_training_and_predicting_refuse_the_same_tables_in_the_same_words(content, reason, table, tmp_path):
    path = table(content)
    said = []
    for read in (lambda: read_csv(path, tmp_path), lambda: list_films(path, tmp_path)):
        with pytest.raises(UserError, match=reason) as error:
            read()
        said.append(str(error.value))
    assert said[0].replace(" and label", "") == said[1]
    assert str(path) in said[0]
    assert len(said[0]) < 400


def test_a_row_behind_a_stray_quote_is_missed_though_another_quote_closes_it(table, tmp_path, knees):
    name = next(knees.glob("*.png")).name
    path = table(f'filename,label,note\nA,1,"knee pain\n{name},2,x\nc,3,y"\nd,4,z\n')
    for read in (lambda: read_csv(path, knees), lambda: list_films(path, knees)):
        with pytest.raises(UserError, match=f"row 2: a quote opens a cell that goes on to row 3, .*'{name}'"):
            read()
    path = table('filename,label,note\nA,1,"two\nlines, of, a note"\n')
    assert len(list_films(path, knees)) == len(read_csv(path, knees).table) == 1


@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("column", [0, 2])
def test_one_enormous_cell_costs_one_row(column, quote, table, tmp_path):
    cells = ["a.png", "1", "x"]
    cells[column] = f"{quote}{'y' * (LONGEST_CELL + 1)}{quote}"
    path = table(f"filename,label,note\na.png,1,\n{','.join(cells)}\nb.png,2,\n")
    films = list_films(path, tmp_path)
    assert [film.label for film in films] == [1, 1, 2]
    assert "row 3 of the CSV holds a cell of 131,073 characters" in str(films[1].film)
    assert len(films[1].filename) < 100
    draft = read_csv(path, tmp_path)
    assert len(draft.table) == 3
    assert "row 3 'yyy" in draft.problems[1] or "row 3 'a.png': a cell of 131,073" in draft.problems[1]


def test_the_longest_cell_that_is_allowed_is_read(table, tmp_path):
    path = table(f"filename,note\na.png,{'y' * LONGEST_CELL}\n")
    assert read_table(path, []).faults == {}


def test_the_limit_of_the_process_is_neither_used_nor_changed(table):
    path = table(f'filename,note\na.png,{"y" * 2000}\n"b,""c""",{"z" * 2000}\n')
    before = csv.field_size_limit(1000)
    try:
        read = read_table(path, [])
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)
    assert read.column("filename") == ["a.png", 'b,"c"']
    assert [len(cell) for cell in read.column("note")] == [2000, 2000]
    assert not read.faults


def test_numbers_that_are_none_are_told_by_row(table):
    read = read_numbers(table("epoch,qwk\n0,\n1,0.1\n"))
    assert read["epoch"].tolist() == [0, 1]
    assert read["qwk"].isna().tolist() == [True, False]
    with pytest.raises(UserError, match="row 3: qwk is no number: 'x'"):
        read_numbers(table("epoch,qwk\n0,0.5\n1,x\n"))
    with pytest.raises(UserError, match="row 3 holds 1 cells, not 2"):
        read_numbers(table("epoch,qwk\n0,0.5\n1"))


@pytest.mark.parametrize("command", ["train", "evaluate", "predict", "explain", "export"])
def test_every_command_tells_of_a_stray_quote_before_it_works(command, typed, table, knees, trained, tmp_path):
    names = sorted(path.name for path in knees.glob("*.png"))
    path = table(f'filename,label,note\n{names[0]},1,"knee pain\n{names[1]},2,x\n')
    arguments = [f"hydra.run.dir={tmp_path}/run", f"data.dataset_path={knees}"]
    if command != "train":
        arguments.append(f"checkpoint={trained}/checkpoints/best.ckpt")
    if command == "export":
        arguments += [f"output={tmp_path}/export", "precision=int8"]
    arguments += [f"input={path}"] if command in ("predict", "explain") else ["data=csv", f"data.csv_path={path}"]
    done = typed(f"legradnet-{command}", *arguments, *(["backbone=tiny"] if command == "train" else []))
    assert done.returncode == 2
    assert "row 2: unexpected end of data; is a quote missing?" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run/predictions.csv").exists()


# -------------------------------------------------------------------------------------------------------------- writing
def harmless(cell):
    return not re.match(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20]", cell)


@quick
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=5), st.booleans())
def test_what_is_written_runs_nowhere_and_is_read_back_as_it_was(table, rows, by_pandas):
    names = [(path.replace("/", "_") or "a", text) for path, text in rows]
    frame = pd.DataFrame(names, columns=["filename", "=patient"])
    lines = (table_line(row, ["filename", "patient"]) for row in names)
    path = table(table_text(frame) if by_pandas else table_line(["filename", "=patient"]) + "".join(lines))
    read = read_table(path, ["filename"])
    assert all(harmless(cell) for cells in [read.header, *read.rows] for cell in cells)
    assert [original(cells[0]) for cells in read.rows] == [name for name, _ in names]
    assert [original_text(cells[1]) for cells in read.rows] == [text for _, text in names]


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_are_text_and_paths_stay_paths(formula):
    assert harmless(inert(formula)) and harmless(inert_text(formula))
    assert Path(inert(formula)) == Path(formula)
    assert original(inert(formula)) == formula
    assert original_text(inert_text(formula)) == formula


def test_numbers_and_ordinary_text_are_written_as_ever():
    frame = pd.DataFrame(
        {"filename": ["a/b.png", "c d.png"], "label": [1, 2], "patient": ["007", "NA"], "change": [-0.5, None]}
    ).assign(mixed=[1, "x"])
    assert table_text(frame) == frame.to_csv(index=False)
    assert table_line(["a", None, -1.5, "x,y", "0 1"]) == 'a,,-1.5,"x,y",0 1\n'


def test_no_other_module_reads_or_writes_csv():
    ways = re.compile(r"csv\.(reader|writer|Dict\w+)\(|\.to_csv\(|pd\.read_csv\(|\bimport csv\b")
    found = {path.name for path in _SOURCE.rglob("*.py") if ways.search(path.read_text())}
    assert found == {"tables.py", "run_folder.py"}  # the latter as older versions did, to compare
