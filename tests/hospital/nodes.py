"""A node in this process, a receiver that keeps what it is sent, and a sender."""

import shutil
import subprocess
import threading
import time
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    ComprehensiveSRStorage,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
    Verification,
)

from legradnet.hospital.queue import Queue
from legradnet.hospital.receiving import listening, stop
from legradnet.hospital.run import node
from legradnet.hospital.settings import NodeSettings

PATIENCE = 60.0


class Receiver:
    """Keeps all that it is sent; `answers` are what it says first, "gone" = nothing: it has the object and hangs up.

    Over the UIDs of `breaks` it always hangs up.
    """

    def __init__(self, answers=(), port=0, tls=None):
        self.got: list[tuple[str, bytes]] = []
        self.breaks: set[str] = set()
        self.answers = list(answers)
        entity = AE(ae_title="PACS")
        entity.require_called_aet = True
        for kind in (ComprehensiveSRStorage, SecondaryCaptureImageStorage, EncapsulatedPDFStorage):
            entity.add_supported_context(kind)
        handlers = [(evt.EVT_C_STORE, self.store)]
        self.server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, ssl_context=tls)
        self.port = self.server.server_address[1]

    def store(self, event):
        self.got.append((str(event.request.AffectedSOPInstanceUID), event.request.DataSet.getvalue()))
        answer = self.answers.pop(0) if self.answers else 0x0000
        if self.got[-1][0] in self.breaks:
            answer = "gone"
        if answer == "gone":
            event.assoc.abort()
            return 0x0000
        return answer

    @property
    def uids(self):
        return {uid for uid, _ in self.got}

    @property
    def datasets(self):
        return [pydicom.dcmread(BytesIO(content), force=True) for _, content in self.got]

    def close(self):
        self.server.shutdown()


@contextmanager
def running(output, checkpoint, receiver_port, **more):
    """A node that runs; gives its port."""
    values = {"first_pause": 0.1, "longest_pause": 0.5, "callers": ["CLINIC"], "film": "crop", "device": "cpu"}
    values |= {"send_to": f"PACS@127.0.0.1:{receiver_port}", "port": 0, "checkpoint": checkpoint} | more
    settings = NodeSettings(output=str(output), **values)
    stopped, printed = threading.Event(), []
    failures = []

    def serve():
        try:
            node(settings, stopped, printed.append)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wait_for(lambda: printed or failures)
        if failures:
            raise failures[0]
        yield int(printed[0].rpartition(":")[2])
    finally:
        stopped.set()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextmanager
def listening_alone(output, **more):
    """The part of a node that listens, without a network; gives its port and queue."""
    output.mkdir()
    values = {"send_to": "PACS@127.0.0.1:9", "callers": ["CLINIC"], "port": 0, "timeout": 0.5} | more
    queue = Queue(output)
    server = listening(NodeSettings(output=str(output), **values), queue, lambda: None)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], queue
    finally:
        stop(server)
        thread.join(PATIENCE)
        queue.close()


def wait_for(what, patience=PATIENCE):
    end = time.monotonic() + patience
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


@contextmanager
def association(port, calling="CLINIC", called="LEGRADNET", **more):
    entity = AE(ae_title=calling)
    for kind in (Verification, DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage):
        entity.add_requested_context(kind)
    made = entity.associate("127.0.0.1", port, ae_title=called, **more)
    try:
        yield made
    finally:
        if made.is_established:
            made.release()


def send(port, *paths, **more):
    """Send films; gives the statuses."""
    with association(port, **more) as made:
        assert made.is_established
        return [made.send_c_store(pydicom.dcmread(path)).get("Status") for path in paths]


def echo(port, **more):
    with association(port, **more) as made:
        return made.is_established and made.send_c_echo().get("Status") == 0x0000


def certificate(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key, which signs itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    path = folder / "node.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    command += f" -addext subjectAltName=IP:127.0.0.1 -keyout {path}.key -out {path}"
    subprocess.run(command.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path
