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

from legradnet.errors import UserError
from legradnet.hospital.queue import Queue, WaitingObject
from legradnet.hospital.settings import NodeSettings, receiver

log = logging.getLogger(__name__)

_KINDS = (ComprehensiveSRStorage, SecondaryCaptureImageStorage, EncapsulatedPDFStorage)
_SYNTAXES = ["1.2.840.10008.1.2.1", "1.2.840.10008.1.2"]
_AT_ONCE = 50  # objects an association
_LOOK = 1.0  # seconds after which the queue is looked at though nothing was told


class _NotTakenError(Exception):
    """The receiver does not take an object; says why."""


class _NotReachedError(Exception):
    """There is no connection to the receiver, or no longer; says what it does."""


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
                if due:
                    self._send(due)
                else:
                    self.come.wait(_LOOK)
            except _NotReachedError as error:
                self._pause_after(f"{self.settings.send_to} {error}")
            except UserError as error:  # of the queue
                self._pause_after(str(error))
            except Exception as error:  # a peer's answers may be anything; what waits is sent later
                self._pause_after(f"sending: {type(error).__name__}")

    def stop(self) -> None:
        """End after the object that is being sent."""
        self.stopped.set()
        self.come.set()

    def _pause(self, tries: int) -> float:
        return min(self.settings.longest_pause, self.settings.first_pause * 2.0 ** min(tries, 30))

    def _pause_after(self, words: str) -> None:
        pause = self._pause(self.tries)
        self.tries += 1
        log.warning("%s; the next try is in %.3g seconds", words, pause)
        self.stopped.wait(pause)

    def _send(self, due: Sequence[WaitingObject]) -> None:
        """Send what is due; raises _NotReachedError where the receiver was not there to the end."""
        how: dict[str, Any] = {"tls_args": (self.tls, self.host)} if self.tls else {}
        association = self.entity.associate(self.host, self.port, ae_title=self.title, **how)
        if not association.is_established:
            words = self._why_not(association)
            self.queue.not_reached(words)
            raise _NotReachedError(words)
        try:
            for made in due:
                if self.stopped.is_set():
                    break
                self._send_one(association, made)
        finally:
            if association.is_established:
                association.release()

    def _why_not(self, association: Association) -> str:
        answer: Any = association.acceptor.primitive
        if association.is_rejected and answer is not None:
            return f"refuses the connection: {answer.reason_str.lower()}"
        return "is not reached" + (", or TLS fails" if self.tls else "")

    def _send_one(self, association: Association, made: WaitingObject) -> None:
        """Send an object; raises _NotReachedError where the connection broke."""
        pause = self._pause(made.tries)
        try:
            self._store(association, made.path)
        except _NotTakenError as refused:
            log.warning("%s is not taken (%s); the next try is in %.3g seconds", made.uid, refused, pause)
            self.queue.not_sent(made, str(refused), pause)
        except ConnectionError:
            self.queue.not_sent(made, "no answer came", pause)  # others go first, as it may be what breaks connections
            raise _NotReachedError(f"has not acknowledged {made.uid}") from None
        else:
            self.tries = 0
            self.queue.sent(made)
            log.info("%s is sent, of %s", made.uid, made.film)

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
