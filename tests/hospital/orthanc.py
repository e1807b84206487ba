"""A real Orthanc on this machine that forwards each film to a node, and what its REST interface says."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from contextlib import closing
from pathlib import Path

FORWARD = Path(__file__).parents[2] / "src/legradnet/hospital/forward.lua"


def find_orthanc():
    return shutil.which("Orthanc") or shutil.which("orthanc")


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as place:
        return place.getsockname()[1]


class Orthanc:
    """An Orthanc in a folder, on free ports of this machine alone, that keeps what it has when it is killed.

    Args:
        folder: For all that it writes.
        node: Port of the node that it forwards to.
        forward: Whether it does so by itself.
    """

    def __init__(self, folder: Path, node: int, *, forward: bool = True) -> None:
        self.folder, self.http, self.dicom = folder, free_port(), free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "orthanc.json"
        self.config.write_text(
            json.dumps(
                {
                    "Name": "test",
                    "StorageDirectory": str(folder / "storage"),
                    "IndexDirectory": str(folder / "index"),
                    "HttpPort": self.http,
                    "DicomPort": self.dicom,
                    "DicomAet": "ORTHANC",
                    "RemoteAccessAllowed": False,
                    "AuthenticationEnabled": False,
                    "HttpBindAddresses": ["127.0.0.1"],
                    "DicomModalities": {"legradnet": ["LEGRADNET", "127.0.0.1", node]},
                    "LuaScripts": [str(FORWARD)] if forward else [],
                    "Plugins": [],
                    "DicomScuTimeout": 20,
                    "DicomScpTimeout": 20,
                }
            )
        )
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program = find_orthanc()
        assert program is not None
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen([program, str(self.config)], stdout=log, stderr=log)
        end = time.monotonic() + 60
        while True:
            try:
                self.get("/system")
                return
            except OSError:
                assert time.monotonic() < end and self.process.poll() is None, "Orthanc does not start"
                time.sleep(0.1)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)

    def get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=20) as answer:
            content = answer.read()
        return json.loads(content) if answer.headers["Content-Type"].startswith("application/json") else content

    def post(self, path, content):
        return self.post_file(path, content.encode())

    def post_file(self, path, content):
        asked = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data=content)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return json.loads(answer.read())

    def instances(self):
        """The tags of all instances."""
        return [self.get(f"/instances/{one}/simplified-tags") for one in self.get("/instances")]
