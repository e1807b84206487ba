"""Telling every open page what has changed, a few times a second."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

_PAUSE = 0.25  # seconds between what is told
_SILENCE = 15.0  # seconds without news after which a comment shows that the line still stands
MOST_STREAMS = 8  # of a reader


class _Listener:
    def __init__(self, reader: str, loop: asyncio.AbstractEventLoop) -> None:
        self.reader, self.loop = reader, loop
        self.news = asyncio.Event()
        self.rows: set[str] = set()


class Events:
    """Streams of server-sent events.

    Args:
        progress: Gives the data of `progress`.
    """

    def __init__(self, progress: Callable[[], dict[str, Any]]) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._listeners: list[_Listener] = []
        self._closed = False

    def tell(self, row: str, only: str | None = None) -> None:
        """A row has changed, or with "" the list or its progress; `only` this reader is to know. From any thread."""
        with self._lock:
            for listener in self._listeners:
                if only in (None, listener.reader):
                    if row:
                        listener.rows.add(row)
                    _wake(listener)

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            self._closed = True
            for listener in self._listeners:
                _wake(listener)

    def is_full(self, reader: str) -> bool:
        """Whether a reader has all the streams that they may have."""
        with self._lock:
            return sum(listener.reader == reader for listener in self._listeners) >= MOST_STREAMS

    async def stream(self, reader: str) -> AsyncIterator[bytes]:
        """The events for a reader."""
        listener = _Listener(reader, asyncio.get_running_loop())
        with self._lock:
            self._listeners.append(listener)
        try:
            yield _event("progress", self._progress())
            while not self._closed:
                try:
                    async with asyncio.timeout(_SILENCE):
                        await listener.news.wait()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                with self._lock:
                    rows, listener.rows = listener.rows, set()
                    listener.news.clear()
                if self._closed:
                    return
                told = [_event("film", {"id": row}) for row in rows]
                yield b"".join([*told, _event("progress", self._progress())])
                await asyncio.sleep(_PAUSE)
        finally:
            with self._lock:
                self._listeners.remove(listener)


def _wake(listener: _Listener) -> None:
    if not listener.loop.is_closed():
        listener.loop.call_soon_threadsafe(listener.news.set)


def _event(name: str, data: dict[str, Any]) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()
