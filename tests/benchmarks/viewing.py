"""What the reading room promises of time and memory, in one command for a quiet machine.

    python tests/benchmarks/viewing.py [--clients N] [--seconds S] [--films N] [--json PATH]

Load: a server of its own, `legradnet-view` on a predict run of N generated films of 224 px, is asked by clients that
wait for an answer before they ask again: a part of the list in the page's order, one film, its thumbnail and its
pixels, the model idle. Promised on two cores, 32 clients and 60 s: no error, 95 % of the answers to list and film
within 200 ms, and memory that does not grow (10 % over the second half).

First film: from the start of the command until a film that was graded before is drawn, in Chromium that is already
open (where there is none, until its pixels are here). Promised: 3 s.

Heat map: of the shipped model, by its first method, from asking until it is here; the first one also loads what maps
need. Promised: 2 s.
"""

import argparse
import http.client
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from legradnet.data.synthetic import write_knees

FILES, LIMIT, GROWTH = 200, 0.2, 1.1
PROMISED = ("list", "film")
FIRST, MAP = 3.0, 2.0  # seconds
MAPS = 5


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


@contextmanager
def serving(folder: Path, *arguments: str):
    """`legradnet-view` on its own: the process, and the address that it prints."""
    command = [Path(sys.executable).with_name("legradnet-view"), *arguments, "browser=false"]
    server = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        address = next((found[0] for line in server.stdout if (found := re.search(r"http\S+token=\S+", line))), None)
        if address is None:
            raise SystemExit(f"legradnet-view has ended with status {server.wait()}")
        yield server, address
    finally:
        server.terminate()
        server.wait()


def load(folder: Path, run: Path, clients: int, seconds: float, films: int) -> tuple[dict, bool]:
    """Numbers under load, and whether they are as promised."""
    with serving(folder, f"input={run}") as (server, address):
        asked = Load(address, films)
        asked.wait_for_the_model()
        memory = {"start_mb": resident(server.pid)}
        threads = [threading.Thread(target=asked.ask, args=(seed,)) for seed in range(clients)]
        for thread in threads:
            thread.start()
        for name in ("half_mb", "end_mb"):
            time.sleep(seconds / 2)
            memory[name] = resident(server.pid)
        asked.stop.set()
        for thread in threads:
            thread.join()
    found = {}
    for what, times in asked.seconds.items():
        p95 = 1000 * np.quantile(times, 0.95)
        found[what] = {"answers": len(times), "median_ms": 1000 * np.median(times), "p95_ms": p95}
        words = "{:10}{answers:7} answers   median {median_ms:6.1f} ms   p95 {p95_ms:6.1f} ms"
        print(words.format(what, **found[what]))
    print(f"{len(asked.errors)} errors {sorted(set(asked.errors))[:3]}")
    print(
        "memory {start_mb:.0f} MB at the start, {half_mb:.0f} after half of the time, {end_mb:.0f} at the end".format(
            **memory
        )
    )
    in_time = all(found[what]["p95_ms"] <= 1000 * LIMIT for what in PROMISED)
    is_kept = in_time and not asked.errors and memory["end_mb"] <= GROWTH * memory["half_mb"]
    return {**found, "errors": asked.errors[:20], **memory}, is_kept


def first_film(folder: Path, run: Path) -> tuple[dict, bool]:
    """Seconds from the command to its address, to the list, and to the first film; and whether they are as promised."""
    with ExitStack() as open_things:
        page = _page(open_things)
        begun = time.perf_counter()
        _, address = open_things.enter_context(serving(folder, f"input={run}"))
        told = {"address_s": time.perf_counter() - begun}
        if page is None:
            client = Load(address, 1)
            connection = http.client.HTTPConnection(client.host, timeout=60)
            row = json.loads(client._timed(connection, "list", "/api/films?limit=50"))["items"][0]
            told["list_s"] = time.perf_counter() - begun
            client._timed(connection, "pixels", f"/api/films/{row['id']}/pixels")
        else:
            page.goto(address)
            page.locator("#rows .row img.thumbnail").first.evaluate("picture => picture.decode()")
            told["list_s"] = time.perf_counter() - begun
            page.locator("#rows .row").first.click()
            page.locator("#readout", has_text="%").wait_for()
        told["film_s"] = time.perf_counter() - begun
    where = "without a browser" if page is None else "in Chromium"
    words = "first film {}: address after {address_s:.1f} s, list {list_s:.1f} s, film {film_s:.1f} s"
    print(words.format(where, **told))
    return told, told["film_s"] <= FIRST


def _page(open_things: ExitStack):
    """A page of an open browser, or None where there is none."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    if (path := shutil.which("chromium")) is None:
        return None
    driver = open_things.enter_context(sync_playwright())
    browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
    open_things.callback(browser.close)
    page = browser.new_page()
    page.goto("about:blank")
    return page


def maps(folder: Path) -> tuple[dict, bool]:
    """Seconds that heat maps of the shipped model take when nothing else is done, and whether they are as promised."""
    few = folder / "few"
    few.mkdir()
    for path in sorted((folder / "knees").glob("*.png"))[:MAPS]:
        shutil.copy(path, few)
    with serving(folder, f"input={few}", "checkpoint=oai") as (_, address):
        client = Load(address, MAPS)
        connection = http.client.HTTPConnection(client.host, timeout=600)
        while (session := json.loads(client._timed(connection, "session", "/api/session")))["state"] == "grading":
            time.sleep(0.2)
        if not session["methods"]:
            raise SystemExit(session["words"]["maps"])
        method = session["methods"][0]["name"]
        for row in json.loads(client._timed(connection, "list", "/api/films"))["items"]:
            client._timed(connection, "map", f"/api/films/{row['id']}/map?method={method}")
    times = client.seconds["map"]
    print(f"heat map ({method}, {', '.join(session['backbones'])}): the first {times[0]:.2f} s, "
          f"the longest after it {max(times[1:]):.2f} s")  # fmt: skip
    return {"method": method, "maps_s": times}, max(times) <= MAP


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--films", type=int, default=10_000)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        run = predict_run(folder, chosen.films)
        parts = {
            "first_film": first_film(folder, run),
            "maps": maps(folder),
            "load": load(folder, run, chosen.clients, chosen.seconds, chosen.films),
        }
    for name, (_, is_kept) in parts.items():
        print(f"{name}: {'as promised' if is_kept else 'NOT as promised'}")
    if chosen.json:
        chosen.json.write_text(json.dumps({name: found for name, (found, _) in parts.items()}, indent=2) + "\n")
    return 0 if all(is_kept for _, is_kept in parts.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
