"""What a long list costs: films a second and memory of `legradnet-predict` by rows and processes.

    python tests/benchmarks/archive.py FILMS [--checkpoint oai] [--rows N ...] [--processes N ...] [--graded 300]
                                             [--batch N]

The list has that many rows, of the first films of FILMS under as many names (hard links of copies), none of which a
process sees twice where FILMS has enough. Each process takes a shard of it, with one thread; together they grade about
`--graded` films, so that a row of a million is what one shard of a large archive sees: the whole list read, a part of
it graded. `start` is the time of the same command with one film, `films/s` is of the rest of the time; memory is the
highest of any process.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def linked(folder, films_folder, rows, graded):
    """A folder of `rows` names, of about as many films as are graded, and its list."""
    films = folder / "films"
    films.mkdir()
    for number, film in enumerate(sorted(films_folder.rglob("*.png"))[: graded + 50]):
        shutil.copyfile(film, folder / f"{number}.png")
    copies = sorted(folder.glob("*.png"))
    for number in range(rows):
        os.link(copies[number % len(copies)], films / f"{number:07}.png")
    table = films / "list.csv"
    table.write_text("filename\n" + "".join(f"{number:07}.png\n" for number in range(rows)))
    return table


def run(commands):
    """Seconds until all have ended, and the highest memory of any, in MB."""
    begin = time.perf_counter()
    threads = os.environ | {"OMP_NUM_THREADS": "1"}
    running = [subprocess.Popen(command, env=threads, stdout=subprocess.DEVNULL) for command in commands]
    most = 0
    for process in running:
        _, status, used = os.wait4(process.pid, 0)
        assert status == 0, process.args
        most = max(most, used.ru_maxrss // 1024)
    return time.perf_counter() - begin, most


def measured(films, checkpoint, rows, processes, graded, batch):
    with tempfile.TemporaryDirectory() as place:
        table = linked(Path(place), films, rows, graded)
        predict = [str(Path(sys.executable).with_name("legradnet-predict")), f"checkpoint={checkpoint}"]
        predict += [f"batch_size={batch}"] if batch else []
        one = table.with_name("one.csv")
        one.write_text("filename\n0000000.png\n")
        start, _ = run([[*predict, f"input={one}", f"hydra.run.dir={place}/one"]])
        count = processes * max(1, round(rows / graded))
        parts = [f"shard={shard}/{count}" for shard in range(processes)]
        seconds, memory = run([[*predict, f"input={table}", part, f"hydra.run.dir={place}/parts"] for part in parts])
        done = sum(max(0, len(file.read_bytes().splitlines()) - 1) for file in Path(place).glob("parts/*/*.csv"))
        return start, seconds, done, memory


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("films", type=Path)
    parser.add_argument("--checkpoint", default="oai")
    parser.add_argument("--rows", type=int, nargs="+", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--graded", type=int, default=300)
    parser.add_argument("--batch", type=int, help="films a batch; else the model's own")
    given = parser.parse_args()
    print("| rows | processes | graded | start, s | all, s | films/s | memory, MB |\n" + "| --- " * 7 + "|", flush=True)
    for rows in given.rows:
        for processes in given.processes:
            how = rows, processes, given.graded, given.batch
            start, seconds, done, memory = measured(given.films, given.checkpoint, *how)
            rate = done / max(seconds - start, 1e-9)
            print(
                f"| {rows:,} | {processes} | {done:,} | {start:.1f} | {seconds:.1f} | {rate:.1f} | {memory:,} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
