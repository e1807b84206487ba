"""Who gets in, and what comes by way of another site, a path, or a body that is too large."""

import asyncio

import pytest
from readings import ADDRESS, client, films, stranger
from starlette.testclient import TestClient

from legradnet.viewer import bodies
from legradnet.viewer.app import create_app
from legradnet.viewer.uploads import UPLOAD_LIMIT, shown_name

ROUTES = [
    ("GET", "/api/session"), ("GET", "/api/films"), ("GET", "/api/films/x"), ("GET", "/api/films/x/pixels"),
    ("GET", "/api/films/x/thumbnail"), ("GET", "/api/films/x/map"), ("GET", "/page/main.js"), ("GET", "/api/events"),
    ("GET", "/api/summary"), ("GET", "/api/export"), ("GET", "/api/export/ungradable"), ("PUT", "/films?name=a"),
    ("POST", "/api/films/x/mark"), ("POST", "/api/undo"), ("POST", "/api/grading"),
]  # fmt: skip


def test_a_token_opens_the_page_once_and_its_cookie_is_for_this_server_alone(room):
    made, token = stranger(room), room.entry.tokens["A"]
    answer = made.get(f"/?token={token}")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "legradnet-view-8000="):
        assert part in answer.headers["set-cookie"]
    assert made.get("/api/session").json()["reader"] == "A"
    assert made.get(f"/?token={token}").status_code == 303  # for the reader who is inside it leads to the page
    other = stranger(room)
    assert other.get(f"/?token={token}").status_code == 403
    assert other.get("/api/session").status_code == 401


def test_each_reader_is_who_the_token_says(room):
    assert [client(room, name).get("/api/session").json()["reader"] for name in "BA"] == ["B", "A"]


@pytest.mark.parametrize("guess", ["", "x", "A", "\udce9", "0" * 10_000])
def test_a_guess_opens_nothing(room, guess):
    made = stranger(room)
    assert made.get("/", params={"token": guess.encode("utf-8", "replace").decode()}).status_code == 403
    made.cookies.set(room.entry.cookie, guess.encode("ascii", "replace").decode())
    assert made.get("/api/session").status_code == 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_cookie_nothing_is_answered(room, method, path):
    answer = stranger(room).request(method, path)
    assert answer.status_code == 401 and "legradnet-view has printed" in answer.json()["error"]


def test_a_stranger_sees_a_page_with_a_sentence_and_that_it_is_no_medical_device(room):
    answer = stranger(room).get("/")
    assert answer.status_code == 403
    assert "legradnet-view has printed" in answer.text and "not a medical device" in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1"},
        {"host": "127.0.0.1:8001"},
        {"host": "127.0.0.1:8000.evil.example"},
        {"host": "127.0.0.1.:8000"},
        {"host": "[::ffff:127.0.0.1]:8000"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": ""},
        {"origin": "http://127.0.0.1"},
        {"origin": "https://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8001"},
        {"origin": "http://[::1]:8000"},  # where another program may listen
        {"origin": "http://localhost:8000"},
    ],
    ids=lambda headers: "-".join(headers.values()),
)
def test_another_host_or_origin_is_refused_on_every_route(room, headers):
    reader = TestClient(create_app(room, hosts=["127.0.0.1:8000", "[::1]:8000", "localhost:8000"]), base_url=ADDRESS)
    for method, path in [("GET", "/"), *ROUTES]:
        assert reader.request(method, path, headers=headers).status_code == 403, path
    own = {"host": "localhost:8000", "origin": "http://localhost:8000"}
    assert reader.get("/api/session", headers=own).status_code == 401


def test_a_foreign_host_or_a_look_at_the_address_does_not_use_up_a_token(room):
    made, token = stranger(room), room.entry.tokens["A"]
    assert made.get(f"/?token={token}", headers={"host": "evil.example"}).status_code == 403
    assert made.head(f"/?token={token}").status_code == 403
    assert made.get(f"/?token={token}").status_code == 303


def test_our_own_origin_is_taken_and_another_sites_picture_of_a_film_is_not(reader):
    assert reader.post("/api/undo", headers={"origin": ADDRESS, "sec-fetch-site": "same-origin"}).status_code == 409
    film = films(reader)[0]["id"]
    foreign = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert reader.get(f"/api/films/{film}/thumbnail", headers=foreign).status_code == 403


