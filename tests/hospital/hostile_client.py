"""A client that sends a node what it should not: broken PDUs, mutated films, connections that are left half open."""

import random
import socket
import struct
import time
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from knee_films import KNEE, film
from pynetdicom import AE, PYNETDICOM_IMPLEMENTATION_UID, _config
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.sop_class import DigitalXRayImageStorageForPresentation

_CONTEXT = 1
_TRIES = 100  # half-open associations may hold all places, for as long as the node lets them


def _pdu(kind: int, length: int, content: bytes = b"") -> bytes:
    return struct.pack(">BBL", kind, 0, length) + content


def send_hostile_bytes(port: int, dice: random.Random) -> None:
    """Oversized, unknown and broken PDUs, each on a connection of its own."""
    for content in (
        _pdu(1, 2**32 - 1, b"x" * 3000),
        _pdu(4, 5_000_000, dice.randbytes(3000)),
        _pdu(1, 3000, dice.randbytes(3000)),
        _pdu(dice.randrange(256), 40, dice.randbytes(40)),
        dice.randbytes(200),
    ):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 2) as peer:
            peer.sendall(content)


def half_open(port: int, dice: random.Random) -> list[socket.socket]:
    """A connection that says nothing, one with half a request, and an association with half of an object."""
    silent, begun, let_in = (socket.create_connection(("127.0.0.1", port), 5) for _ in range(3))
    with suppress(OSError):
        begun.sendall(_pdu(1, 3000, dice.randbytes(dice.randrange(2999))))
        let_in.sendall(_request())
        let_in.recv(65_536)
        let_in.sendall(_pdu(4, 2006, struct.pack(">LBB", 2002, _CONTEXT, 0) + dice.randbytes(2000)))
    return [silent, begun, let_in]


def _films_alone() -> AE:
    entity = AE(ae_title="CLINIC")
    entity.add_requested_context(DigitalXRayImageStorageForPresentation, "1.2.840.10008.1.2.1")
    return entity


def _request() -> bytes:
    """An A-ASSOCIATE-RQ, as a sender of films makes it."""
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16_382
    implementation.implementation_class_uid = PYNETDICOM_IMPLEMENTATION_UID
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CLINIC", "LEGRADNET"
    primitive.user_information = [length, implementation]
    contexts = _films_alone().requested_contexts
    contexts[0].context_id = _CONTEXT
    primitive.presentation_context_definition_list = contexts
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return bytes(pdu.encode())


def send_mutated(port: int, folder: Path, number: int, dice: random.Random) -> bool:
    """Send a film of its own with damaged bytes, as it stands; whether it was answered."""
    path = film(folder / "film.dcm", 100_000 + number)
    content = bytearray(path.read_bytes())
    (meta,) = struct.unpack_from("<L", content, 140)
    start, end = (
        144 + meta,
        len(content) if number % 2 else len(content) - KNEE.size,
    )  # half of them in the header alone
    for _ in range(dice.choice((1, 5, 50, 500))):
        content[dice.randrange(start, end)] = dice.randrange(256)
    if number % 5 == 0:
        del content[dice.randrange(start, len(content)) :]
    path.write_bytes(content)
    for _ in range(_TRIES):
        made = _films_alone().associate("127.0.0.1", port, ae_title="LEGRADNET")
        if made.is_established:
            with patch.object(_config, "STORE_SEND_CHUNKED_DATASET", True):  # as it stands, never decoded
                answer = made.send_c_store(path)
            made.release()
            return answer.get("Status") is not None
        time.sleep(0.2)
    return False
