"""Hostile films, tables, checkpoints, exports and links: what each is given to, and what came of it.

Every kind is made once from healthy things in a folder of its own, and then attacks itself by number: the same number
and seed give the same input. An attack ends in words (`UserError`, or the row's own error), in what a healthy input
gives, or it is a fault: rows that were lost, a result that was changed without a word, or whatever else is raised.
"""

import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from hostile_films import films_of_every_format
from hostile_tables import hostile_table
from legradnet.checkpoint import read_checkpoint
from legradnet.data.film import ImageError
from legradnet.data.images import read_image
from legradnet.data.inputs import list_films
from legradnet.data.manifest import load_manifest
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.grading import Request
from legradnet.grading.run import predict
from tampering import tampered

LARGEST = 2**31 - 1


@dataclass
class Outcome:
    """What came of one attack.

    Attributes:
        told: Whether it was refused in words.
        lost: Rows that went in and did not come out.
        changed: What became something else without a word; "" for nothing.
    """

    told: bool = False
    lost: int = 0
    changed: str = ""


@dataclass(frozen=True)
class Materials:
    """What is healthy: a folder of films, a run folder of training, an export of it, and what they make of one film."""

    films: Path
    run: Path
    export: Path | None

    @property
    def checkpoint(self) -> Path:
        return self.run / "checkpoints/best.ckpt"

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.films.glob("*.png"))


class Attacker(Protocol):
    """A kind of hostile input: made once in a folder of its own, then attacking with a new generator each time."""

    def __init__(self, folder: Path, healthy: Materials) -> None: ...

    def attack(self, rng: np.random.Generator) -> Outcome:
        """Make one input and give it to what would read it."""


def bent(content: bytes, rng: np.random.Generator) -> bytes:
    """`content` with one to three kinds of damage: flips, cuts, numbers, blocks gone, doubled or from elsewhere."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = max(len(data), 1)
        at, length = int(rng.integers(size)), int(min(rng.integers(1, 2000), size))
        match rng.integers(8):
            case 0:
                for place in rng.integers(0, size, rng.choice([1, 4, 30])):
                    data[place : place + 1] = bytes([int(rng.integers(256))])
            case 1:
                del data[at:]
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * int(rng.integers(1, 50))
            case 4:
                data[at:at] = rng.bytes(length)
            case 5:  # a number somewhere in the head becomes an extreme one
                place, width = int(rng.integers(min(size, 1000))), int(rng.choice([2, 4]))
                value = int(rng.choice([0, 1, 255, 65_535, 2**24, LARGEST])) % 256**width
                data[place : place + width] = value.to_bytes(width, ["little", "big"][rng.integers(2)])
            case 6:
                data[at : at + length] = bytes(length)
            case _:
                data += rng.bytes(length)
    return bytes(data)


class Films:
    """A damaged film beside a healthy one, graded together: two rows, and the healthy one's grading as it is alone."""

    def __init__(self, folder: Path, healthy: Materials) -> None:
        self.film = folder / "film"
        good = healthy.films / healthy.names[0]
        self.whole = [content for _, content in films_of_every_format(read_image(good))]
        self.grader = Grader.load(healthy.checkpoint, device="cpu", precision="f32")
        self.good = Request(good, "R")
        self.alone = self.grader.grade(good, "R").raw

    def attack(self, rng: np.random.Generator) -> Outcome:
        self.film.write_bytes(bent(self.whole[rng.integers(len(self.whole))], rng))
        (listed,) = list_films(self.film)
        requests = [Request(listed.film, listed.side), self.good]
        bad, good = [row for batch in self.grader.stream(requests, workers=1) for row in batch]
        changed = isinstance(good, ImageError) or not np.allclose(good.raw, self.alone, atol=1e-6)
        return Outcome(isinstance(bad, ImageError), changed="the healthy film beside it" if changed else "")


class Tables:
    """A damaged CSV, for grading and for training: all its rows, or words."""

    def __init__(self, folder: Path, healthy: Materials) -> None:
        self.path, self.healthy = folder / "table.csv", healthy

    def attack(self, rng: np.random.Generator) -> Outcome:
        rows = int(rng.integers(2, 9))
        self.path.write_bytes(hostile_table(self.healthy.names[:rows], rng))
        readings: list[Callable[[], int]] = [
            lambda: len(list_films(self.path, self.healthy.films)),
            lambda: self._for_training(),
        ]
        outcome = Outcome()
        for read in readings:
            try:
                outcome.lost += max(0, rows - read())
            except UserError:
                outcome.told = True
        return outcome

    def _for_training(self) -> int:
        manifest = load_manifest(
            self.healthy.films, self.path, num_classes=5, verify="header", on_bad_image="skip", workers=1
        )
        return len(manifest.table) + len(manifest.skipped)


