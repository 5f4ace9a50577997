"""uvicorn's HTTP protocol on h11, except that the pieces of a stream are written without h11's state machine."""

from __future__ import annotations

from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_BYTES = 64 * 1024  # the most bytes that may come before a body


class _Connection(h11.Connection):
    """Writes the pieces of a chunked body itself: they do not change h11's state, and its state machine took longer than sending them."""

    _chunked = False

    def send_with_data_passthrough(self, event: h11.Event) -> list[bytes] | None:
        """The bytes of an event, in parts."""
        if self._chunked and type(event) is h11.Data:
            data = bytes(event.data)
            return [b"%x\r\n" % len(data), data, b"\r\n"] if data else []
        self._chunked = False
        written = super().send_with_data_passthrough(event)
        if type(event) is h11.Response and written is not None:
            self._chunked = b"\r\ntransfer-encoding: chunked\r\n" in b"".join(written).lower()
        return written


class Protocol(H11Protocol):
    """The protocol of a connection."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.conn = _Connection(h11.SERVER, HEADER_BYTES)
