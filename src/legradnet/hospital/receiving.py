"""The node's ear: C-ECHO and C-STORE of films, which are safe on disk before they are acknowledged."""

import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
    Verification,
)

from legradnet.errors import UserError
from legradnet.files import NotWrittenError
from legradnet.hospital.bounds import BoundedServer, Bounds
from legradnet.hospital.identity import is_uid
from legradnet.hospital.queue import Queue
from legradnet.hospital.settings import NodeSettings, receiver

log = logging.getLogger(__name__)

FILMS = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    SecondaryCaptureImageStorage,
)
SYNTAXES = (
    "1.2.840.10008.1.2.1",  # explicit VR
    "1.2.840.10008.1.2",  # implicit VR
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.57",  # JPEG lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.80",  # JPEG-LS
    "1.2.840.10008.1.2.4.81",  # JPEG-LS, nearly lossless
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.5",  # RLE
)
_SUCCESS, _NO_RESOURCES, _NO_SUCH_UID = 0x0000, 0xA700, 0x0117
_MB, _KB = 1_000_000, 1024


def listening(settings: NodeSettings, queue: Queue, wake: Callable[[], None]) -> BoundedServer:
    """A server that is bound to its address, and takes films as soon as it is told to `serve_forever`.

    Args:
        settings: Address, titles, limits.
        queue: Where films go.
        wake: Called when one has come.

    Raises:
        UserError: The address can't be had, or the certificate can't be read.
    """
    quiet()
    assert settings.send_to is not None
    entity = AE(ae_title=settings.aet)
    entity.require_called_aet = True
    entity.require_calling_aet = list(settings.callers or [receiver(settings.send_to)[0]])
    entity.maximum_associations = settings.max_associations
    entity.maximum_pdu_size = settings.max_pdu_kb * _KB - 6  # the length that it states is without its head
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = settings.timeout
    entity.add_supported_context(Verification)
    for kind in FILMS:
        entity.add_supported_context(kind, list(SYNTAXES))

    def store(event: evt.Event) -> int:
        return _store(event, settings, queue, wake)

    bounds = Bounds(
        associations=settings.max_associations,
        pdu=settings.max_pdu_kb * _KB,
        object=settings.max_object_mb * _MB,
        seconds=settings.timeout,
    )
    tls = server_tls(settings)
    address = _address(settings.host, settings.port)
    try:
        server: Any = entity.make_server(
            address,
            evt_handlers=[(evt.EVT_C_STORE, store)],
            server_class=BoundedServer,
            bounds=bounds,
            tls=tls,
        )
        return server
    except (OSError, UnicodeError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"host={settings.host} port={settings.port} can't be listened on: {reason}.") from None


def _address(host: str, port: int) -> Any:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError) as error:
        raise UserError(f"host={host} is no address of this machine: {getattr(error, 'strerror', error)}.") from None


def _store(event: evt.Event, settings: NodeSettings, queue: Queue, wake: Callable[[], None]) -> int:
    request: Any = event.request
    uid = str(request.AffectedSOPInstanceUID)
    if not is_uid(uid):
        return _NO_SUCH_UID
    try:
        if queue.waiting() >= settings.max_waiting:
            log.warning("%s is refused: %d films wait", uid, settings.max_waiting)
            return _NO_RESOURCES
        queue.keep_film(uid, event.encoded_dataset())
    except NotWrittenError as error:
        log.error("%s is refused: %s", uid, error)
        return _NO_RESOURCES
    log.info("%s has come", uid)
    wake()
    return _SUCCESS


def quiet() -> None:
    """Keep pynetdicom's and pydicom's logs for themselves: they quote what peers send, and so patients."""
    _config.LOG_HANDLER_LEVEL = "none"
    for name in ("pynetdicom", "pydicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def server_tls(settings: NodeSettings) -> ssl.SSLContext | None:
    """What connections are encrypted with; None where they are not.

    Raises:
        UserError: A file can't be read, or one is missing.
    """
    if settings.cert is None:
        if settings.key is not None:
            raise UserError("key= is of a certificate: add cert=CERTIFICATE.pem.")
        if settings.ca is not None and not settings.send_tls:
            raise UserError("ca= is for TLS: add cert=CERTIFICATE.pem to receive by it, or send_tls=true to send.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, settings)
    if settings.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_tls(settings: NodeSettings) -> ssl.SSLContext | None:
    """What sending is encrypted with; None where it is not.

    Raises:
        UserError: A file can't be read.
    """
    if not settings.send_tls:
        return None
    # whom the machine trusts anyway counts only where `ca` names nobody
    context = ssl.create_default_context() if settings.ca is None else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: NodeSettings) -> None:
    if settings.cert is not None:
        try:
            context.load_cert_chain(settings.cert, settings.key, password="")
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            files = f"cert={settings.cert}" + (f" key={settings.key}" if settings.key else "")
            raise UserError(f"{files}: no certificate with its private key, without a password, can be read "
                            f"({getattr(error, 'strerror', None) or error}).") from None  # fmt: skip
    if settings.ca is not None:
        try:
            context.load_verify_locations(settings.ca)
        except (OSError, ValueError) as error:
            words = getattr(error, "strerror", None) or error
            raise UserError(f"ca={settings.ca}: no certificates can be read ({words}).") from None


def stop(server: BoundedServer) -> None:
    """Take no more films."""
    for association in server.active_associations:
        with suppress(Exception):  # it may end meanwhile, in whatever way
            association.abort()
    server.shutdown()
