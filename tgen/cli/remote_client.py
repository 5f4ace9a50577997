"""The client of a running `tgen serve`: what a command with --server asks it, over HTTP. Only such a command imports this."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable
from collections.abc import Generator as Yields
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from tgen.errors import TgenError, UsageError
from tgen.ui import messages
from tgen.wire.events import read_failure

SERVER_HINT = "http://HOST:PORT, unix:PATH, auto for the one that `tgen serve --detach` started, or none"


class _UnixConnection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        """Open the socket."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)


@dataclass(slots=True)
class Remote:
    """A server at an address, and the model that a command asks there; `folder` is None where the server chooses."""

    address: str
    folder: str | None
    kinds: tuple[str, ...] = ()

    def describe(self, options: dict[str, Any] | None = None) -> Any:
        """The model, with the fields of a checkpoint that a command looks at, and the `options` as the server settles them.

        Raises TgenError.
        """
        said = json.loads(self._post("describe", options or {}).read())
        if "failure" in said:
            raise read_failure(said)
        if said["ignored"]:
            messages.warn_of_ignored(said["ignored"])
        spec = SimpleNamespace(kind=said["kind"], context=said["context"])
        return SimpleNamespace(name=said["name"], spec=spec, resolved=said.get("resolved"))

    def records(self, path: str, body: dict[str, Any], cancelled: Callable[[], bool] = lambda: False) -> Yields[dict[str, Any], None, None]:
        """The objects of an answer. `cancelled` is called with each one, and while none comes; once it returns True, the server is told.

        Raises TgenError, as the command itself would.
        """
        identity, told = secrets.token_hex(8), False
        answer = self._post(path, {**body, "id": identity})
        try:
            for line in answer:
                if cancelled() and not told:
                    told = True
                    self._cancel(identity)
                if not line.startswith(b"data: "):
                    continue
                record = json.loads(line.removeprefix(b"data: "))
                if "failure" in record:
                    raise read_failure(record)
                if "error" in record:
                    raise TgenError(f"the server says: {record['error']['message']}")
                if "end" in record:
                    return
                yield record
            raise HTTPException("the answer has no end")
        except (OSError, HTTPException, ValueError) as error:
            raise TgenError(
                f"the connection to the server at {self.address} broke", "`tgen serve --status` tells whether it runs"
            ) from error
        finally:
            answer.close()  # ends a request that still runs

    def _cancel(self, identity: str) -> None:
        with suppress(TgenError):
            self._post("cancel", {"id": identity}).read()

    def _post(self, path: str, body: dict[str, Any]) -> HTTPResponse:
        data = json.dumps({"model": self.folder, "kinds": self.kinds, **body}).encode()
        headers = {"Content-Type": "application/json", "Connection": "close"}
        if key := os.environ.get("TGEN_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        connection = http_connection(self.address)
        try:
            connection.request("POST", f"/tgen/{path}", data, headers)
            answer = connection.getresponse()
        except (OSError, HTTPException) as error:
            connection.close()
            reason = getattr(error, "strerror", None) or error
            hint = "start one with `tgen serve`, or leave --server and TGEN_SERVER out"
            raise UsageError(f"no server answers at {self.address}: {reason}", hint) from error
        if answer.status == 200:
            return answer
        try:
            reason = json.loads(answer.read())["error"]["message"]
        except (OSError, ValueError, LookupError, TypeError):
            reason = f"status {answer.status}; is it `tgen serve`?"
        hint = "TGEN_API_KEY is the key to send" if answer.status == 401 else "`tgen serve --help` explains its limits"
        raise UsageError(f"the server at {self.address} refuses: {reason}", hint)


def http_connection(address: str) -> HTTPConnection:
    """A connection to an address. Raises UsageError for a text that is no address."""
    if address.startswith("unix:"):
        return _UnixConnection(address.removeprefix("unix:"))
    try:
        parts = urlsplit(address)
        if parts.scheme == "http" and parts.hostname and not parts.path.strip("/"):
            return HTTPConnection(parts.hostname, parts.port or 80)
    except ValueError:
        pass
    raise UsageError(f"--server {address} is no address", SERVER_HINT)
