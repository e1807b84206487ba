"""The routes of the reading room, as its README lists them."""

import html
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from legradnet.data.film import ImageError
from legradnet.errors import UserError
from legradnet.files import NotWrittenError, reason
from legradnet.viewer.bodies import Refused, chunks, json_body, length_of
from legradnet.viewer.guard import Guard
from legradnet.viewer.maps import NotReadyError
from legradnet.viewer.order import AskedError, HiddenError
from legradnet.viewer.room import NOTICE, NotYetError, ReadingRoom
from legradnet.viewer.uploads import UPLOAD_LIMIT, FullError
from legradnet.viewer.worklist import Row

PAGE = Path(__file__).with_name("page")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}
_MOST_ROWS = 1000
_LONGEST_NOTE = 2000
_LONGEST_LOOK = 86_400.0  # seconds
_NO_ENTRY = "This page opens by the address that legradnet-view has printed for you, and each address opens it once."

Made = TypeVar("Made")


def create_app(room: ReadingRoom, *, hosts: Iterable[str], scheme: str = "http") -> ASGIApp:
    """The application that serves a reading.

    Args:
        room: The reading.
        hosts: What a Host header may be, with its port.
        scheme: http or https.
    """
    routes = _Routes(room)
    film = "/api/films/{id:str}"
    app = Starlette(
        routes=[
            Route("/", routes.page),
            Route("/page/{name:str}", routes.file),
            Route("/films", routes.upload, methods=["PUT"]),
            Route("/api/session", routes.session),
            Route("/api/films", routes.films),
            Route(film, routes.film),
            Route(f"{film}/thumbnail", routes.thumbnail),
            Route(f"{film}/pixels", routes.pixels),
            Route(f"{film}/map", routes.map),
            Route(f"{film}/mark", routes.mark, methods=["POST"]),
            Route("/api/undo", routes.undo, methods=["POST"]),
            Route("/api/grading", routes.grading, methods=["POST"]),
            Route("/api/events", routes.events),
            Route("/api/summary", routes.summary),
            Route("/api/export", partial(routes.export, "labels")),
            Route("/api/export/ungradable", partial(routes.export, "ungradable")),
        ],
        exception_handlers={HTTPException: _told, Exception: _fault},
    )
    app.router.redirect_slashes = False
    return Guard(app, hosts, scheme)  # around all, also what answers for a fault


