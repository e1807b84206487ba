"""The node beside Orthanc under kills, and under a hostile client: what is lost, what is double, what memory it takes.

    python tests/benchmarks/node.py kills CHECKPOINT [--films N] [--kills N] [--json PATH]
    python tests/benchmarks/node.py hostile CHECKPOINT [--objects N] [--json PATH]

`kills`: generated knees go to a real Orthanc, which sends them to `legradnet-node`, which sends reports and pictures
back; node and Orthanc are killed (kill -9) in turn and started again. As any sender does, this one sends a film
again that was not acknowledged. Promised: a report and a picture for each film, none double. `hostile`: mutated
objects, oversized PDUs, connections that say nothing and that end anywhere. Promised: the same node answers C-ECHO all
along, and the memory of its processes, looked at every two seconds, does not grow over the second half (10 %).

CHECKPOINT may be `oai`, the shipped model.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, deque
from contextlib import suppress
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "hospital")]
from hostile_client import half_open, send_hostile_bytes, send_mutated  # noqa: E402
from knee_films import film  # noqa: E402
from nodes import echo  # noqa: E402
from orthanc import Orthanc, free_port  # noqa: E402

from legradnet.data.drawn_knee import draw_knee  # noqa: E402
from legradnet.hospital.status import status  # noqa: E402
from legradnet.models.named import is_name  # noqa: E402

GROWTH = 1.1
PATIENCE = 900.0  # seconds; the machine may be busy with something else
LOOK = 2.0  # seconds between two looks at memory and at queues
WAITING = 20  # films that are sent ahead of the node, so that it is killed while it grades and sends


class Node:
    """`legradnet-node`, as a user starts it."""

    def __init__(self, folder: Path, checkpoint: str, send_to: str, caller: str) -> None:
        self.port, self.folder = free_port(), folder
        self.command = [
            str(Path(sys.executable).with_name("legradnet-node")),
            *(f"output={folder / 'queue'}", f"checkpoint={checkpoint}", f"port={self.port}", f"send_to={send_to}"),
            *(f"callers=[{caller}]", "film=crop", "device=cpu", "first_pause=0.2", "longest_pause=2", "timeout=5"),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "node.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        until(lambda: listens(self.port))

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)

    def memory(self) -> float:
        """MB that it and the processes that read films for it hold."""
        assert self.process is not None
        parents, pages = {}, {}
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                with suppress(OSError):
                    parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
                    pages[int(path.name)] = int((path / "statm").read_text().split()[1])
        family = {self.process.pid}
        while more := {one for one, parent in parents.items() if parent in family} - family:
            family |= more
        return sum(pages.get(one, 0) for one in family) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def counts(self) -> Counter[str]:
        """Films waiting, graded, left, failed, as `show=status` tells them."""
        line = next(line for line in status(self.folder / "queue").splitlines() if line.startswith("films"))
        return Counter({words.split()[1]: int(words.split()[0]) for words in line.removeprefix("films").split(",")})


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(what, patience: float = PATIENCE, pause: float = 0.05) -> None:
    end = time.monotonic() + patience
    while not what():
        if time.monotonic() > end:
            raise SystemExit("it did not come")
        time.sleep(pause)


def kills(folder: Path, checkpoint: str, films: int, count: int) -> dict[str, float]:
    """Films through Orthanc and node, both of them killed all along."""
    drawn = np.random.default_rng(0)
    node = Node(folder, checkpoint, "", "ORTHANC")
    orthanc = Orthanc(folder / "orthanc", node.port, forward=False)
    node.command = [word.replace("send_to=", f"send_to=ORTHANC@127.0.0.1:{orthanc.dicom}") for word in node.command]
    orthanc.start()
    node.start()
    moments = sorted(random.Random(0).sample(range(films), count))
    begin, killed, again = time.monotonic(), 0, 0
    for number in range(films):
        until(lambda: node.counts()["waiting"] < WAITING, pause=LOOK)
        pixels = draw_knee(number / films, "L", drawn, size=64)
        path = film(folder / "film.dcm", number + 1, pixels)
        if number in moments:  # in the middle of what it does
            victim = (node, orthanc)[killed % 2]
            victim.kill()
            victim.start()
            killed += 1
        while not _forwarded(orthanc, path):
            again += 1
            time.sleep(0.2)
    until(lambda: _counts(orthanc)["SR"] >= films and _counts(orthanc)["OT"] >= films, 4 * PATIENCE, LOOK)
    time.sleep(3)  # whatever might still come
    counts = _counts(orthanc)
    reports = [one["SOPInstanceUID"] for one in orthanc.instances() if one["Modality"] == "SR"]
    seconds = time.monotonic() - begin
    node.stop()
    orthanc.stop()
    return {
        "films": films,
        "kills": killed,
        "sent again": again,
        "films in Orthanc": counts["DX"],
        "reports": counts["SR"],
        "pictures": counts["OT"],
        "different reports": len(set(reports)),
        "seconds": round(seconds, 1),
        "kept": float(counts["SR"] == counts["OT"] == counts["DX"] == len(set(reports)) == films),
    }


def _forwarded(orthanc: Orthanc, path: Path) -> bool:
    """Whether Orthanc has a film and the node has acknowledged it."""
    try:
        stored = orthanc.post_file("/instances", path.read_bytes())
        answer = orthanc.post(
            "/modalities/legradnet/store", json.dumps({"Resources": [stored["ID"]], "Synchronous": True})
        )
        return int(answer.get("FailedInstancesCount", 0)) == 0
    except OSError:
        return False


def _counts(orthanc: Orthanc) -> Counter[str]:
    """Instances by modality."""
    try:
        series = orthanc.get("/series?expand")
        return Counter({kind: sum(len(one["Instances"]) for one in series if one["MainDicomTags"]["Modality"] == kind)
                        for kind in ("DX", "SR", "OT")})  # fmt: skip
    except OSError:
        return Counter()


def hostile(folder: Path, checkpoint: str, objects: int) -> dict[str, float]:
    """A client that sends what it should not, beside connections and associations that are left half open."""
    node = Node(folder, checkpoint, "NOBODY@127.0.0.1:9", "CLINIC")
    node.start()
    dice = random.Random(0)
    memory, echoes, answered, begin = [], 0, 0, time.monotonic()
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(LOOK):
            memory.append((number, node.memory()))

    number = 0
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    left_open: deque[socket.socket] = deque()
    for number in range(objects):  # the watcher reads it
        if number % 10 == 0:
            send_hostile_bytes(node.port, dice)
            left_open.extend(half_open(node.port, dice))
            while len(left_open) > 6:
                left_open.popleft().close()
        answered += send_mutated(node.port, folder, number, dice)
        if number % 100 == 99:
            until(lambda: echo(node.port))
            echoes += 1
        until(lambda: node.counts()["waiting"] < WAITING, pause=LOOK)
    until(lambda: node.counts()["waiting"] == 0, pause=LOOK)  # what was taken is graded too
    ended.set()
    watcher.join()
    counts = node.counts()
    assert node.process is not None
    alive = node.process.poll() is None
    eighths = [[held for at, held in memory if 8 * at // objects == part] for part in range(8)]
    half = [held for at, held in memory if objects / 2 <= at]
    growth = max(half) / half[0]
    node.stop()
    return {
        "objects": objects,
        "answered": answered,
        "graded": counts["graded"],
        "left alone": counts["left"],
        "failed": counts["failed"],
        "answers to C-ECHO": echoes,
        "memory when it began, MB": round(memory[0][1], 1),
        **{f"memory at most, eighth {part} of 8, MB": round(max(held), 1) for part, held in enumerate(eighths, 1)},
        "memory at half, MB": round(half[0], 1),
        "memory at the end, MB": round(half[-1], 1),
        "looks at memory": len(memory),
        "seconds": round(time.monotonic() - begin, 1),
        "kept": float(alive and growth <= GROWTH and counts["waiting"] == 0),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["kills", "hostile"])
    parser.add_argument("checkpoint")
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--objects", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        checkpoint = asked.checkpoint if is_name(asked.checkpoint) else str(Path(asked.checkpoint).resolve())
        if asked.what == "kills":
            found = kills(place, checkpoint, asked.films, asked.kills)
        else:
            found = hostile(place, checkpoint, asked.objects)
    for name, value in found.items():
        print(f"{name:40} {value:g}")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found["kept"] else 1


if __name__ == "__main__":
    sys.exit(main())
