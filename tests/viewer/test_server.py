"""The server as it is started: addresses, TLS, connections that come to no point, kills, and its end."""

import json
import re
import signal
import socket
import ssl
import subprocess
import threading
import time
from contextlib import contextmanager, suppress

import httpx2 as httpx
import pytest
from commands import predicted_run, started
from readings import a_room, films, mark

from legradnet.viewer import server
from legradnet.viewer.app import create_app
from legradnet.viewer.settings import ViewSettings


@contextmanager
def served(room, **settings):
    """A real server of a reading; gives its port."""
    settings = ViewSettings(**settings)
    listening, hosts, scheme = server.listen(settings)
    running = server.Server(create_app(room, hosts=hosts, scheme=scheme), settings, closing=room.events.close)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        running.should_exit = True
        thread.join(10)
        assert not thread.is_alive()
        listening.close()


def entered(room, port, reader="A"):
    made = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=20)
    assert made.get(f"/?token={room.entry.tokens[reader]}").status_code == 303
    return made


def said_back(connection):
    connection.settimeout(10)
    content = b""
    while part := connection.recv(65_536):
        content += part
    return content


def is_closed(connection):
    """Whether it is, within seconds, whatever is sent."""
    connection.settimeout(0.1)
    for _ in range(50):
        try:
            connection.sendall(b"x")
            return connection.recv(1) == b""
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False


def test_slow_heads_of_requests_are_closed_and_hold_nobody_up(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_FIRST_REQUEST", 0.5)
    with a_room(tmp_path) as room, served(room) as port:
        slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
        for connection in slow:
            connection.sendall(b"GET /api/session HTTP/1.1\r\nHost: ")
        reader = entered(room, port)
        assert reader.get("/api/session").status_code == 200
        for connection in slow:
            assert is_closed(connection)
        assert reader.get("/api/session").status_code == 200  # which was not silent


def test_of_too_many_silent_connections_the_oldest_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_MOST_SILENT", 5)
    with a_room(tmp_path) as room, served(room) as port:
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(8)]
        assert is_closed(silent[0])
        silent[7].sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
        assert said_back(silent[7]).startswith(b"HTTP/1.1 403 ")


def test_of_too_many_connections_that_say_nothing_more_the_oldest_is_closed(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_MOST_SILENT", 5)
    with a_room(tmp_path) as room, served(room) as port:
        cookie = "; ".join(f"{name}={value}" for name, value in entered(room, port).cookies.items())
        asked = []
        for _ in range(8):
            asked.append(socket.create_connection(("127.0.0.1", port)))
            asked[-1].sendall(
                f"GET /page/icon.svg HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n\r\n".encode()
            )
            assert asked[-1].recv(12) == b"HTTP/1.1 200"
        with suppress(ConnectionError):
            assert said_back(asked[0])  # and its end
        asked[7].sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert said_back(asked[7]).count(b"HTTP/1.1 403 ") == 1  # a stranger is let go at once


def test_ten_gigabytes_are_refused_at_their_head(tmp_path):
    with a_room(tmp_path) as room, served(room) as port:
        reader = entered(room, port)
        cookie = "; ".join(f"{name}={value}" for name, value in reader.cookies.items())
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(f"PUT /films?name=a HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: {cookie}\r\n"
                               "Content-Length: 10000000000\r\nExpect: 100-continue\r\n\r\n".encode())  # fmt: skip
            assert said_back(connection).startswith(b"HTTP/1.1 413 ")  # and no 100 Continue


def test_a_page_that_listens_hears_of_marks_and_its_stream_ends_with_the_server(tmp_path):
    with a_room(tmp_path) as room:
        with served(room) as port:
            reader, other = entered(room, port), entered(room, port, "B")
            with reader.stream("GET", "/api/events") as stream:
                lines = stream.iter_lines()
                assert next(lines) == "event: progress" and json.loads(next(lines).removeprefix("data: "))["total"] == 6
                film = films(other)[0]["id"]
                mark(other, film, 2)
                heard = [next(lines) for _ in range(4)]
                assert heard[1:3] == ["event: film", f'data: {{"id": "{film}"}}']
            streams = [threading.Thread(target=_listen, args=(reader,)) for _ in range(2)]
            for stream in streams:
                stream.start()
            time.sleep(0.2)
        for stream in streams:
            stream.join(5)
            assert not stream.is_alive()


def _listen(reader):
    with suppress(httpx.HTTPError), reader.stream("GET", "/api/events") as stream:
        for _ in stream.iter_lines():
            pass


def test_a_reader_has_a_few_streams_and_not_more(tmp_path, monkeypatch):
    monkeypatch.setattr("legradnet.viewer.events.MOST_STREAMS", 0)
    with a_room(tmp_path) as room, served(room) as port:
        assert entered(room, port).get("/api/events").status_code == 429


def certificate(folder, name="127.0.0.1"):
    """A certificate of our own making and its key."""
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=IP:{name}", "-keyout", "key.pem", "-out", "cert.pem"],
        cwd=folder, capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    return {"cert": str(folder / "cert.pem"), "key": str(folder / "key.pem")}


def test_over_tls_the_cookie_is_secure_and_plain_http_is_not_answered(tmp_path):
    files = certificate(tmp_path)
    with a_room(tmp_path) as room, served(room, **files) as port:
        room.entry.secure, room.entry.cookie = True, f"__Host-legradnet-view-{port}"
        context = ssl.create_default_context(cafile=files["cert"])
        made = httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context)
        answer = made.get(f"/?token={room.entry.tokens['A']}")
        assert "; Secure" in answer.headers["set-cookie"]
        assert made.get("/api/session", headers={"origin": f"https://127.0.0.1:{port}"}).status_code == 200
        assert made.get("/api/session", headers={"origin": f"http://127.0.0.1:{port}"}).status_code == 403
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"host": "192.0.2.1"}, "add cert=CERTIFICATE.pem key=KEY.pem for TLS"),
        ({"host": "0.0.0.0"}, "add cert="),
        ({"host": "0.0.0.0", "cert": "x"}, "name the one that readers will type"),
        ({"host": "::", "cert": "x"}, "name the one that readers will type"),
        ({"key": "x"}, "add cert="),
        ({"cert": "none.pem"}, "cert=none.pem: no certificate"),
    ],
)
def test_an_address_that_is_not_safe_or_cannot_be_had_is_told(settings, words):
    with pytest.raises(server.UserError, match=re.escape(words)):
        server.listen(ViewSettings(**settings))


