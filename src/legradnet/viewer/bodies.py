"""Bodies of requests, read within limits of size and time: whoever sends a byte now and then is not waited for."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_MOST_JSON = 65_536  # bytes
_SILENCE = 10.0  # seconds without a byte
_SLOWEST = 20_000  # bytes a second, on average, when the first seconds are over
_CLOSE = {"Connection": "close"}  # and the rest of the body is not read


class Refused(HTTPException):
    """A body that is not read to its end: the connection is closed."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(status, words, _CLOSE)


def length_of(request: Request, most: int) -> int:
    """What a body is said to be long, before any of it is read; a `Refused` if it doesn't say, or is too long."""
    stated = request.headers.get("content-length", "")
    if "transfer-encoding" in request.headers or not (stated.isascii() and stated.isdecimal()):
        raise Refused(411, "An upload tells its length (Content-Length).")
    if len(stated) > 15 or int(stated) > most:
        raise Refused(413, f"This is larger than the {most:,} bytes that a film may have.")
    return int(stated)


async def chunks(request: Request, most: int) -> AsyncIterator[bytes]:
    """The pieces of a body; a `Refused` if they are more than `most` bytes, or come too slowly."""
    begun, size = time.monotonic(), 0
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except (TimeoutError, ClientDisconnect):
            raise Refused(408, "The upload has stopped.") from None
        size += len(chunk)
        if size > most:
            raise Refused(413, f"This is larger than {most:,} bytes.")
        if size < _SLOWEST * (time.monotonic() - begun - _SILENCE):
            raise Refused(408, "The upload is too slow.")
        if chunk:
            yield chunk


async def json_body(request: Request, fields: set[str]) -> dict[str, Any]:
    """A JSON object with no other fields than these."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refused(415, "The body of this request is JSON (Content-Type: application/json).")
    content = b"".join([chunk async for chunk in chunks(request, _MOST_JSON)])
    try:
        body = json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body of this request is no JSON.") from None
    if not isinstance(body, dict) or not body.keys() <= fields:
        raise HTTPException(400, f"The body of this request is an object with {', '.join(sorted(fields))}.")
    return body


def _no_number(name: str) -> None:
    raise ValueError(name)
