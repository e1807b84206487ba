"""The node beside Orthanc under kills, and under a hostile client: what is lost, what is double, what memory it takes.

    python tests/benchmarks/node.py kills CHECKPOINT [--films N] [--kills N] [--json PATH]
    python tests/benchmarks/node.py hostile CHECKPOINT [--objects N] [--json PATH]

`kills`: generated knees go to a real Orthanc, which sends them to `legradnet-node`, which sends reports and pictures
back; node and Orthanc are killed (kill -9) in turn and started again. As any sender does, this one sends a film
again that was not acknowledged. Promised: a report and a picture for each film, none double. `hostile`: mutated
objects, oversized PDUs, connections that say nothing and that end anywhere. Promised: the same node answers C-ECHO all
along, and its memory does not grow over the second half (10 %).
"""

import argparse
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "hospital")]
from knee_films import UID, film  # noqa: E402
from nodes import association, echo  # noqa: E402
from orthanc import Orthanc, free_port  # noqa: E402

from legradnet.data.drawn_knee import draw_knee  # noqa: E402

GROWTH = 1.1
PATIENCE = 120.0


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
        """MB that it holds."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def until(what, patience: float = PATIENCE) -> None:
    end = time.monotonic() + patience
    while not what():
        if time.monotonic() > end:
            raise SystemExit("it did not come")
        time.sleep(0.05)


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
    until(lambda: _counts(orthanc)["SR"] >= films and _counts(orthanc)["OT"] >= films, 1200)
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
    """A client that sends what it should not."""
    node = Node(folder, checkpoint, "NOBODY@127.0.0.1:9", "CLINIC")
    node.start()
    dice = random.Random(0)
    whole = film(folder / "film.dcm").read_bytes()
    header = pydicom.dcmread(folder / "film.dcm")
    memory, echoes, begin = [], 0, time.monotonic()
    silent = [socket.create_connection(("127.0.0.1", node.port)) for _ in range(8)]
    for number in range(objects):
        if number % 10 == 0:
            _hostile_bytes(node.port, dice)
        _mutated(node.port, folder, whole, header, number, dice)
        if number % 100 == 99:
            until(lambda: echo(node.port))
            echoes += 1
            memory.append(node.memory())
    for peer in silent:
        peer.close()
    assert node.process is not None
    alive = node.process.poll() is None
    half = memory[len(memory) // 2 :]
    growth = max(half) / half[0]
    node.stop()
    return {
        "objects": objects,
        "answers to C-ECHO": echoes,
        "memory at half, MB": round(half[0], 1),
        "memory at most in the second half, MB": round(max(half), 1),
        "seconds": round(time.monotonic() - begin, 1),
        "kept": float(alive and growth <= GROWTH),
    }


def _hostile_bytes(port: int, dice: random.Random) -> None:
    """Oversized, unknown and broken PDUs, each on a connection of its own."""
    kinds = [
        struct.pack(">BBL", 1, 0, 2**32 - 1) + b"x" * 3000,
        struct.pack(">BBL", 4, 0, 5_000_000) + dice.randbytes(3000),
        struct.pack(">BBL", 1, 0, 3000) + dice.randbytes(3000),
        struct.pack(">BBL", dice.randrange(256), 0, 40) + dice.randbytes(40),
        dice.randbytes(200),
    ]
    for content in kinds:
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as peer:
                peer.sendall(content)
        except OSError:
            continue


def _mutated(port: int, folder: Path, whole: bytes, header: pydicom.Dataset, number: int, dice: random.Random) -> None:
    """Send a film with damaged bytes, under a UID of its own, as it stands."""
    content = bytearray(whole)
    start = 132 if number % 4 else 400
    for _ in range(dice.choice((1, 5, 50, 500))):
        content[dice.randrange(start, min(len(content), 1500 if number % 2 else len(content)))] = dice.randrange(256)
    if number % 5 == 0:
        content = content[: dice.randrange(140, len(content))]
    uid = f"{UID}.9.{number}"
    with association(port) as made:
        if not made.is_established:
            return
        request = header.copy()
        request.SOPInstanceUID = request.file_meta.MediaStorageSOPInstanceUID = uid
        _send_raw(made, request, bytes(content[132 + _meta_length(whole) :]))


def _meta_length(whole: bytes) -> int:
    (length,) = struct.unpack_from("<L", whole, 140)
    return 12 + length


def _send_raw(made, request: pydicom.Dataset, content: bytes) -> None:
    """A C-STORE of bytes that need not be a data set."""
    from io import BytesIO

    from pynetdicom.dimse_primitives import C_STORE

    primitive = C_STORE()
    primitive.MessageID = 1
    primitive.AffectedSOPClassUID = request.SOPClassUID
    primitive.AffectedSOPInstanceUID = request.SOPInstanceUID
    primitive.Priority = 2
    primitive.DataSet = BytesIO(content)
    context = next(one for one in made.accepted_contexts if one.abstract_syntax == request.SOPClassUID)
    made.dimse.send_msg(primitive, context.context_id)
    made.dimse.get_msg(True)


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
        checkpoint = str(Path(asked.checkpoint).resolve())
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
