"""Decides who may talk to the server: programs that know the key, and no web page of another origin.

A page in a browser can send requests to 127.0.0.1, and by DNS rebinding even read the answers under its own host name. So a Host must be
an address or a name of this server, and an Origin must be the server's own or an allowed one. The files of the page at / need no key, but
the requests of the page need it.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tgen.errors import UsageError
from tgen.server.problems import INVALID, HttpError
from tgen.server.sending import Reply

DRAIN_BYTES, DRAIN_SECONDS = 2**20, 2.0
# The paths that need no key: they hold nothing secret, and the page asks its user for the key.
OPEN_PATHS, OPEN_FOLDER = frozenset({"/", "/health", "/v1/health", "/ping"}), "/page/"


@dataclass(frozen=True, slots=True)
class Access:
    """Who may talk to the server: with which key, from web pages of which origins, and under which names."""

    key: str | None = None
    origins: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    private: bool = False  # it listens on a Unix socket, which no browser reaches


def read_access(key: str | None, origins: Collection[str], host: str, *, private: bool) -> Access:
    """Who may talk to a server on this host. Raises UsageError for an invalid origin."""
    names = {host.lower(), "localhost", socket.gethostname().lower(), socket.getfqdn().lower()}
    kept = set()
    for origin in origins:
        parts = urlsplit(origin)
        if origin != "*" and not (parts.scheme and parts.netloc and not parts.path.strip("/")):
            raise UsageError(f"--allow-origin {origin} is not an origin", "for example --allow-origin https://example.org, or * for all")
        kept.add(origin.rstrip("/").lower())
        names |= {parts.hostname} if parts.hostname else set()
    return Access(key or None, frozenset(kept), frozenset(names), private)


class Guard:
    """Lets a request through to the application, or answers it with an error."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        sending = send if origin is None else _allowing(send, origin)
        try:
            self._check_place(headers, scope)
            if scope["method"] == "OPTIONS" and origin is not None:
                await Response(status_code=204, headers=_preflight(headers))(scope, receive, sending)
                return
            if scope["path"] not in OPEN_PATHS and not scope["path"].startswith(OPEN_FOLDER):
                self._check_key(headers)
        except HttpError as error:
            await _drain(receive)
            await Reply(send).error(error)
            return
        await self._app(scope, receive, sending)

    def _check_place(self, headers: Headers, scope: Scope) -> None:
        """Raise HttpError for a Host or an Origin that is not this server's."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._access.private and not self._is_own(host):
            raise HttpError(403, f"the Host {host!r} is not a name of this server; --allow-origin adds one", INVALID, "host_not_allowed")
        if "*" in self._access.origins:
            return
        if origin is not None:
            own = origin.lower() in (f"http://{host}".lower(), f"https://{host}".lower())
            if not own and origin.lower() not in self._access.origins:
                raise HttpError(403, f"the Origin {origin!r} is not allowed; --allow-origin adds one", INVALID, "origin_not_allowed")
        elif headers.get("sec-fetch-site") in ("cross-site", "same-site") and not _follows_link(headers, scope):
            raise HttpError(403, "a web page of another origin sent this; --allow-origin allows it", INVALID, "origin_not_allowed")

    def _is_own(self, host: str) -> bool:
        """Whether a Host is an IP address, which no page can have as its own name, or one of the server's names."""
        try:
            name = (urlsplit(f"//{host}").hostname or "").rstrip(".").lower()
        except ValueError:
            return False
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self._access.names or name.endswith(".localhost")

    def _check_key(self, headers: Headers) -> None:
        """Raise HttpError for a request without the key."""
        if self._access.key is None:
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._access.key.encode()):
            message = "wrong API key" if given else "this server needs an API key: send it as `Authorization: Bearer KEY`"
            raise HttpError(401, message, INVALID, "invalid_api_key", None, {"WWW-Authenticate": "Bearer"})


def _follows_link(headers: Headers, scope: Scope) -> bool:
    """Whether a person opens the page at / by a link on another page, which cannot read the answer."""
    return (scope["method"], scope["path"], headers.get("sec-fetch-dest")) == ("GET", "/", "document")


async def _drain(receive: Receive) -> None:
    """Read the rest of a body, within limits: a client that is still writing when the connection closes never sees the answer."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            while size < DRAIN_BYTES:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


def _allowing(send: Send, origin: str) -> Send:
    """A `send` whose answers a page of this origin may read."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Access-Control-Allow-Origin"] = origin
            headers["Vary"] = "Origin"
        await send(message)

    return sending


def _preflight(headers: Mapping[str, str]) -> dict[str, str]:
    wanted = headers.get("access-control-request-headers", "authorization, content-type")
    return {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": wanted,
        "Access-Control-Max-Age": "600",
    }
