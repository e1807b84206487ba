"""The node: what it takes, what it sends, and that neither is lost or doubled whatever happens to either side."""

import logging
import socket
import sqlite3
import ssl
import struct
from contextlib import closing, suppress

import numpy as np
import pydicom
import pytest
from knee_films import SECRETS, UID, film

from legradnet.errors import UserError
from legradnet.hospital.settings import NodeSettings

pytest.importorskip("pynetdicom", reason="the extra [hospital] is not installed")
pytest.importorskip("highdicom", reason="the extra [hospital] is not installed")
from nodes import Receiver, association, certificate, echo, listening_alone, running, send, wait_for

from legradnet.hospital.receiving import client_tls
from legradnet.hospital.status import status


def test_a_film_is_answered_by_a_report_and_a_picture_in_its_study(best, receiver, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    chest = film(tmp_path / "chest.dcm", 2, BodyPartExamined="CHEST")
    with running(tmp_path / "queue", best, receiver.port) as port:
        assert echo(port)
        assert send(port, film(tmp_path / "knee.dcm"), chest) == [0x0000, 0x0000]
        wait_for(lambda: "2 sent" in status(tmp_path / "queue") and "1 left alone" in status(tmp_path / "queue"))
        assert "running" in status(tmp_path / "queue")
    assert {str(one.StudyInstanceUID) for one in receiver.datasets} == {"1.2.826.77.1"}
    assert sorted(one.Modality for one in receiver.datasets) == ["OT", "SR"]
    assert f"{UID}.2 is left alone: its header names another part of the body" in caplog.text
    assert not [secret for secret in SECRETS[:5] if secret in caplog.text]
    assert not list((tmp_path / "queue/films").iterdir()) and not list((tmp_path / "queue/objects").iterdir())
    said = status(tmp_path / "queue")
    assert "not running" in said and "1 graded, 1 left alone, 0 failed" in said and "1 in the last hour" in said


def test_what_is_no_knee_is_left_alone_and_what_cannot_be_read_is_told(best, receiver, tmp_path):
    films = [
        film(tmp_path / "own.dcm", 1, ManufacturerModelName="LegRadNet"),
        film(tmp_path / "side.dcm", 2, ViewPosition="LL"),
        film(tmp_path / "blank.dcm", 3, pixels=np.full((300, 400), 90, np.uint8)),
        film(tmp_path / "no study.dcm", 4, StudyInstanceUID=None),
        film(tmp_path / "broken.dcm", 5, PixelData=b"\0\0"),
    ]
    with running(tmp_path / "queue", best, receiver.port, film="whole") as port:
        assert send(port, *films) == [0x0000] * 5
        wait_for(lambda: " 0 waiting, 0 graded, 4 left alone, 1 failed" in status(tmp_path / "queue"))
    assert not receiver.got
    assert f"failed   {UID}.5: is truncated" in status(tmp_path / "queue")


def test_after_a_lost_acknowledgement_the_same_bytes_go_again(best, tmp_path):
    receiver = Receiver(answers=["gone", 0xA700, 0x0000, "gone"])
    with running(tmp_path / "queue", best, receiver.port) as port:
        send(port, film(tmp_path / "knee.dcm"))
        wait_for(lambda: "2 sent" in status(tmp_path / "queue"))
    receiver.close()
    assert len(receiver.got) == 5 and len(receiver.uids) == 2
    assert len(set(receiver.got)) == 2, "one content for each UID"


def test_a_receiver_that_was_down_gets_all_when_it_is_back(best, tmp_path, caplog):
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        place = free.getsockname()[1]
    with running(tmp_path / "queue", best, place) as port:
        assert send(port, *(film(tmp_path / f"{k}.dcm", k) for k in (1, 2))) == [0x0000, 0x0000]
        wait_for(lambda: caplog.text.count("is not reached") >= 4 and "4 to be sent" in status(tmp_path / "queue"))
        pauses = [record.args[1] for record in caplog.records if "is not reached" in record.getMessage()]
        assert pauses[:4] == [0.1, 0.2, 0.4, 0.5]
        receiver = Receiver(port=place)
        wait_for(lambda: "4 sent" in status(tmp_path / "queue"))
    receiver.close()
    assert len(receiver.got) == len(receiver.uids) == 4


@pytest.mark.slow
def test_a_film_that_comes_again_is_answered_with_the_same_bytes(best, receiver, tmp_path):
    knee = film(tmp_path / "knee.dcm")
    with running(tmp_path / "queue", best, receiver.port) as port:
        for times in (2, 4):
            send(port, knee)
            wait_for(lambda times=times: len(receiver.got) == times)
        wait_for(lambda: "2 sent" in status(tmp_path / "queue"))
    assert len(set(receiver.got)) == 2
    database = sqlite3.connect(tmp_path / "queue/queue.sqlite", isolation_level=None)
    database.execute("UPDATE films SET received = received - 1e8")  # years ago
    database.close()
    with running(tmp_path / "queue", best, receiver.port) as port:
        send(port, knee)
        wait_for(lambda: len(receiver.got) == 6)
    first, again = (int(receiver.datasets[number].InstanceCreationDate) for number in (0, 5))
    assert again < first, "the objects of a film keep the time at which it came first"


@pytest.fixture(scope="module")
def ear(tmp_path_factory):
    with listening_alone(tmp_path_factory.mktemp("ear") / "queue", max_associations=2, max_object_mb=1) as place:
        yield place


@pytest.mark.parametrize("titles", [{"calling": "STRANGER"}, {"called": "OTHER"}])
def test_only_known_titles_are_let_in(ear, titles):
    port, _ = ear
    assert not echo(port, **titles)
    assert echo(port)


def test_beyond_its_room_the_node_refuses_and_says_so(tmp_path):
    with listening_alone(tmp_path / "queue", max_waiting=1) as (port, queue):
        knee = film(tmp_path / "knee.dcm")
        assert send(port, knee, knee) == [0x0000, 0xA700]
        assert queue.waiting() == 1


def _pdu(kind, length, content=b""):
    return struct.pack(">BBL", kind, 0, length) + content


HOSTILE = {
    "an enormous PDU": _pdu(1, 2**32 - 1, b"x" * 5000),
    "a PDU that ends early": _pdu(1, 4000, b"x" * 100),
    "no PDU": b"GET / HTTP/1.1\r\n\r\n" * 50,
    "an unknown PDU": _pdu(99, 10, b"y" * 10),
    "data before an association": _pdu(4, 20, b"\0" * 20),
    "nothing": b"",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_end_their_own_connection_alone(ear, what):
    port, _ = ear
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.sendall(HOSTILE[what])
        peer.settimeout(20)
        with suppress(ConnectionError):
            while peer.recv(4096):
                pass
    assert echo(port)


def test_connections_that_say_nothing_hold_up_nobody_for_longer_than_the_timeout(ear):
    port, _ = ear
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(30)]
    wait_for(lambda: echo(port))
    for peer in silent:
        peer.close()


def test_more_associations_than_there_may_be_are_refused(ear):
    port, _ = ear
    with association(port) as first, association(port) as second:
        assert first.is_established and second.is_established
        assert not echo(port)
    wait_for(lambda: echo(port))


def test_too_large_an_object_is_cut_off(ear, tmp_path):
    port, queue = ear
    large = film(tmp_path / "large.dcm", 7, pixels=np.zeros((1100, 1100), np.uint8))
    assert send(port, large) == [None]
    assert send(port, film(tmp_path / "knee.dcm", 8)) == [0x0000]
    assert [path.name for path in (queue.folder / "films").iterdir()] == [f"{UID}.8.dcm"]


def test_a_film_is_refused_with_a_uid_that_is_none(ear, tmp_path):
    port, queue = ear
    dataset = pydicom.dcmread(film(tmp_path / "knee.dcm"))
    dataset.SOPInstanceUID = "1.2.3-4"
    before = queue.waiting()
    with association(port) as made:
        assert made.send_c_store(dataset).Status == 0x0117
    assert queue.waiting() == before


def test_with_tls_both_ways_and_only_with_a_certificate(best, tmp_path):
    path = certificate(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    receiver = Receiver(tls=server)
    client = ssl.create_default_context(cafile=path)
    own = ssl.create_default_context(cafile=path)
    own.load_cert_chain(path)
    how = {"cert": str(path), "ca": str(path), "send_tls": True}
    with running(tmp_path / "queue", best, receiver.port, **how) as port:
        assert not echo(port) and not echo(port, tls_args=(client, "127.0.0.1"))
        slow = socket.create_connection(("127.0.0.1", port))  # and no handshake
        assert send(port, film(tmp_path / "knee.dcm"), tls_args=(own, "127.0.0.1")) == [0x0000]
        wait_for(lambda: len(receiver.got) == 2)
        slow.close()
    receiver.close()


def test_a_receiver_is_trusted_by_ca_alone(tmp_path):
    path = certificate(tmp_path)
    settings = NodeSettings(output="queue", send_to="PACS@127.0.0.1:104", send_tls=True, ca=str(path))
    assert len(client_tls(settings).get_ca_certs()) == 1 and client_tls(settings).check_hostname


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"send_to": "PACS"}, "AET@HOST:PORT"),
        ({"send_to": "PACS@host:0"}, "AET@HOST:PORT"),
        ({"send_to": "A TITLE THAT IS TOO LONG@host:104"}, "AET@HOST:PORT"),
        ({"aet": "A\\B"}, "AE title"),
        ({"aet": " "}, "AE title"),
        ({"callers": []}, "callers"),
        ({"port": 70_000}, "port"),
    ],
)
def test_mistakes_in_addresses_and_titles_are_told(mistake, words):
    with pytest.raises(UserError, match=words):
        NodeSettings(output="queue", **mistake)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show=status"], "there is no queue"),
        ([], "send_to=AET@HOST:PORT is needed"),
        (["send_to=PACS@127.0.0.1:104", "host=203.0.113.9"], "can't be listened on"),
        (["send_to=PACS@127.0.0.1:104", "cert=missing.pem"], "missing.pem"),
        (["send_to=PACS@127.0.0.1:104", "ca=missing.pem"], "ca= is for TLS"),
        (["send_to=PACS@127.0.0.1:104", "port=0", "checkpoint=missing.ckpt"], "missing.ckpt"),
    ],
)
def test_mistakes_of_the_command_are_told_before_it_serves(typed, arguments, words):
    done = typed("legradnet-node", "output=queue", *arguments)
    assert done.returncode == 2 and words in done.stderr


def test_a_second_node_in_the_same_folder_is_refused(best, receiver, tmp_path, typed):
    with running(tmp_path / "queue", best, receiver.port):
        done = typed("legradnet-node", f"output={tmp_path / 'queue'}", "send_to=PACS@127.0.0.1:104", "port=0")
        assert done.returncode == 2 and "is held by" in done.stderr