class Checkpoints:
    """A checkpoint with flipped bits or with other words about itself: refused, or it grades as before."""

    def __init__(self, folder: Path, healthy: Materials) -> None:
        self.path = folder / "bent.ckpt"
        self.film = healthy.films / healthy.names[0]
        self.whole = healthy.checkpoint.read_bytes()
        self.content = read_checkpoint(healthy.checkpoint)
        self.good = self._raw(healthy.checkpoint)

    def _raw(self, path: Path) -> np.ndarray:
        return Grader.load(path, device="cpu", precision="f32").grade(self.film, "R").raw

    def attack(self, rng: np.random.Generator) -> Outcome:
        flipped = bool(rng.integers(2))
        if flipped:
            self.path.write_bytes(_with_flips(self.whole, rng))
        else:
            described = {name: self.content[name] for name in ("hyper_parameters", "legradnet")}
            _, changed = next(tampered(described, 1, int(rng.integers(2**31)), somewhere=True))
            torch.save({**self.content, **changed}, self.path)
        try:
            raw = self._raw(self.path)
        except UserError:
            return Outcome(told=True)
        return Outcome(changed="" if np.array_equal(raw, self.good) else "the grading")


class Exports:
    """An export with flipped bits or with other words about itself: refused, or it grades as before."""

    def __init__(self, folder: Path, healthy: Materials) -> None:
        assert healthy.export is not None
        self.whole, self.folder = healthy.export, folder / "export"
        self.film = healthy.films / healthy.names[0]
        shutil.copytree(self.whole, self.folder)
        self.files = sorted(path.name for path in self.whole.iterdir() if path.is_file())
        self.good = self._raw()

    def _raw(self) -> np.ndarray:
        return Grader.from_export(self.folder).grade(self.film, "R").raw

    def attack(self, rng: np.random.Generator) -> Outcome:
        name = str(rng.choice([*self.files, "export.json", "export.json"]))
        file = self.folder / name
        whole = (self.whole / name).read_bytes()
        if name == "export.json" and rng.integers(2):
            described = json.loads(whole)
            described.pop("digest", None)  # by which any change is told
            _, changed = next(tampered(described, 1, int(rng.integers(2**31)), somewhere=True))
            file.write_text(json.dumps(changed))
        else:
            file.write_bytes(_with_flips(whole, rng))
        try:
            raw = self._raw()
        except UserError:
            return Outcome(told=True)
        finally:
            file.write_bytes(whole)
        return Outcome(changed="" if np.array_equal(raw, self.good) else "the grading")


class Links:
    """Links planted where a run will write, and films that are links to elsewhere: what is beyond is left alone."""

    def __init__(self, folder: Path, healthy: Materials) -> None:
        self.folder, self.healthy = folder, healthy
        self.outside = folder / "outside"
        self.outside.mkdir()
        shutil.copy(healthy.films / healthy.names[0], self.outside / "secret.png")
        self.settings = {"checkpoint": str(healthy.checkpoint), "input": "", "precision": "f32", "device": "cpu"}
        self.settings["input"] = str(healthy.films / healthy.names[0])
        predict(self.settings, folder / "healthy")
        self.names = [str(path.relative_to(folder / "healthy")) for path in (folder / "healthy").rglob("*")]

    def attack(self, rng: np.random.Generator) -> Outcome:
        run, victim = self.folder / "run", self.outside / "victim"
        films = self.folder / "films"
        for place in (run, films):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
        victim.write_text("untouched")
        for name in rng.choice(self.names, rng.integers(1, 4)):
            planted = run / str(rng.choice(["{0}", ".{0}.partial", "{0}.tmp", ".{0}.lock"])).format(name)
            planted = planted.parent / planted.name
            if not planted.exists() and not planted.is_symlink():
                planted.parent.mkdir(parents=True, exist_ok=True)
                planted.symlink_to(rng.choice([str(victim), str(self.outside), str(self.outside / "new")]))
        (films / "link.png").symlink_to(self.outside / "secret.png")
        told = False
        try:
            predict({**self.settings, "input": str(films)}, run)
        except UserError:
            told = True
        else:
            rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
            if [row["error"] is None for row in rows] != [False]:
                return Outcome(lost=1 - len(rows), changed="a film outside its folder was graded")
        left = sorted(path.name for path in self.outside.iterdir())
        touched = victim.read_text() != "untouched" or left != ["secret.png", "victim"]
        if touched:
            shutil.rmtree(self.outside)
            self.outside.mkdir()
            shutil.copy(self.healthy.films / self.healthy.names[0], self.outside / "secret.png")
        return Outcome(told, changed=f"a file beyond a link {left}" if touched else "")


def _with_flips(content: bytes, rng: np.random.Generator) -> bytes:
    data = bytearray(content)
    for place in rng.integers(0, len(data), rng.choice([1, 1, 8])):
        data[place] ^= 1 << int(rng.integers(8))
    return bytes(data)


KINDS: dict[str, type[Attacker]] = {
    "films": Films,
    "tables": Tables,
    "checkpoints": Checkpoints,
    "exports": Exports,
    "links": Links,
}
SHARES = {"films": 60, "tables": 25, "checkpoints": 8, "exports": 5, "links": 2}  # of a hundred inputs


def kinds_of(count: int, kinds: list[str]) -> Iterator[str]:
    """The kind of each of `count` inputs, by `SHARES`, in an order that is always the same."""
    drawn = random.Random(0).choices(kinds, [SHARES.get(kind, 1) for kind in kinds], k=max(0, count - len(kinds)))
    yield from kinds[:count]  # one of each at least
    yield from drawn
