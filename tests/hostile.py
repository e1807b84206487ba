"""Attack reading, grading and loading with inputs made to break them, and count what broke.

    python tests/hostile.py --inputs 10000 --seed 0

prints for films, tables, checkpoints, exports and links: inputs, how many were told in words, and crashes, hangs over
5 s, tracebacks, rows lost and results changed without a word, all of which must be 0; then every fault with the number
that repeats it (`--only NUMBER`). The exit status is 0 if there was none.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from hostile_inputs import KINDS, Attacker, Materials, kinds_of

HANG = 5.0  # seconds
FAULTS = ("crashes", "hangs", "tracebacks", "rows lost", "changed")


@dataclass(frozen=True)
class Fault:
    """One input that broke something."""

    number: int
    kind: str
    what: str
    detail: str = ""


def attack(
    healthy: Materials,
    folder: Path,
    count: int,
    seed: int = 0,
    attackers: Mapping[str, type[Attacker]] = KINDS,
    only: int | None = None,
) -> tuple[dict[str, Counter[str]], list[Fault]]:
    """Make `count` hostile inputs, each tried in a process that may die or hang.

    An input that takes more than `HANG` seconds is tried once more before it counts: a busy machine is no fault.
    """
    tallies = {kind: Counter[str]() for kind in attackers}
    faults: list[Fault] = []
    with _Victim(healthy, folder, seed, attackers) as victim:
        for number, kind in enumerate(kinds_of(count, list(attackers))):
            if only is not None and number != only:
                continue
            answer = victim.attacked(number, kind)
            if answer == "hangs":
                answer = victim.attacked(number, kind)
            tallies[kind]["inputs"] += 1
            for what, times, detail in _counted(answer):
                tallies[kind][what] += times
                if what in FAULTS:
                    faults.append(Fault(number, kind, what, detail))
    return tallies, faults


def _counted(answer: object) -> Iterator[tuple[str, int, str]]:
    if isinstance(answer, str):
        what, _, detail = answer.partition("\n")
        yield what, 1, detail
        return
    told, lost, changed = answer  # type: ignore[misc]
    if told:
        yield "told", 1, ""
    if lost:
        yield "rows lost", lost, f"{lost} rows"
    if changed:
        yield "changed", 1, changed


class _Victim:
    """The process that takes the attacks; another takes its place when it dies or hangs."""

    def __init__(self, healthy: Materials, folder: Path, seed: int, attackers: Mapping[str, type[Attacker]]) -> None:
        self.healthy, self.folder, self.seed, self.attackers = healthy, folder, seed, dict(attackers)
        self.process: multiprocessing.process.BaseProcess | None = None
        self.connection: Connection

    def __enter__(self) -> "_Victim":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def attacked(self, number: int, kind: str) -> object:
        """(told, lost, changed) of an input, or what happened instead, with its words on the next lines."""
        if self.process is None:
            self._start()
        self.connection.send((number, kind))
        while True:
            limit = HANG if self.ready == kind else 120.0  # the first of a kind makes its healthy things
            try:
                if not self.connection.poll(limit):
                    self._end()
                    return "hangs"
                answer = self.connection.recv()
            except (EOFError, ConnectionError):
                self._end()
                return "crashes"
            if answer != "ready":
                return answer
            self.ready = kind

    def _start(self) -> None:
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self.connection, self.ready = ours, ""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        given = (theirs, self.healthy, place, self.seed, self.attackers)
        process = multiprocessing.get_context("spawn").Process(target=_serve, args=given)
        process.start()
        theirs.close()
        self.process = process

    def _end(self) -> None:
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.join()
            self.process = None


def _serve(
    connection: Connection, healthy: Materials, folder: Path, seed: int, attackers: Mapping[str, type[Attacker]]
) -> None:
    import torch

    torch.set_num_threads(1)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - progress and warnings of ten thousand runs
    made: dict[str, Attacker] = {}
    while True:
        try:
            number, kind = connection.recv()
        except EOFError:
            return
        try:
            if kind not in made:
                (folder / kind).mkdir()
                made[kind] = attackers[kind](folder / kind, healthy)
            connection.send("ready")
            outcome = made[kind].attack(np.random.default_rng([seed, number]))
            connection.send((outcome.told, outcome.lost, outcome.changed))
        except BaseException:
            connection.send("tracebacks\n" + traceback.format_exc())


def page(tallies: dict[str, Counter[str]], faults: list[Fault]) -> str:
    """The tallies as a table, and every fault below it."""
    columns = ("inputs", "told", *FAULTS)
    lines = ["".join(f"{name:>13}" for name in ("kind", *columns))]
    for kind, tally in tallies.items():
        lines.append("".join(f"{cell:>13}" for cell in (kind, *(tally[name] for name in columns))))
    lines += [f"{fault.what} by input {fault.number} ({fault.kind}): {fault.detail}" for fault in faults]
    return "\n".join(lines)


def make_materials(folder: Path) -> Materials:
    """Small knees, a network trained on them, and its export."""
    from legradnet.data.synthetic import write_knees
    from legradnet.export.run import export
    from legradnet.training.run import train
    from small_runs import compose

    films = folder / "films"
    films.mkdir()
    write_knees(films, 12, size=48, seed=3)
    settings = ["data.count=200", "data.val_fraction=0.2", "data.test_fraction=0.2", "data.mirror_left=true"]
    train(compose(*settings, "augment.mirror=0", "loss=corn"), folder / "trained")
    export({"checkpoint": str(folder / "trained/checkpoints/best.ckpt"), "output": str(folder / "export")})
    return Materials(films, folder / "trained", folder / "export")


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--inputs", type=int, default=1000)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    asked.add_argument("--only", type=int, help="repeat the input of this number alone")
    options = asked.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        healthy = make_materials(Path(folder))
        attackers = {kind: KINDS[kind] for kind in options.kinds}
        tallies, faults = attack(healthy, Path(folder), options.inputs, options.seed, attackers, options.only)
    print(page(tallies, faults))
    print(f"seed {options.seed}, {time.monotonic() - start:.0f} s")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