class _Routes:
    def __init__(self, room: ReadingRoom) -> None:
        self.room = room
        self.files = {
            path.name: (path.read_bytes(), _TYPES[path.suffix])
            for path in (PAGE.iterdir() if PAGE.is_dir() else ())
            if path.is_file() and path.suffix in _TYPES
        }
        self._few = anyio.CapacityLimiter(4)  # films decoded at once
        self._one = anyio.CapacityLimiter(1)  # maps, and numbers of a study

    def _reader(self, request: Request) -> str:
        reader = self.room.entry.reader_of(request.cookies.get(self.room.entry.cookie))
        if reader is None:
            raise Refused(401, _NO_ENTRY)
        return reader

    def _row(self, request: Request) -> Row:
        row = self.room.worklist.by_id.get(request.path_params["id"])
        if row is None:
            raise HTTPException(404, "There is no such film.")
        return row

    async def page(self, request: Request) -> Response:
        entry = self.room.entry
        known = entry.reader_of(request.cookies.get(entry.cookie))
        if (token := request.query_params.get("token")) is not None:
            value = entry.exchange(token) if request.method == "GET" else None
            if value is not None:
                return RedirectResponse("/", 303, {"Set-Cookie": entry.header(value)})
            if known is not None:
                return RedirectResponse("/", 303)
        elif known is not None and request.url.query:
            return RedirectResponse("/", 303)
        elif known is not None:
            content, kind = self.files["index.html"]
            return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})
        # A browser that was led here by a link of another site keeps a strict cookie back until we ask ourselves.
        head = "" if request.url.query else '<meta http-equiv="refresh" content="0; url=/?again">'
        title, words = "LegRadNet reading room", html.escape(_NO_ENTRY)
        return HTMLResponse(
            f'<!doctype html><html lang="en"><head><meta charset="utf-8">{head}<title>{title}</title></head>'
            f"<body><h1>{title}</h1><p>{words}</p><p>{html.escape(NOTICE)}</p></body></html>",
            403,
            {"Connection": "close"},
        )

    async def file(self, request: Request) -> Response:
        self._reader(request)
        if (file := self.files.get(request.path_params["name"])) is None:
            raise HTTPException(404, "There is no such file.")
        return Response(file[0], media_type=file[1], headers={"Cache-Control": "no-cache"})

    async def session(self, request: Request) -> Response:
        reader = self._reader(request)
        return JSONResponse(await _in_thread(self.room.session, reader))

    async def films(self, request: Request) -> Response:
        reader, asked = self._reader(request), dict(request.query_params)
        offset, limit = (_number(asked, name, default) for name, default in (("offset", 0), ("limit", 100)))
        rows = self.room.kept_order(reader, asked)
        if rows is None:
            rows = await _in_thread(self.room.order, reader, asked)
        return JSONResponse(self.room.part(reader, rows, offset, min(limit, _MOST_ROWS)))

    async def film(self, request: Request) -> Response:
        sight = self.room.sights[self._reader(request)]
        return JSONResponse(sight.whole(self._row(request)))

    async def thumbnail(self, request: Request) -> Response:
        self._reader(request)
        row, pictures = self._row(request), self.room.pictures
        content = pictures.kept_thumbnail(row)
        if content is None:
            content = await _in_thread(pictures.thumbnail, row, limiter=self._few)
        return Response(content, media_type="image/jpeg")

    async def pixels(self, request: Request) -> Response:
        self._reader(request)
        row, pictures = self._row(request), self.room.pictures
        pixels = pictures.kept_pixels(row)
        if pixels is None:
            pixels = await _in_thread(pictures.pixels, row, limiter=self._few)
        headers = {
            "X-Width": str(pixels.width),
            "X-Height": str(pixels.height),
            "X-Bits": str(pixels.bits),
            "X-Window-Center": f"{pixels.centre:.6g}",
            "X-Window-Width": f"{pixels.width_of_window:.6g}",
        }
        return Response(pixels.content, media_type="application/octet-stream", headers=headers)

    async def map(self, request: Request) -> Response:
        sight, row = self.room.sights[self._reader(request)], self._row(request)
        method, backbone = (request.query_params.get(*pair) for pair in (("method", "gradcam"), ("backbone", "fused")))
        if not sight.is_shown(row):
            raise HTTPException(403, "In a blind study a heat map is there when you have marked the film.")
        heat = await _in_thread(self.room.maps.map, row, method, backbone, limiter=self._one)
        headers = {"X-Scale": f"{heat.scale:.6g}", "X-Share": f"{heat.share:.6g}"}
        return Response(heat.png, media_type="image/png", headers=headers)

    async def upload(self, request: Request) -> Response:
        self._reader(request)
        if words := self.room.no_more_films():
            raise Refused(403, words)
        size = length_of(request, UPLOAD_LIMIT)
        try:
            part, file = self.room.uploads.begin(size)
        except FullError as error:
            raise Refused(503, str(error)) from None
        try:
            try:
                with file:
                    async for chunk in chunks(request, size):
                        file.write(chunk)
                    whole = file.tell() == size
            except OSError as error:
                raise Refused(503, f"The film can't be stored: {reason(None, error)}.") from None
            if not whole or size == 0:
                raise HTTPException(400, "The upload is empty." if size == 0 else "The upload is not whole.")
            row, is_new = await _in_thread(self.room.take, part, request.query_params.get("name", ""))
        finally:
            self.room.uploads.end(part, size)
        return JSONResponse({"id": row.id, "total": len(self.room.worklist.rows)}, 201 if is_new else 200)

    async def mark(self, request: Request) -> Response:
        reader, row = self._reader(request), self._row(request)
        body = await json_body(request, {"grade", "ungradable", "note", "seconds", "shown"})
        mark = _mark_of(body, self.room.classes)
        await _in_thread(self.room.mark, reader, row, *mark)
        return JSONResponse(self.room.sights[reader].whole(row))

    async def undo(self, request: Request) -> Response:
        reader = self._reader(request)
        await json_body(request, set()) if request.headers.get("content-length", "0") != "0" else None
        row = await _in_thread(self.room.undo, reader)
        if row is None:
            raise HTTPException(409, "There is no mark of yours to take back.")
        return JSONResponse({"film": row.id, "item": self.room.sights[reader].brief(row)})

    async def grading(self, request: Request) -> Response:
        reader = self._reader(request)
        action = (await json_body(request, {"action"})).get("action")
        if action not in ("pause", "resume", "stop"):
            raise HTTPException(400, "action is pause, resume or stop.")
        await _in_thread(self.room.grading.act, action)
        return JSONResponse(await _in_thread(self.room.session, reader))

    async def events(self, request: Request) -> Response:
        reader = self._reader(request)
        if request.method == "HEAD":
            raise HTTPException(405, "A stream has no end.")
        if self.room.events.is_full(reader):
            raise HTTPException(429, "This page is open too many times.")
        return StreamingResponse(self.room.events.stream(reader), media_type="text/event-stream")

    async def summary(self, request: Request) -> Response:
        reader = self._reader(request)
        return JSONResponse(await _in_thread(self.room.summary, reader, limiter=self._one))

    async def export(self, which: str, request: Request) -> Response:
        reader, of = self._reader(request), request.query_params.get("reader")
        if of is not None and of not in self.room.readers:
            raise HTTPException(404, "There is no such reader.")
        if not await _in_thread(self.room.may_export, reader, of):
            raise HTTPException(403, "In a blind study others' marks are there when you have marked every film.")
        text = getattr(await _in_thread(self.room.export, of), which)
        headers = {"Content-Disposition": f'attachment; filename="{which}.csv"'}
        return Response(text.encode(), media_type="text/csv; charset=utf-8", headers=headers)


