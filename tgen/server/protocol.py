"""HTTP as uvicorn and h11 read and write it, with fewer steps for heads and for the pieces of a stream."""

from __future__ import annotations

import asyncio
import typing
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 64 * 1024  # the most bytes that may come before a body


class _Connection(h11.Connection):
    """Writes a head with the first bytes of its body, so that the client is woken once.

    A piece of a chunked body leaves the state as it is, so there is nothing to find out about it: that took longer than sending it.
    """

    _chunked = False
    _head = b""

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """The bytes of an event, in parts."""
        if self._chunked and type(event) is h11.Data:
            data = bytes(event.data)
            return self._with_head([b"%x\r\n" % len(data), data, b"\r\n"] if data else [])
        self._chunked = False
        written = super().send_with_data_passthrough(event)
        if type(event) is h11.Response and written is not None:
            self._head = b"".join(written)
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in self._head.lower()
            return []
        return written if written is None else self._with_head(written)

    def _with_head(self, written: list[bytes]) -> list[bytes]:
        head, self._head = self._head, b""
        return [head, *written] if head else written


class Expecting(typing.Protocol):
    """What wants to know that a request may be on its way."""

    def expect(self, *, surely: bool) -> None: ...
    def arrived(self) -> None: ...


class Protocol(H11Protocol):
    """The protocol of a connection."""

    def __init__(self, expecting: Expecting, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Connection(h11.SERVER, HEADER_BYTES)
        self._expecting = expecting
        self._is_new = False  # whether it was made and nothing came yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a request."""
        super().connection_made(transport)
        self._expecting.expect(surely=False)
        self._is_new = True

    def data_received(self, data: bytes) -> None:
        """Read what came; the request that it may be has begun before it is expected no more."""
        super().data_received(data)
        if self._is_new:
            self._is_new = False
            self.loop.call_soon(self._expecting.arrived)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing any more."""
        super().connection_lost(exc)
        if self._is_new:
            self._is_new = False
            self._expecting.arrived()
