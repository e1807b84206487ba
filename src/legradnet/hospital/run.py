"""`legradnet-node`: takes films from a PACS, grades the knees among them, and sends reports and pictures back."""

import logging
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from legradnet.claims import claimed
from legradnet.errors import UserError
from legradnet.grading.grader import Grader
from legradnet.grading.loading import models_in_words
from legradnet.hospital.objects import check_installed
from legradnet.hospital.queue import Queue
from legradnet.hospital.settings import NodeSettings
from legradnet.hospital.status import status
from legradnet.settings import checked

log = logging.getLogger(__name__)

_PATIENCE = 30.0  # seconds for what is being graded or sent when the node is stopped
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def node(
    config: Mapping[str, Any] | NodeSettings,
    stopped: threading.Event | None = None,
    tell: Callable[[str], object] = print,
) -> None:
    """Serve until it is stopped, or tell what the node does.

    Args:
        config: `NodeSettings` or their plain values, as `conf/node.yaml` composes them.
        stopped: Ends it when set, as SIGTERM and SIGINT do.
        tell: Is told where it listens, when it does.

    Raises:
        UserError: A mistake in the config, the checkpoint, the address or the folder.
    """
    settings = checked(NodeSettings, config)
    if settings.show == "status":
        print(status(Path(settings.output)))
        return
    if settings.send_to is None:
        raise UserError("send_to=AET@HOST:PORT is needed: where reports and pictures go.")
    check_installed("pynetdicom", "highdicom")
    with claimed(Path(settings.output)):
        _serve(settings, stopped or threading.Event(), tell)


def _serve(settings: NodeSettings, stopped: threading.Event, tell: Callable[[str], object]) -> None:
    from legradnet.hospital.receiving import client_tls, listening, stop  # late: they need the extra
    from legradnet.hospital.sending import Sender
    from legradnet.hospital.working import Worker

    queue = Queue(Path(settings.output))
    waker = threading.Event()
    server = listening(settings, queue, waker.set)
    try:
        sender = Sender(queue, settings, client_tls(settings))
        grader = Grader.load(settings.checkpoint, device=settings.device, precision=settings.precision)
    except BaseException:
        server.server_close()
        raise
    worker = Worker(queue, grader, settings.film, pdf=settings.pdf, wake=sender.come.set)
    worker.come = waker
    log.info("Grading by %s", models_in_words(grader.networks))
    if settings.host not in _LOOPBACK and settings.cert is None:
        log.warning("host=%s without cert=: films cross the network for all to see.", settings.host)
    threads = [
        threading.Thread(target=run, name=name, daemon=True)
        for name, run in (("grading", worker.run), ("sending", sender.run), ("receiving", server.serve_forever))
    ]
    with _signals_stop(stopped):
        for thread in threads:
            thread.start()
        tell(f"{settings.aet} listens on {settings.host}:{server.server_address[1]}")
        sys.stdout.flush()
        while not stopped.wait(3600):
            pass
        log.info("Stopping; what waits is gone on with by the same command.")
        stop(server)
        worker.stop()
        sender.stop()
        for thread in threads:
            thread.join(_PATIENCE)
        with suppress(sqlite3.Error):  # a thread that has not ended yet holds it
            queue.close()


@contextmanager
def _signals_stop(stopped: threading.Event) -> Iterator[None]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