def test_a_port_that_is_taken_is_told():
    words = r"can't be listened on: Address already in use"
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(server.UserError, match=words):
        server.listen(ViewSettings(port=taken.getsockname()[1]))


# ------------------------------------------------------------------------------------------ the command
@contextmanager
def entered_command(*arguments, cwd):
    """The command, with a client of its first reader."""
    with started(*arguments, cwd=cwd) as (process, address):
        made = httpx.Client(base_url=address.partition("/?")[0], timeout=20)
        assert made.get(address).status_code == 303
        yield process, made


@pytest.mark.slow
def test_a_killed_command_loses_no_mark_and_a_stopped_one_writes_the_labels(tmp_path):
    arguments = [f"input={predicted_run(tmp_path)}", f"output={tmp_path}/out", "readers=[A,B]"]
    with entered_command(*arguments, cwd=tmp_path) as (process, reader):
        ids = [film["id"] for film in films(reader, sort="name")]
        mark(reader, ids[0], 3)
        mark(reader, ids[1], None, note="blurred")
        mark(reader, ids[2], 4)
        reader.post("/api/undo")
        process.send_signal(signal.SIGKILL)
        process.wait()
    with entered_command(*arguments, cwd=tmp_path) as (process, reader):
        for _ in range(200):  # until films are known again
            marks = [
                film["mark"] and (film["mark"]["grade"], film["mark"]["note"]) for film in films(reader, sort="name")
            ]
            if marks[0] and marks[1]:
                break
            time.sleep(0.02)
        assert marks == [(3, ""), (None, "blurred"), None, None]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert (tmp_path / "out/labels.csv").read_text() == "filename,label,patient,side,readers,note\nknee0.png,3,,,1,\n"
    assert "knee1.png,,,ungradable,A: blurred" in (tmp_path / "out/ungradable.csv").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["input=none"], "input=none does not exist."),
        (["host=192.0.2.1"], "add cert=CERTIFICATE.pem key=KEY.pem for TLS"),
        (["readers=[A,a]"], "must be different names"),
        (["readers=[]"], "readers"),
        (["'readers=[<b>]'"], "readers"),
        (["study=open"], "study=open must be one of blind, null"),
        (["checkpoint=none.ckpt"], "none.ckpt"),
        (["data.patient_regex='(x'"], "is no regular expression"),
    ],
)
def test_a_mistake_is_told_in_a_sentence_and_leaves_no_folder(typed, tmp_path, arguments, words):
    done = typed("legradnet-view", *[argument.strip("'") for argument in arguments])
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/view/*"))
