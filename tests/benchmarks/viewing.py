"""Load on the reading room: many pages ask for parts of the list and for films that were graded before.

    python tests/benchmarks/viewing.py [--clients N] [--seconds S] [--films N] [--json PATH]

A server of its own, `legradnet-view` on a predict run of N generated films of 224 px, is asked by clients that wait for
an answer before they ask again: a part of the list in the page's order, one film, its thumbnail and its pixels, the
model idle. Promised on two cores, 32 clients and 60 s: no error, 95 % of the answers to list and film within 200 ms,
and memory that does not grow (10 % over the second half).
"""

import argparse
import http.client
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import numpy as np

from legradnet.data.synthetic import write_knees

FILES, LIMIT, GROWTH = 200, 0.2, 1.1
PROMISED = ("list", "film")


def predict_run(folder: Path, films: int) -> Path:
    """What `legradnet-predict` leaves, of knees that are listed again and again; its checkpoint is gone."""
    write_knees(folder / "knees", FILES, size=224, seed=0)
    names = sorted(path.name for path in (folder / "knees").glob("*.png"))
    names = [names[i % len(names)] for i in range(films)]
    (folder / "films.csv").write_text("filename\n" + "".join(f"knees/{name}\n" for name in names))
    lines = []
    for name, probabilities in zip(names, np.random.default_rng(0).dirichlet(np.ones(5), films).round(6), strict=True):
        grade = int(probabilities.argmax())
        line = {"filename": f"knees/{name}", "label": None, "grade": grade, "probabilities": probabilities.tolist()}
        line |= {"expected_grade": float(probabilities @ np.arange(5)), "prediction_set": [grade], "referred": False}
        lines.append(line | {"reason": "", "gate_weights": {"vit": 0.5, "swin": 0.5}, "error": None})
    run = folder / "run"
    (run / ".hydra").mkdir(parents=True)
    (run / ".hydra/config.yaml").write_text(f"checkpoint: none.ckpt\ninput: {folder}/films.csv\n")
    (run / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def resident(process: int) -> float:
    """Megabytes that a process holds."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class AsItIs(urllib.request.HTTPErrorProcessor):
    """Gives a redirection as it is: the cookie comes with it."""

    def http_response(self, request, response):
        return response


class Load:
    """Clients that ask until they are stopped."""

    def __init__(self, address: str, films: int) -> None:
        with urllib.request.build_opener(AsItIs).open(address) as entered:
            self.cookie = entered.headers["Set-Cookie"].partition(";")[0]
        self.host, self.films = address.removeprefix("http://").partition("/")[0], films
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.errors: list[str] = []
        self.stop = threading.Event()

    def wait_for_the_model(self) -> None:
        """Until it is loaded, or told to be gone."""
        client = http.client.HTTPConnection(self.host, timeout=60)
        while not (session := json.loads(self._timed(client, "session", "/api/session")))["ready"]:
            if session["error"]:
                return
            time.sleep(0.2)

    def ask(self, seed: int) -> None:
        """Ask for one thing after the other."""
        chance = random.Random(seed)
        client = http.client.HTTPConnection(self.host, timeout=30)
        while not self.stop.is_set():
            try:
                offset = chance.randrange(max(1, self.films - 50))
                rows = json.loads(self._timed(client, "list", f"/api/films?offset={offset}&limit=50"))["items"]
                film = f"/api/films/{chance.choice(rows)['id']}"
                self._timed(client, "film", film)
                for picture in ("thumbnail", "pixels"):
                    self._timed(client, picture, f"{film}/{picture}")
            except Exception as error:  # whatever it is, it is counted
                self.errors.append(f"{type(error).__name__}: {error}")
                client.close()

    def _timed(self, client: http.client.HTTPConnection, what: str, path: str) -> bytes:
        begun = time.perf_counter()
        client.request("GET", path, headers={"Cookie": self.cookie})
        answer = client.getresponse()
        content = answer.read()
        self.seconds[what].append(time.perf_counter() - begun)
        if answer.status != 200:
            raise ValueError(f"{path}: {answer.status} {content[:200]!r}")
        return content


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--films", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = predict_run(Path(folder), chosen.films)
        command = [Path(sys.executable).with_name("legradnet-view"), f"input={run}", "browser=false"]
        server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        try:
            address = next(found[0] for line in server.stdout if (found := re.search(r"http\S+token=\S+", line)))
            load = Load(address, chosen.films)
            load.wait_for_the_model()
            threads = [threading.Thread(target=load.ask, args=(seed,)) for seed in range(chosen.clients)]
            for thread in threads:
                thread.start()
            time.sleep(chosen.seconds / 2)
            half = resident(server.pid)
            time.sleep(chosen.seconds / 2)
            whole = resident(server.pid)
            load.stop.set()
            for thread in threads:
                thread.join()
        finally:
            server.terminate()
            server.wait()
    found = {}
    for what, times in load.seconds.items():
        found[what] = {
            "answers": len(times),
            "median_ms": 1000 * np.median(times),
            "p95_ms": 1000 * np.quantile(times, 0.95),
        }
        print(
            "{:10}{answers:7} answers   median {median_ms:6.1f} ms   p95 {p95_ms:6.1f} ms".format(what, **found[what])
        )
    print(f"{len(load.errors)} errors {sorted(set(load.errors))[:3]}")
    print(f"memory {half:.0f} MB after half of the time, {whole:.0f} MB at its end")
    if chosen.json:
        about = {**found, "errors": load.errors[:20], "half_mb": half, "end_mb": whole}
        chosen.json.write_text(json.dumps(about, indent=2) + "\n")
    in_time = all(found[what]["p95_ms"] <= 1000 * LIMIT for what in PROMISED)
    return 0 if in_time and not load.errors and whole <= GROWTH * half else 1


if __name__ == "__main__":
    raise SystemExit(main())
