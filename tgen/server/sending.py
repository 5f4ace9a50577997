"""Sends answers: an object, an error, or a stream of server-sent events, which is kept alive while no event comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import Send

from tgen.server.problems import as_http, error_body
from tgen.wire.encoding import json_text

Json = dict[str, Any]
STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


def sse(value: Json | str, event: str | None = None) -> bytes:
    """An object, or its JSON, as a server-sent event."""
    data = value if isinstance(value, str) else json_text(value)
    return (f"data: {data}\n\n" if event is None else f"event: {event}\ndata: {data}\n\n").encode()


def comment(text: str) -> bytes:
    """A comment in a stream, which clients ignore."""
    return f": {text}\n\n".encode()


class Reply:
    """The answer to one request."""

    def __init__(self, send: Send) -> None:
        self.whole = False  # whether its last byte has been given to the connection
        self._send = send
        self._begun = False  # whether the head of a stream was sent
        self._saying = False
        self._last = 0.0  # when something was said
        self._living: asyncio.TimerHandle | asyncio.Task[None]  # what says something else when nothing is said

    async def object(self, value: Json | list[Json], status: int = 200, headers: Mapping[str, str] | None = None) -> int:
        """Answer with an object, or several; returns the status."""
        body = json_text(value).encode()
        fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
        listed = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in fields.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": listed})
        await self._end(body)
        return status

    async def error(self, error: Exception) -> int:
        """Answer with an error; returns its status."""
        found = as_http(error)
        return await self.object(error_body(found), found.status, found.headers)

    async def stream(self, pieces: AsyncGenerator[bytes], patience: float, deadline: float, late: Exception) -> int:
        """Send the pieces of a stream as they come. If one raises an error, the error is the last event; at the `deadline`, that is `late`.

        The head comes with the first piece, and an error before it is an answer of its own. After `patience` seconds without a piece comes
        a comment: proxies and clients take silence for a broken connection. Returns the status that the answer should have.
        """
        self._last = time.monotonic()
        self._keep_alive(patience)
        status = 200
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())) as limit, aclosing(pieces):
                async for piece in pieces:
                    if piece:
                        await self._say(piece)
        except Exception as error:
            found = as_http(late if isinstance(error, TimeoutError) and limit.expired() else error)
            if not self._begun:
                self._living.cancel()
                return await self.error(found)
            status = found.status
            await self._say(sse(error_body(found)))
        finally:
            self._living.cancel()
        if not self._begun:
            await self._say(b"")
        await self._end(b"")
        return status

    async def _say(self, piece: bytes) -> None:
        self._saying, self._last = True, time.monotonic()
        if not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": 200, "headers": STREAM})
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        self._saying = False

    def _keep_alive(self, patience: float) -> None:
        """Send a comment whenever nothing was said for so many seconds, unless the client has not yet taken what was said."""
        left = self._last + patience - time.monotonic()
        if left <= 0 and self._saying:
            self._last, left = time.monotonic(), patience
        if left > 0:
            self._living = asyncio.get_running_loop().call_later(left, self._keep_alive, patience)
        else:
            self._living = asyncio.ensure_future(self._say_living(patience))

    async def _say_living(self, patience: float) -> None:
        await self._say(comment("waiting"))
        self._keep_alive(patience)

    async def _end(self, body: bytes) -> None:
        self.whole = True
        await self._send({"type": "http.response.body", "body": body})
