"""Check a CSV of a million rows with every check that needs no pixels: promised are under 60 s and under 2 GB.

    python tests/benchmarks/rows.py [--json PATH] [--rows N] [--folder FOLDER]

The rows name links to a few small films in 1,000 folders, made in a temporary folder inside --folder, on a local disk.
Each measurement is a process of its own:

- check: read the CSV, check its cells, find every file inside the folder, split by patient; no film is opened;
- header: the same, as `data.verify=header` does it, which opens every film as well;
- list: list the films for `legradnet-predict`.

A run with a tenth of the rows shows whether the cost of a row grows with their number.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SECONDS, GIGABYTES, FOLDERS, PER_FILE = 60, 2.0, 1000, 20_000  # a file system allows only so many links to a file


def make(folder: Path, rows: int) -> None:
    """`rows` films named by `rows.csv`, and by `tenth.csv` a tenth of them."""
    rng = np.random.default_rng(0)
    for number in range(FOLDERS):
        (folder / "films" / f"{number:03d}").mkdir(parents=True)
    lines = ["filename,label,patient,side,split,site"]
    for row in range(rows):
        if row % PER_FILE == 0:
            film = folder / f"film{row}.png"
            Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(film)
        name = f"{row % FOLDERS:03d}/{9_000_000 + row // 2}{'LR'[row % 2]}.png"
        os.link(film, folder / "films" / name)
        split = ("train", "train", "train", "val", "test")[row // 2 % 5]
        lines.append(f"{name},{row // 10 % 5},{9_000_000 + row // 2},{'LR'[row % 2]},{split},site {row % 7}")
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    (folder / "tenth.csv").write_text("\n".join(lines[: rows // 10 + 1]) + "\n")


def measure(what: str, folder: Path, table: str) -> None:
    """In a process of its own: print seconds, gigabytes and rows."""
    from legradnet.data.inputs import list_films
    from legradnet.data.manifest import load_manifest
    from legradnet.data.settings import DataSettings
    from legradnet.data.sources import read_csv
    from legradnet.data.splits import assign_splits, check_splits

    start, of_cpu = time.perf_counter(), time.process_time()
    if what == "check":
        draft = read_csv(folder / table, (folder / "films").resolve())
        draft.check_cells(5)
        draft.check_files()
        assert not draft.problems
        check_splits(assign_splits(draft.table, DataSettings(val_fraction=0.1, test_fraction=0.1)), 5)
        rows = len(draft.table)
    elif what == "header":
        manifest = load_manifest(folder / "films", folder / table, num_classes=5, verify="header")
        check_splits(assign_splits(manifest.table, DataSettings(val_fraction=0.1, test_fraction=0.1)), 5)
        rows = len(manifest.table)
    else:
        rows = len(list_films(folder / table, folder / "films"))
    spent = time.perf_counter() - start
    of_cpu = time.process_time() - of_cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    print(json.dumps({"seconds": spent, "cpu_seconds": of_cpu, "gigabytes": peak, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the CSV")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        what, folder, table = arguments.measure
        measure(what, Path(folder), table)
        return
    figures = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        make(Path(folder), arguments.rows)
        for what in ("check", "header", "list"):
            for table in ("tenth.csv", "rows.csv"):
                command = [sys.executable, __file__, "--measure", what, folder, table]
                figures[f"{what} {table}"] = json.loads(subprocess.check_output(command))
    print(f"{'':18}{'rows':>10}{'seconds':>10}{'of CPU':>10}{'GB':>7}{'CPU us a row':>14}")
    for name, figure in figures.items():
        per_row = 1e6 * figure["cpu_seconds"] / figure["rows"]
        print(f"{name:18}{figure['rows']:>10,}{figure['seconds']:>10.1f}{figure['cpu_seconds']:>10.1f}", end="")
        print(f"{figure['gigabytes']:>7.2f}{per_row:>14.1f}")
    whole = figures["check rows.csv"]
    kept = whole["seconds"] < SECONDS and whole["gigabytes"] < GIGABYTES
    print(f"promised under {SECONDS} s and {GIGABYTES} GB for 1,000,000 rows: {'kept' if kept else 'BROKEN'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"load": os.getloadavg()[0], "figures": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
