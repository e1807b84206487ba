"""Tables of films as a hospital, a spreadsheet or an enemy might leave them."""

import csv
import io

import numpy as np

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "latin-1", "cp1252")
CELLS = (
    "",
    '"',
    "'",
    "=1+1",
    "a\0b",
    "../../x.png",
    "/etc/passwd",
    "x" * 100_000,
    "1,5",
    "KL 2",
    "-1",
    "1e9",
    "nan",
    "é",
)


def hostile_table(names: list[str], rng: np.random.Generator) -> bytes:
    """A table with a row a film, whatever is wrong with one of its lines or with all of it."""
    header = ["filename", "label", "patient", "side", "split", "remark"]
    cells = [
        [name, str(rng.integers(5)), f"p{i}", "LR"[rng.integers(2)], "", "knee pain"] for i, name in enumerate(names)
    ]
    line, column = int(rng.integers(len(names))), int(rng.integers(len(header)))
    kind = rng.integers(8)
    if kind == 0:
        cells[line][column] = str(rng.choice(CELLS))
    elif kind == 1:
        header[column] = str(rng.choice(header))
    elif kind == 2:
        cells[line] = cells[line][:column] or ["x"]
    elif kind == 3:
        cells[line] += ["surplus"] * column
    file = io.StringIO()
    csv.writer(file, delimiter=str(rng.choice([",", ",", ",", ";", "\t"]))).writerows([header, *cells])
    text = file.getvalue()
    if kind == 4:  # one quote where none belongs
        lines = text.split("\r\n")
        starts = [0, *(i + 1 for i, letter in enumerate(lines[line + 1]) if letter in ",;\t")]
        place = int(rng.choice(starts) if rng.integers(2) else rng.integers(len(lines[line + 1]) + 1))
        lines[line + 1] = lines[line + 1][:place] + '"' + lines[line + 1][place:]
        text = "\r\n".join(lines)
    elif kind == 5:
        text = text.replace("\r\n", str(rng.choice(["\n", "\r", "\r\n\r\n"])))
    content = text.encode(str(rng.choice(ENCODINGS)) if kind == 6 else "utf-8", errors="replace")
    if kind == 7:  # a byte that is no text, not one that ends a line
        place = int(rng.integers(len(content)))
        content = content[:place] + bytes([int(rng.choice([0, 255, 128]))]) + content[place:]
    return content
