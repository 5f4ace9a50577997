"""A small hub on this machine: it speaks what huggingface_hub asks of https://huggingface.co, and can be slow or wrong."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SLICE = 2**14


@dataclass
class Hub:
    """Repositories by name, each a mapping of files; how the hub misbehaves; and the requests that it got: path, and first byte wanted."""

    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    wrong: set[str] = field(default_factory=set)  # files that come with other bytes
    failing: dict[str, list[int]] = field(default_factory=dict)  # the statuses that a file is answered with first
    listing: bytes | None = None  # what comes in place of every list of files
    pause: float = 0.0  # seconds after each slice of a file
    requests: list[tuple[str, int]] = field(default_factory=list)
    address: str = ""

    def asked_for(self) -> list[str]:
        """The files that were asked for, in order."""
        return [path.partition(f"/resolve/{COMMIT}/")[2] for path, _ in self.requests if "/resolve/" in path and "/cdn/" not in path]


def is_large(name: str) -> bool:
    """Whether the hub keeps a file outside of Git."""
    return name.endswith((".safetensors", ".bin", ".gguf"))


def entry(name: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    known = {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
    if is_large(name):
        known["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return known


class Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        wanted = self.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").partition("-")[0])
        self.hub.requests.append((path, start))
        if path.startswith("/api/models/"):
            self._list(*path.removeprefix("/api/models/").split("/revision/"))
        elif path.startswith("/cdn/"):
            repository, _, name = path.removeprefix("/cdn/").partition("/resolve/")
            self._send(repository, name, start)
        else:
            repository, _, rest = path[1:].partition("/resolve/")
            name = rest.partition("/")[2]
            if is_large(name):
                self._answer(302, b"", Location=f"{self.hub.address}/cdn/{repository}/resolve/{name}")
            else:
                self._send(repository, name, start)

    def _list(self, repository: str, revision: str) -> None:
        if self.hub.listing is not None:
            self._answer(200, self.hub.listing)
        elif repository in self.hub.gated:
            self._answer(403, b"{}", **{"X-Error-Code": "GatedRepo"})
        elif repository not in self.hub.repositories:
            self._answer(404, b"{}", **{"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", "v2", COMMIT):
            self._answer(404, b"{}", **{"X-Error-Code": "RevisionNotFound"})
        else:
            files = self.hub.repositories[repository]
            listing = {"id": repository, "sha": COMMIT, "siblings": [entry(name, data) for name, data in files.items()]}
            self._answer(200, json.dumps(listing).encode())

    def _send(self, repository: str, name: str, start: int) -> None:
        if self.hub.failing.get(name):
            status = self.hub.failing[name].pop(0)
            self._answer(status, b"", **({"X-Error-Code": "EntryNotFound"} if status == 404 else {}))
            return
        data = self.hub.repositories[repository][name]
        if name in self.hub.wrong:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        for place in range(start, len(data), SLICE):
            self.wfile.write(data[place : place + SLICE])
            self.wfile.flush()
            time.sleep(self.hub.pause)

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Be silent."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Be silent: a test kills the other side."""


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """Run a hub on a free port, whose address it learns."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
