"""Binds the server's socket, and runs the server until a signal: the first lets running requests end, the second ends it at once."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from tgen.errors import UsageError
from tgen.server.protocol import Expecting, Protocol
from tgen.server.wakeups import wake_at_once

BACKLOG = 1024
HEADER_SECONDS = 30


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens on an address. Raises UsageError."""
    listener: socket.socket | None = None
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)  # connections wait while the model is being loaded
    except (OSError, OverflowError) as error:
        if listener is not None:
            listener.close()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"cannot listen on --host {host} --port {port}: {reason}", _listen_hint(error)) from error
    return listener


def _listen_hint(error: Exception) -> str:
    """The hint for an address on which the server cannot listen."""
    number = error.errno if isinstance(error, OSError) else None
    if number == errno.EADDRINUSE:
        return "another program listens there; give another --port"
    if number in (errno.EACCES, errno.EPERM):
        return "ports below 1024 are for the administrator; give a higher --port"
    return "--host is an address or a name of this machine: 127.0.0.1 for itself alone, 0.0.0.0 for all its networks"


def bind_unix(path: Path) -> socket.socket:
    """A Unix socket that only its owner can open. It replaces a socket that a killed server left. Raises UsageError."""
    try:
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise UsageError(f"--unix {path} exists and is not a socket", "name another path")
            if is_answered(path):
                raise UsageError(f"a server listens on --unix {path} already", "`tgen serve --stop` ends it")
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
        finally:
            os.umask(before)
    except OSError as error:
        raise UsageError(f"cannot listen on --unix {path}: {error.strerror or error}", "name a short path in a folder of yours") from error
    return listener


def is_answered(path: Path) -> bool:
    """Whether a server accepts connections on a Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
    return True


class Server(uvicorn.Server):
    """A server that lets running requests end on the first signal, and ends the process on the second."""

    def __init__(self, app: ASGIApp, expecting: Expecting, leave: Callable[[int], None], ready: Callable[[], None], seconds: float) -> None:
        """`leave` is called with the second signal, `ready` once connections are accepted; an answer may take `seconds`.

        `expecting` is told when a request may be on its way.
        """
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", backlog=BACKLOG,
            http=cast(Any, partial(Protocol, expecting)), ws="none", server_header=False, proxy_headers=False, timeout_keep_alive=30,
        )  # fmt: skip
        super().__init__(config)
        self._leave = leave
        self._ready = ready
        self._seconds = seconds
        self._silent: dict[Any, float] = {}  # connections without a request, and when they were seen first
        self._stuck: dict[Any, tuple[int, float]] = {}  # connections whose clients do not read: the bytes that wait, and since when

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections."""
        wake_at_once()
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        """Close connections on which no request came for too long; the base class does so only after a first request."""
        if counter % 10 == 0:
            now = time.monotonic()
            silent = [one for one in self.server_state.connections if getattr(one, "cycle", None) is None]
            self._silent = {one: self._silent.get(one, now) for one in silent}
            for one, since in self._silent.items():
                if now - since > HEADER_SECONDS:
                    one.transport.close()
            self._abort_stuck(self._seconds)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, and let running answers end."""
        watching = asyncio.ensure_future(self._watch())
        try:
            await super().shutdown(sockets)
        finally:
            watching.cancel()

    async def _watch(self) -> None:
        """While running answers end, abort connections whose clients do not read, so that none of them holds up the end."""
        while True:
            self._abort_stuck(min(self._seconds, HEADER_SECONDS))
            await asyncio.sleep(1)

    def _abort_stuck(self, patience: float) -> None:
        """Abort connections whose clients have read nothing for `patience` seconds: an answer that nobody reads would never end."""
        now = time.monotonic()
        sizes = {one: one.transport.get_write_buffer_size() for one in self.server_state.connections}
        before = self._stuck
        self._stuck = {one: before[one] if before.get(one, (0, 0))[0] == size else (size, now) for one, size in sizes.items() if size}
        for one, (_, since) in self._stuck.items():
            if now - since > patience:
                one.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Let signals end the server while it runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        # A background job of a script was started to ignore a Ctrl-C that is meant for the foreground job.
        heeded = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self.handle_exit) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """End the server at the first signal, and call `leave` at the second one."""
        if self.should_exit:
            self._leave(sig)
        self.should_exit = True
