"""Takes one HTTP request from its body to its answer, within limits of size, queue and time, and ends it if the client goes away."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from tgen.server.metrics import Metrics
from tgen.server.models import Models, Served
from tgen.server.problems import INVALID, SERVER, HttpError
from tgen.server.sending import Reply
from tgen.server.worker import Worker
from tgen.wire.requests import read_object

BODY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The bytes that a request's body may have, the seconds that its answer may take, and how many requests may run or wait at once."""

    body_bytes: int
    seconds: float
    requests: int


@dataclass(slots=True)
class Service:
    """All that requests share. `options` hold for requests that do not set them, and take precedence over the `environment`."""

    models: Models
    worker: Worker
    limits: Limits
    options: Mapping[str, Any]
    environment: Mapping[str, str]
    metrics: Metrics = field(default_factory=Metrics)
    cancels: dict[str, Callable[[], None]] = field(default_factory=dict)  # by the ids that commands gave their requests
    busy: int = 0


@dataclass(slots=True)
class Call:
    """A request that is being answered: its body, and a `stack` with the resources that it gives back when it ends."""

    service: Service
    body: dict[str, Any]
    stack: AsyncExitStack
    begun: float = field(default_factory=time.monotonic)
    created: int = field(default_factory=lambda: int(time.time()))

    async def model(self) -> Served:
        """The model that the body names, loaded until the call ends. Raises HttpError, TgenError."""
        models = self.service.models
        found = models.find(self.body.pop("model", None))
        return await self.stack.enter_async_context(models.use(found))

    def identity(self, kind: str) -> str:
        """A new id for an answer."""
        return f"{kind}{secrets.token_hex(12)}"


Answer = dict[str, Any] | list[dict[str, Any]] | AsyncGenerator[bytes]
Handler = Callable[[Call], Awaitable[Answer]]


class Endpoint:
    """Answers POST requests whose body is a JSON object."""

    def __init__(self, service: Service, name: str, handler: Handler, *, queued: bool = True, patience: float = 10.0) -> None:
        """`queued` requests count among those that run or wait. A stream that is silent for `patience` seconds gets a comment."""
        self._patience = patience
        self._service = service
        self._name = name
        self._handler = handler
        self._queued = queued

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as an ASGI application."""
        begun, status = time.perf_counter(), 499
        if self._queued:
            self._service.worker.expect()
        try:
            status = await self._answered(scope, receive, send)
        finally:
            self._service.metrics.ended(self._name, status, time.perf_counter() - begun)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answer, unless the client closes the connection first. Returns the status."""
        service, reply = self._service, Reply(send)
        try:
            async with asyncio.timeout(BODY_SECONDS):
                data = await read_body(scope, receive, service.limits.body_bytes)
            if data is None:
                return 499
            body = read_object(data)
            if self._queued and service.busy >= service.limits.requests:
                message = f"{service.busy} requests run or wait, and no more may"
                raise HttpError(429, message, "rate_limit_error", "queue_full", None, {"Retry-After": "1"})
        except TimeoutError:
            return await reply.error(HttpError(408, "the body did not come in time", INVALID))
        except Exception as error:
            return await reply.error(error)
        service.busy += self._queued
        task, gone = asyncio.current_task(), asyncio.ensure_future(until_gone(receive))
        assert task is not None
        gone.add_done_callback(lambda _: reply.whole or task.cancel())
        try:
            return await self._work(body, reply)
        except asyncio.CancelledError:
            if not gone.done() or gone.cancelled():
                raise
            task.uncancel()
            return 499
        finally:
            gone.cancel()
            service.busy -= self._queued

    async def _work(self, body: dict[str, Any], reply: Reply) -> int:
        seconds = self._service.limits.seconds
        late = HttpError(504, f"the answer took more than {seconds:g} seconds", SERVER, "timeout")
        async with AsyncExitStack() as stack:
            call = Call(self._service, body, stack)
            try:
                async with asyncio.timeout(seconds):
                    answer = await self._handler(call)
            except TimeoutError:
                return await reply.error(late)
            except Exception as error:
                return await reply.error(error)
            if isinstance(answer, dict | list):
                return await reply.object(answer)
            return await reply.stream(answer, self._patience, call.begun + seconds, late)


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The body of a request; None if the client has gone. Raises HttpError for a body that is too large, after reading all of it.

    Clients write a body to its end before they read the answer, so a body that is too large is read and dropped.
    """
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    size, large, parts = 0, length.isdigit() and int(length) > most, list[bytes]()
    while True:
        message: Message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        size += len(part)
        large = large or size > most
        if large:
            parts.clear()
        else:
            parts.append(part)
        if not message.get("more_body", False):
            break
    if large:
        raise HttpError(413, f"the body is larger than {most:,} bytes", INVALID, "body_too_large")
    return b"".join(parts)


async def until_gone(receive: Receive) -> None:
    """Wait until the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
