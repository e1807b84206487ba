"""The node's mouth: objects go to their receiver, again and again with growing pauses until it has them."""

import logging
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    SecondaryCaptureImageStorage,
)

from legradnet.files import NotWrittenError
from legradnet.hospital.queue import Queue, WaitingObject
from legradnet.hospital.settings import NodeSettings, receiver

log = logging.getLogger(__name__)

_KINDS = (ComprehensiveSRStorage, SecondaryCaptureImageStorage, EncapsulatedPDFStorage)
_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_AT_ONCE = 50  # objects an association
_LOOK = 1.0  # seconds after which the queue is looked at though nothing was told


class _NotTakenError(Exception):
    """The receiver does not take an object; says why."""


class Sender:
    """Sends what waits.

    Args:
        queue: Where objects wait.
        settings: The receiver, and pauses.
        tls: What connections are encrypted with, if they are.
    """

    def __init__(self, queue: Queue, settings: NodeSettings, tls: ssl.SSLContext | None) -> None:
        assert settings.send_to is not None
        self.queue, self.settings = queue, settings
        self.title, self.host, self.port = receiver(settings.send_to)
        self.tls = tls
        self.entity = AE(ae_title=settings.aet)
        self.entity.acse_timeout = self.entity.dimse_timeout = self.entity.network_timeout = settings.timeout
        self.entity.connection_timeout = settings.timeout
        self.entity.requested_contexts = [build_context(kind, _SYNTAXES) for kind in _KINDS]
        self.tries = 0  # that did not reach the receiver, one after the other
        self.come = threading.Event()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Send until it is stopped."""
        while not self.stopped.is_set():
            self.come.clear()
            try:
                due = self.queue.due(_AT_ONCE)
                if due and not self._send(due):
                    pause = self._pause(self.tries)
                    self.tries += 1
                    log.warning("%s is not reached; the next try is in %.3g seconds", self.settings.send_to, pause)
                    self.stopped.wait(pause)
                elif not due:
                    self.come.wait(_LOOK)
            except NotWrittenError as error:
                log.error("%s", error)
                self.stopped.wait(self._pause(self.tries))
            except Exception as error:  # a peer's answers may be anything; what waits is sent later
                log.error("sending: %s", type(error).__name__)
                self.tries += 1
                self.stopped.wait(self._pause(self.tries))

    def stop(self) -> None:
        """End after the object that is being sent."""
        self.stopped.set()
        self.come.set()

    def _pause(self, tries: int) -> float:
        return min(self.settings.longest_pause, self.settings.first_pause * 2.0 ** min(tries, 30))

    def _send(self, due: Sequence[WaitingObject]) -> bool:
        """Send what is due; whether the receiver was there to the end."""
        how: dict[str, Any] = {"tls_args": (self.tls, self.host)} if self.tls else {}
        association = self.entity.associate(self.host, self.port, ae_title=self.title, **how)
        if not association.is_established:
            return False
        try:
            for made in due:
                if self.stopped.is_set():
                    break
                if not self._send_one(association, made):
                    return False
        finally:
            if association.is_established:
                association.release()
        return True

    def _send_one(self, association: Association, made: WaitingObject) -> bool:
        """Send an object; whether the connection is still good."""
        try:
            self._store(association, made.path)
        except _NotTakenError as refused:
            pause = self._pause(made.tries)
            words = str(refused)
            log.warning("%s is not taken (%s); the next try is in %.3g seconds", made.uid, words, pause)
            self.queue.not_sent(made, words, pause)
        except ConnectionError:
            log.warning("%s is not acknowledged: the connection broke", made.uid)
            return False
        else:
            self.tries = 0
            self.queue.sent(made)
            log.info("%s is sent, of %s", made.uid, made.film)
        return True

    @staticmethod
    def _store(association: Association, path: Path) -> None:
        """Send a file; raises _NotTakenError, or ConnectionError where there is no answer."""
        try:
            dataset = dcmread(path)
        except OSError:
            raise _NotTakenError("its file can't be read") from None
        try:
            answer = association.send_c_store(dataset)
        except ValueError:
            raise _NotTakenError("its receiver takes no such objects") from None
        except RuntimeError:
            raise ConnectionError from None
        status = answer.get("Status")
        if status is None:
            raise ConnectionError
        if status not in (0x0000, 0x0107, 0x0116) and not 0xB000 <= status <= 0xBFFF:  # success, or a warning
            raise _NotTakenError(f"status {status:04X}")
