"""Serving a reading: the socket, TLS, and connections that say nothing for too long."""

import asyncio
import atexit
import ipaddress
import os
import signal
import socket
import ssl
import tempfile
import threading
import webbrowser
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from legradnet.errors import UserError
from legradnet.viewer.settings import ViewSettings

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_FIRST_REQUEST = 10.0  # seconds in which a connection has to send the head of a request
_MOST_SILENT = 200  # connections that have sent none, or nothing after an answer; of more the oldest are closed
_LONGEST_HEAD = 32_768  # bytes


class Patience(H11Protocol):
    """A connection that is closed where it doesn't come to the point: slow heads of requests hold no place."""

    _silent: "list[Patience]" = []  # noqa: RUF012 those of this process

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Wait no longer when the head of a request is whole; and again when another has begun."""
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._come()
        elif self.cycle is None or self.cycle.response_complete:
            self._wait()

    def on_response_complete(self) -> None:
        """Be the first to go of those that have nothing more to say, when there are too many."""
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._be_silent()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._come()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(_FIRST_REQUEST, self._give_up)
        self._be_silent()

    def _be_silent(self) -> None:
        if self not in self._silent:
            self._silent.append(self)
            if len(self._silent) > _MOST_SILENT:
                self._silent[0]._give_up()

    def _come(self) -> None:
        if self in self._silent:
            self._silent.remove(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._come()
        self.transport.abort()


def listen(settings: ViewSettings) -> tuple[socket.socket, list[str], str]:
    """Open the socket of `host` and `port`; gives it, what a Host header may be, and the scheme.

    Raises:
        UserError: Films would leave the machine unencrypted, or the address can't be had.
    """
    host, is_open = settings.host, not is_loopback(settings.host)
    if is_open and settings.cert is None:
        raise UserError(f"host={host} is not only this machine, and films would cross the network for all to see: add "
                        "cert=CERTIFICATE.pem key=KEY.pem for TLS, or leave host= out.")  # fmt: skip
    if settings.key is not None and settings.cert is None:
        raise UserError("key= is of a certificate: add cert=CERTIFICATE.pem.")
    if host in ("0.0.0.0", "::", ""):
        raise UserError(f"host={host} is every address of this machine: name the one that readers will type.")
    if settings.cert is not None:
        _check_certificate(settings.cert, settings.key)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(256)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"host={host} port={settings.port} can't be listened on: {reason}.") from None
    port = listening.getsockname()[1]
    names = dict.fromkeys((host,) if is_open else (host, *_LOOPBACK))
    hosts = [f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in names]
    scheme = "https" if settings.cert is not None else "http"
    if port == {"http": 80, "https": 443}[scheme]:  # which browsers leave out
        hosts += [name.rpartition(":")[0] for name in hosts]
    return listening, hosts, scheme


def is_loopback(host: str) -> bool:
    """Whether an address is this machine's own, that no other machine reaches."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_certificate(cert: str, key: str | None) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = f"cert={cert}" + (f" key={key}" if key else "")
        raise UserError(f"{files}: no certificate with its private key, without a password, can be read "
                        f"({getattr(error, 'strerror', None) or error}).") from None  # fmt: skip


class Server(uvicorn.Server):
    """Serves until it is stopped; ends streams first, which would never end by themselves.

    Args:
        app: The application.
        settings: Certificate and key.
        closing: Called when it is to end.
    """

    def __init__(self, app: ASGIApp, settings: ViewSettings, closing: Any) -> None:
        self._closing = closing
        config = uvicorn.Config(
            app,
            http=Patience,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,  # addresses have tokens in them
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=_LONGEST_HEAD,
            ssl_certfile=settings.cert,
            ssl_keyfile=settings.key,
        )
        super().__init__(config)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let a signal be the end that a user wants, and no failure; uvicorn's own would raise it again afterwards."""
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        if threading.current_thread() is not threading.main_thread():
            numbers = []
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        self._closing()
        await super().shutdown(sockets)


def open_browser(address: str) -> None:
    """Open the address on the screen of this machine; the token in it is shown to none of its other users."""
    if os.name == "posix" and os.uname().sysname == "Linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        return
    file, path = tempfile.mkstemp(prefix="legradnet-", suffix=".html")  # what a browser is started with, all may read
    with open(file, "w") as page:  # noqa: PTH123 a descriptor
        page.write(f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={address}">')
    atexit.register(Path(path).unlink, missing_ok=True)
    later = threading.Timer(20, Path(path).unlink, kwargs={"missing_ok": True})
    later.daemon = True  # the end of the command waits for nothing
    later.start()
    threading.Thread(target=webbrowser.open, args=(Path(path).as_uri(),), daemon=True).start()


def addresses(tokens: dict[str, str], host: str, scheme: str) -> Sequence[tuple[str, str]]:
    """(reader, address) for each."""
    return [(reader, f"{scheme}://{host}/?token={token}") for reader, token in tokens.items()]
