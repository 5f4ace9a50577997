"""Runs the installed `tgen` as a person or a script would: real processes, real pipes, real terminals."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import GOLDEN

TGEN = str(Path(sys.executable).with_name("tgen"))
TIMEOUT = 60
# Whoever started the tests may have them ignore Ctrl-C; what they start shall hear it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without anything that changes what tgen does, then with `changes`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("TGEN_", "HF_")) and not key.endswith("_COLOR")}
    # One thread: the models are tiny, and a busy machine makes several wait for one another.
    return {**kept, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1", "HF_HUB_CACHE": os.devnull, **changes}


def golden(name: str) -> str:
    """A golden checkpoint as a value for --model."""
    return str(GOLDEN / name)


def tgen(*arguments: str, stdin: bytes = b"", check: int = 0, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run to the end, and expect an exit code."""
    options.setdefault("env", environment())
    done = subprocess.run([TGEN, *arguments], input=stdin, capture_output=True, timeout=TIMEOUT, **options)
    assert done.returncode == check, (done.returncode, done.stderr.decode())
    return done


@contextlib.contextmanager
def running(*arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes as its streams, unless told otherwise. One that hangs is killed, which its exit code shows."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    process: subprocess.Popen[bytes] = subprocess.Popen([TGEN, *arguments], **{"env": environment(), **pipes, **options})
    watchdog = threading.Timer(TIMEOUT, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()
        process.wait()


def on_terminal(*arguments: str, columns: int = 80, **changes: str) -> tuple[int, str]:
    """The exit code, and everything that reaches a terminal that is all three streams."""
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    shown = b""
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), slave)
    with running(*arguments, env=environment(**changes), start_new_session=True, **streams) as process, open(master, "rb", buffering=0):
        os.close(slave)
        with contextlib.suppress(OSError):  # what Linux says when the other side is closed
            while block := os.read(master, 65536):
                shown += block
        return process.wait(TIMEOUT), shown.decode().replace("\r\n", "\n")
