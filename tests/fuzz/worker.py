"""A process that has imported everything and forks once for each command line, so that thousands can be run for real.

Reads one request a line on standard input, answers with one line on standard output; both are JSON. Linux only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from tests.conftest import GOLDEN

PAGE = os.sysconf("SC_PAGE_SIZE")
# What a command that only reads models never does. Python tells of each before it happens.
FORBIDDEN = frozenset("os.system os.exec os.posix_spawn os.spawn os.fork subprocess.Popen socket.connect os.remove os.rename".split())
SPRUNG = "ran what it must not: "


def serve() -> None:
    """Answer requests until there are no more."""
    _warm_up()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _warm_up() -> None:
    """Import and touch what command lines need, and leave no second thread behind, which a fork would not survive."""
    import torch

    torch.set_num_threads(1)
    from tgen.cli.main import run

    requests, sys.stdin = sys.stdin, None  # which is nobody's prompt
    with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        for name, command in (("gpt2", "generate"), ("bart", "translate"), ("t5_flan", "generate"), ("bert", "fill")):
            assert run([command, "The [MASK]", "-m", str(GOLDEN / name), "--threads", "1"]) == 0
    with contextlib.suppress(ImportError):
        import sentencepiece  # noqa: F401
    sys.stdin = requests


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command line in a child; how it ended, in how many seconds, with how many bytes more than this process has."""
    before = _resident(os.getpid())
    started = time.monotonic()
    child = os.fork()
    if not child:
        _become(request)
    killed = _watch(child, started + request["seconds"], before + request["memory"])
    _, status, usage = os.wait4(child, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "killed": killed,
        "seconds": time.monotonic() - started,
        "memory": max(0, usage.ru_maxrss * 1024 - before),
    }


def _watch(child: int, until: float, most: int) -> str | None:
    """Wait for the end of a child; kill it, and say why, when it takes too long or too much."""
    descriptor = os.pidfd_open(child)
    try:
        while not select.select([descriptor], [], [], 0.02)[0]:
            why = "hangs" if time.monotonic() > until else "takes too much memory" if _resident(child) > most else None
            if why is not None:
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return why
    finally:
        os.close(descriptor)
    return None


def _resident(process: int) -> int:
    """Bytes of memory that a process has in use."""
    return int(Path(f"/proc/{process}/statm").read_text("ascii").split()[1]) * PAGE


def _become(request: dict[str, Any]) -> NoReturn:
    """Be the command, with files as standard streams. Never returns."""
    sys.dont_write_bytecode = True  # which would be a rename
    code = 99
    try:
        for number, path in enumerate(request["streams"]):
            os.dup2(os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        for variable in set(os.environ) - set(request["environment"]):
            del os.environ[variable]
        os.environ.update(request["environment"])
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["tgen", *request["arguments"]]
        sys.addaudithook(_refuse)
        from tgen.cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        if isinstance(sys.exc_info()[1], BaseException) and not isinstance(sys.exc_info()[1], SystemExit):
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in FORBIDDEN:
        os.write(2, f"{SPRUNG}{event} {arguments!r}\n".encode(errors="backslashreplace"))
        os._exit(98)


if __name__ == "__main__":
    serve()