def _mark_of(body: dict[str, Any], classes: int) -> tuple[int | None, str, float, bool]:
    """Grade, note, seconds and whether the answer was shown."""
    grade, ungradable = body.get("grade"), body.get("ungradable", False)
    note, seconds, shown = body.get("note", ""), body.get("seconds", 0), body.get("shown", True)
    if not isinstance(ungradable, bool) or (grade is None) != ungradable:
        raise HTTPException(400, "A mark is either a grade or ungradable.")
    if grade is not None and (isinstance(grade, bool) or not isinstance(grade, int) or not 0 <= grade < classes):
        raise HTTPException(400, f"grade is a whole number from 0 to {classes - 1}.")
    if not isinstance(note, str) or len(note) > _LONGEST_NOTE:
        raise HTTPException(400, f"A note is text of at most {_LONGEST_NOTE:,} characters.")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        raise HTTPException(400, "seconds is a number.")
    if not isinstance(shown, bool):
        raise HTTPException(400, "shown is true or false.")
    clean = note.encode("utf-8", "replace").decode().replace("\0", "")
    return grade, clean.strip(), min(float(seconds), _LONGEST_LOOK), shown


def _number(asked: dict[str, str], name: str, default: int) -> int:
    text = asked.pop(name, "") or str(default)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise HTTPException(400, f"{name} is a whole number.")
    return int(text)


async def _in_thread(work: Callable[..., Made], *arguments: Any, limiter: anyio.CapacityLimiter | None = None) -> Made:
    """What `work` gives, worked out in a thread; a user's mistake is told as HTTP has it."""
    try:
        return await anyio.to_thread.run_sync(work, *arguments, limiter=limiter)
    except HiddenError as error:
        raise HTTPException(403, str(error)) from None
    except AskedError as error:
        raise HTTPException(400, str(error)) from None
    except (NotReadyError, NotYetError) as error:
        raise HTTPException(409, str(error)) from None
    except ImageError as error:
        raise HTTPException(422, f"The film can't be shown: {error}") from None
    except NotWrittenError as error:
        raise HTTPException(503, f"This is not saved: {error}") from None
    except UserError as error:
        raise HTTPException(422, str(error)) from None


async def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _fault(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "This is a fault of the server: the log of the command has it."}, 500)
