"""A server that runs on after the command that started it: where it is noted, and how it is started, stopped and found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path

from tgen.cli.remote_client import http_connection
from tgen.errors import TgenError, UsageError
from tgen.files import write_text
from tgen.ui import messages
from tgen.ui.output import write_text as show

START_SECONDS, STOP_SECONDS = 600, 600
PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Detached:
    """A detached server: its process and its address."""

    pid: int
    address: str


def runtime_folder() -> Path:
    """The folder of the detached server's socket and notes, which only this user can open. Raises UsageError for one that is not safe."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "tgen" if base else Path(f"/tmp/tgen-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UsageError(f"{folder} can be opened by other users", "set XDG_RUNTIME_DIR to a folder of your own, or remove it")
    return folder


def found() -> Detached | None:
    """The detached server, if it runs."""
    try:
        noted = Detached(**json.loads((runtime_folder() / "server.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
    return noted if _answers(noted) else None


def start(address: str) -> int:
    """Start the same command without --detach, and wait until it answers at its address. Returns the exit code."""
    running = found()
    if running is not None:
        raise UsageError(f"a server runs at {running.address} already", "`tgen serve --stop` ends it")
    folder = runtime_folder()
    words = [word for word in sys.argv[1:] if word != "--detach"]
    if address.startswith("unix:") and "--unix" not in words:
        words += ["--unix", address.removeprefix("unix:")]
    log = folder / "server.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tgen", *words],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, start_new_session=True,
        )  # fmt: skip
    begun = Detached(process.pid, address)
    deadline = time.monotonic() + START_SECONDS
    while not _answers(begun):
        if process.poll() is not None:
            sys.stderr.write(log.read_text("utf-8", "replace"))
            return process.returncode
        if time.monotonic() > deadline:
            process.kill()
            raise TgenError("the server did not start in time", f"{log} has what it says")
        time.sleep(PAUSE_SECONDS)
    write_text(folder / "server.json", json.dumps(asdict(begun)) + "\n")
    messages.note(f"serving at {address}, process {process.pid}; TGEN_SERVER=auto lets commands use it, `tgen serve --stop` ends it")
    return 0


def stop() -> int:
    """End the detached server, after the requests that it runs. Returns the exit code."""
    running = found()
    if running is None:
        raise UsageError("no detached server runs", "`tgen serve --detach` starts one")
    os.kill(running.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS
    while _lives(running.pid):
        if time.monotonic() > deadline:
            raise TgenError(f"process {running.pid} still runs requests", "kill it, or wait")
        time.sleep(PAUSE_SECONDS)
    (runtime_folder() / "server.json").unlink(missing_ok=True)
    return 0


def status() -> int:
    """Tell whether a detached server runs, and where; the exit code is 1 if none does."""
    running = found()
    show("no detached server runs\n" if running is None else f"running at {running.address}, process {running.pid}\n")
    return 0 if running is not None else 1


def _answers(server: Detached) -> bool:
    """Whether this process answers at its address, and no other one."""
    try:
        connection = http_connection(server.address)
        try:
            connection.request("GET", "/health", headers={"Connection": "close"})
            return bool(json.loads(connection.getresponse().read())["pid"] == server.pid)
        finally:
            connection.close()
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        return False


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with suppress(OSError, IndexError):  # a process that has ended stays listed until its parent asks for it
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    return True
