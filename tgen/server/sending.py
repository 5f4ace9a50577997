"""Sends answers: an object, an error, or a stream of server-sent events that stays alive while nothing comes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Send

from tgen.server.problems import HttpError, as_http, error_body

Json = dict[str, Any]


def encoded(value: Any) -> bytes:
    """A value as JSON."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def sse(value: Json, event: str | None = None) -> bytes:
    """An object as a server-sent event."""
    name = b"" if event is None else f"event: {event}\n".encode()
    return name + b"data: " + encoded(value) + b"\n\n"


def comment(text: str) -> bytes:
    """A line that clients pass over."""
    return f": {text}\n\n".encode()


async def send_whole(
    body: bytes, send: Send, status: int = 200, kind: str = "application/json", headers: Mapping[str, str] | None = None
) -> None:
    """Send an answer in one piece."""
    fields = {"content-type": kind, "content-length": str(len(body)), **(headers or {})}
    listed = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": status, "headers": listed})
    await send({"type": "http.response.body", "body": body})


async def send_error(error: Exception, send: Send) -> int:
    """Send an error; returns its status."""
    found: HttpError = as_http(error)
    await send_whole(encoded(error_body(found)), send, found.status, headers=found.headers)
    return found.status


async def send_stream(pieces: AsyncGenerator[bytes], send: Send, patience: float, deadline: float, late: Exception) -> int:
    """Send pieces of a stream as they come; an error in their midst is the last event, as is `late` when the time is over.

    After `patience` seconds without a piece comes a comment: proxies and clients take silence for a broken connection.
    Returns the status that the answer should have.
    """
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    voice = _Voice(send)
    living = asyncio.ensure_future(voice.keep_alive(patience))
    status = 200
    try:
        async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit, aclosing(pieces):
            async for piece in pieces:
                await voice.say(piece)
    except Exception as error:
        found = as_http(late if isinstance(error, TimeoutError) and limit.expired() else error)
        status = found.status
        await voice.say(sse(error_body(found)))
    finally:
        living.cancel()
    await send({"type": "http.response.body", "body": b""})
    return status


class _Voice:
    """Sends pieces one at a time, though two tasks have something to say."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = asyncio.Lock()
        self._last = time.monotonic()

    async def say(self, piece: bytes) -> None:
        """Send a piece."""
        async with self._lock:
            self._last = time.monotonic()
            await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def keep_alive(self, patience: float) -> None:
        """Send a comment whenever nothing was said for so many seconds."""
        while True:
            await asyncio.sleep(max(0.0, self._last + patience - time.monotonic()))
            if time.monotonic() >= self._last + patience:
                await self.say(comment("waiting"))