@pytest.mark.parametrize(("method", "path"), [("GET", "/"), ("GET", "/nothing"), ("DELETE", "/api/films"), *ROUTES])
def test_every_answer_binds_the_browser(reader, method, path):
    if path == "/api/events":
        return  # never ends
    headers = reader.request(method, path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == ("no-cache" if path in ("/", "/page/main.js") else "no-store")


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/..%2fapp.py",
        "/page/%2e%2e/app.py",
        "/page/..%5capp.py",
        "/page//etc/passwd",
        "/page/%2fetc%2fpasswd",
        "/page/main.js%00.png",
        "/api/films/..%2f..%2fetc%2fpasswd/pixels",
        "/api/films/%2e%2e/pixels",
        "/api/films//etc/passwd/thumbnail",
        "/api/films/..%2f",
        "//evil.example/%2e%2e",
    ],
)
def test_no_path_leads_to_a_file_of_the_machine(reader, path):
    answer = reader.get(path)
    assert answer.status_code == 404 and set(answer.json()) == {"error"}


def test_a_file_of_ten_gigabytes_is_refused_before_it_is_read(room, reader):
    def content():
        raise AssertionError("was read")
        yield b""

    answer = reader.put("/films?name=a.dcm", content=content(), headers={"content-length": str(10 * 10**9)})
    assert answer.status_code == 413 and f"{UPLOAD_LIMIT:,} bytes" in answer.json()["error"]
    assert answer.headers["connection"] == "close"
    assert not [path for path in room.uploads.folder.iterdir() if not path.name.startswith(".legradnet")]


def uploaded(room):
    return [path for path in room.uploads.folder.iterdir() if not path.name.startswith(".legradnet")]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"transfer-encoding": "chunked"}, [b"x"], 411),
        ({"content-length": "-5"}, b"x", 411),
        ({"content-length": "5e9"}, b"x", 411),
        ({"content-length": "9" * 40}, b"x", 413),
        ({"content-length": "4"}, b"more than that", 413),
        ({"content-length": "40"}, b"less than that", 400),
        ({"content-length": "0"}, b"", 400),
    ],
)
def test_an_upload_that_lies_about_its_length_is_refused_and_nothing_is_left_of_it(room, reader, headers, body, status):
    content = iter(body) if isinstance(body, list) else iter([body])
    assert reader.put("/films?name=a.png", content=content, headers=headers).status_code == status
    assert uploaded(room) == [] and len(room.worklist.rows) == 6


class Trickling:
    """A request whose body comes a byte now and then."""

    def __init__(self, pause):
        self.pause = pause

    async def stream(self):
        for _ in range(100):
            await asyncio.sleep(self.pause)
            yield b"x"


@pytest.mark.parametrize(("silence", "pause", "words"), [(0.05, 1.0, "has stopped"), (0.05, 0.01, "too slow")])
def test_a_body_that_comes_a_byte_now_and_then_is_not_waited_for(monkeypatch, silence, pause, words):
    async def read():
        return [chunk async for chunk in bodies.chunks(Trickling(pause), 1000)]

    monkeypatch.setattr(bodies, "_SILENCE", silence)
    with pytest.raises(bodies.Refused, match=words) as refused:
        asyncio.run(read())
    assert (refused.value.status_code, refused.value.headers) == (408, {"Connection": "close"})


def test_a_json_body_has_an_end(reader):
    film = films(reader)[0]["id"]
    long = b'{"note": "' + b"x" * 100_000 + b'"}'
    json = {"content-type": "application/json"}
    assert reader.post(f"/api/films/{film}/mark", content=long, headers=json).status_code == 413
    assert reader.post(f"/api/films/{film}/mark", content=b"[" * 60_000, headers=json).status_code == 400
    assert reader.post(f"/api/films/{film}/mark", content=b'{"grade": NaN}', headers=json).status_code == 400
    plain = {"content-type": "text/plain"}  # what a form of another site could send
    assert reader.post(f"/api/films/{film}/mark", content=b'{"grade": 1}', headers=plain).status_code == 415


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\films\\knee.dcm", "knee.dcm"),
        ("<script>x.png", "<script>x.png"),
        ("a\n\x01\u202eb.png", "ab.png"),
        ("..", "film"),
        ("", "film"),
        (".hidden", "hidden"),
        ("é" * 300 + ".png", "é" * 58 + ".png"),
    ],
)
def test_the_name_of_an_upload_is_only_shown(given, shown):
    assert shown_name(given) == shown
