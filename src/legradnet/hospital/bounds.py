"""A DICOM server within limits of connections, sizes and times; pynetdicom itself takes whatever length a peer states.

What is overridden here is that of pynetdicom 3.0.4 (`transport.py`).
"""

import ssl
import threading
import time
from dataclasses import dataclass
from socket import socket
from socketserver import BaseServer
from typing import Any

from pynetdicom import evt
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

_STEP = 65_536  # bytes that are read at a time
_MORE = 4  # connections beyond the associations, which are told that there are too many, by each of these
_HANDSHAKE = 10.0  # seconds
_COMMANDS = 65_536  # bytes beside an object
_LEAST = 131_072  # bytes of a PDU that are always taken: a request of an association is as long as its peer likes


@dataclass(frozen=True)
class Bounds:
    """Limits.

    Attributes:
        associations: At once.
        pdu: Bytes of a PDU.
        object: Bytes of an object.
        seconds: For a PDU that has begun.
    """

    associations: int
    pdu: int
    object: int
    seconds: float


class TooLargeError(OSError):
    """A peer sends more than is taken; pynetdicom closes the connection."""


class _Reader:
    """Reads what a peer sends on one connection, in place of `AssociationSocket.recv`."""

    def __init__(self, connection: AssociationSocket, server: "BoundedServer") -> None:
        self.connection, self.server = connection, server
        self.unhandled = 0  # bytes since the last object that was taken

    def __call__(self, count: int) -> bytearray:
        bounds = self.server.bounds
        if count > max(bounds.pdu, _LEAST):
            raise TooLargeError(f"a PDU of {count} bytes")
        self.unhandled += count
        if self.unhandled > bounds.object + _COMMANDS or self.server.unhandled() > _MORE * bounds.object:
            raise TooLargeError(f"{self.unhandled} bytes of one object")
        return self._read(count)

    def _read(self, count: int) -> bytearray:
        peer = self.connection.socket
        if peer is None:
            raise ConnectionError
        content, end = bytearray(), time.monotonic() + self.server.bounds.seconds
        try:
            while len(content) < count:
                if (left := end - time.monotonic()) <= 0:
                    raise TimeoutError("a PDU that does not end")
                peer.settimeout(left)
                if not (part := peer.recv(min(_STEP, count - len(content)))):
                    break
                content += part
        finally:
            peer.settimeout(self.server.bounds.seconds)  # as it also has to send within a time
        return content


class _Handler(RequestHandler):
    server: "BoundedServer"

    def handle(self) -> None:
        association = self._create_association()
        connection: Any = association.dul.socket
        connection.recv = reader = _Reader(connection, self.server)
        self.server.readers.append((association, reader))
        association.bind(evt.EVT_DIMSE_RECV, _taken, [reader])
        evt.trigger(association, evt.EVT_CONN_OPEN, {"address": self.client_address})
        association.start()


def _taken(event: evt.Event, reader: _Reader) -> None:
    """A message is whole: begin to count anew, unless others wait that a peer has sent without an answer."""
    if event.assoc.dimse.msg_queue.empty():
        reader.unhandled = 0


class BoundedServer(ThreadedAssociationServer):
    """As pynetdicom's, within `bounds`.

    Args:
        bounds: The limits.
        tls: What a TLS connection needs; None: connections are not encrypted.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, *place: Any, bounds: Bounds, tls: ssl.SSLContext | None, **more: Any) -> None:
        self.bounds, self.tls = bounds, tls
        self.readers: list[tuple[threading.Thread, _Reader]] = []
        self._handshakes = threading.BoundedSemaphore(bounds.associations)
        more["request_handler"] = _Handler
        super().__init__(*place, **more)

    def unhandled(self) -> int:
        """Bytes of all connections that no handler has taken yet."""
        return sum(reader.unhandled for thread, reader in tuple(self.readers) if thread.is_alive())

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether a connection is looked at: beyond the associations a few are, to be told that there are too many."""
        for one in [one for one in tuple(self.readers) if one[0].ident is not None and not one[0].is_alive()]:
            self.readers.remove(one)
        return len(self.active_associations) < self.bounds.associations + _MORE

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Begin an association, in a thread of its own, so that a slow handshake holds up nobody else."""
        if self.tls is None:
            request.settimeout(self.bounds.seconds)
            super().finish_request(request, client_address)
            return
        if not self._handshakes.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            request.settimeout(_HANDSHAKE)
            secure: socket = self.tls.wrap_socket(request, server_side=True)
            secure.settimeout(self.bounds.seconds)
        except (OSError, ValueError):
            self.shutdown_request(request)
            return
        finally:
            self._handshakes.release()
        super().finish_request(secure, client_address)

    def shutdown(self) -> None:
        """Take no more connections; pynetdicom's own wants to have started the server itself."""
        BaseServer.shutdown(self)
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that breaks is its peer's trouble."""
