"""`tgen serve`: an OpenAI-compatible server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tgen.cli import interrupts
from tgen.cli import options as p
from tgen.cli.settings import named_model, unalias
from tgen.errors import UnsupportedError, UsageError
from tgen.options import GuessOptions, RunOptions
from tgen.ui import messages
from tgen.values import CONSTRAINTS

if TYPE_CHECKING:
    import socket

    from tgen.server.calls import Limits, Service

SERVING = "Serving"
DEFAULT_ADDRESS = ("127.0.0.1", 8000)
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
DECLARATIONS = {
    "overflow": {
        "help": "What to do if prompt and new tokens exceed the context. error: refuse the request if the prompt leaves no room, else "
        "write fewer tokens. truncate-left: drop the prompt's oldest tokens. shrink: as error."
    },
}

Models = Annotated[
    list[str] | None,
    p.option(
        "--model", "-m", panel=p.RUNNING, metavar="PATH|NAME", default="$TGEN_MODEL, else the shipped model",
        help="A Hugging Face folder, a shipped name, or org/name in the Hugging Face cache; may be given several times. Requests choose by "
        "this name, or by a folder's own name; the first model answers those that name none.",
    ),
]  # fmt: skip


@p.takes(without=(*CONSTRAINTS, "samples", "logprobs", "stop", "ignore_eos"), but=DECLARATIONS)
def serve(
    host: Annotated[
        str, p.option("--host", panel=SERVING, metavar="ADDRESS", default="127.0.0.1", help="Listen on this address.")
    ] = "127.0.0.1",
    port: Annotated[
        int, p.option("--port", panel=SERVING, metavar="INT", limits="0 to 65535", default=8000, help="Listen here; 0 takes a free port.")
    ] = 8000,
    unix: Annotated[
        Path | None, p.option("--unix", panel=SERVING, metavar="PATH", help="Listen on a Unix socket instead, which only you can open.")
    ] = None,
    api_key: Annotated[
        str | None,
        p.option(
            "--api-key", panel=SERVING, metavar="TEXT", default="$TGEN_API_KEY, else none",
            help="Answer only requests with `Authorization: Bearer TEXT`. Other users of a machine see command lines, but no variables.",
        ),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        p.option(
            "--allow-origin", panel=SERVING, metavar="URL",
            help="Let web pages of this origin use the server; * lets all. Repeatable. Without it, no page of another origin can.",
        ),
    ] = None,
    rows: Annotated[
        int, p.option("--batch-size", "-b", panel=SERVING, metavar="INT", limits="1 or more", default=16, help="Rows computed at once.")
    ] = 16,
    queue: Annotated[
        int,
        p.option(
            "--queue", panel=SERVING, metavar="INT", limits="0 or more", default=256,
            help="Requests that may wait beside those that run; a further one is answered by status 429.",
        ),
    ] = 256,
    max_body: Annotated[
        str, p.option("--max-body", panel=SERVING, metavar="SIZE", default="16M", help="The largest body of a request, in bytes, K, M, G.")
    ] = "16M",
    timeout: Annotated[
        float, p.option("--timeout", panel=SERVING, metavar="SECONDS", limits="above 0", default=600, help="The limit for an answer.")
    ] = 600.0,
    memory: Annotated[
        str | None,
        p.option(
            "--memory", panel=SERVING, metavar="SIZE", default="0.7 of the free memory",
            help="What the weights of all models may take; to load a further one, the one used longest ago is closed.",
        ),
    ] = None,
    detach: Annotated[
        bool,
        p.option(
            "--detach", panel=SERVING,
            help="Go on in the background, on a Unix socket under $XDG_RUNTIME_DIR unless --port or --unix says otherwise; commands with "
            "--server auto use it.",
        ),
    ] = False,
    stop: Annotated[bool, p.option("--stop", panel=SERVING, help="End the server that --detach started, after its requests.")] = False,
    status: Annotated[bool, p.option("--status", panel=SERVING, help="Tell whether that server runs; the exit code is 1 if not.")] = False,
    *,
    asked: p.Asked,
    quiet: p.Quiet = False,  # noqa: ARG001
    model: Models = None,
    run: RunOptions,
    guessing: GuessOptions,
) -> int:  # fmt: skip
    """Serve models over HTTP as OpenAI does: /v1/completions, /v1/chat/completions, /v1/responses, /v1/embeddings, /v1/models, and
    /tokenize, /detokenize, /health, /metrics. At / is a page to play with: it shows how each token is drawn, attention, and pieces.

    All requests share one running batch; each text is the one that tgen generate writes with the same seed and options. A chat or a
    response without max_tokens may fill the context. Options of this command are for requests that do not set them. A closed connection
    ends its request at once.

    SIGTERM or Ctrl-C lets running requests end, and exits with 0; a second signal ends at once, with 143 or 130.
    """
    p.check_least("--batch-size", rows, 1)
    p.check_least("--queue", queue, 0)
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be between 0 and 65535, not {port}")
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout must be above 0, not {timeout}")
    if sum((detach, stop, status)) > 1:
        raise UsageError("--detach, --stop and --status exclude each other", "give only one of them")
    if detach or stop or status:
        from tgen.cli import detached

        return detached.stop() if stop else detached.status() if status else detached.start(_detached_address(host, port, unix))
    _require_libraries()

    from tgen.server.calls import Limits
    from tgen.server.guard import read_access

    access = read_access(api_key or os.environ.get("TGEN_API_KEY") or None, allow_origin or [], host, private=unix is not None)
    limits = Limits(_size("--max-body", max_body), timeout, rows + queue)
    most_bytes = None if memory is None else _size("--memory", memory)
    if run.adapter and len(model or ()) > 1:
        raise UsageError(
            "--adapter is for one model, and there are several -m", "give the folder of an adapter as a model of its own: -m FOLDER"
        )
    names = model or [named_model(None) or ""]
    with _listening(host, port, unix) as listener:
        service = _service(names, run, guessing, rows, most_bytes, limits, asked)
        where = f"unix:{unix}" if unix is not None else _url(*listener.getsockname()[:2])
        if access.key is None and unix is None and not listener.getsockname()[0].startswith(("127.", "::1")):
            messages.warning("other machines can reach this server, and it has no --api-key")

        from tgen.server.app import make_app
        from tgen.server.listening import Server

        served = ", ".join(one.name for one in service.models.all)
        server = Server(
            make_app(service, access), service.worker, interrupts.leave,
            lambda: messages.note(f"serving {served} at {where}"), service.limits.seconds,
        )  # fmt: skip
        server.run([listener])
    return 0


@contextmanager
def _listening(host: str, port: int, unix: Path | None) -> Iterator[socket.socket]:
    """The socket to listen on, which is removed at the end. Raises UsageError."""
    from tgen.server.listening import bind, bind_unix

    listener = bind(host, port) if unix is None else bind_unix(unix)
    try:
        yield listener
    finally:
        listener.close()
        if unix is not None:
            unix.unlink(missing_ok=True)


def _detached_address(host: str, port: int, unix: Path | None) -> str:
    """Where a detached server listens: on a Unix socket of its own, unless the command says otherwise. Raises UsageError."""
    from tgen.cli.detached import runtime_folder

    if unix is not None:
        return f"unix:{unix.absolute()}"
    if (host, port) == DEFAULT_ADDRESS:
        return f"unix:{runtime_folder() / 'server.sock'}"
    if port == 0:
        raise UsageError("--detach needs a --port other than 0", "name a port, or leave --port out")
    return _url(host, port)


def _service(
    names: Sequence[str], run: RunOptions, guessing: GuessOptions, rows: int, most_bytes: int | None, limits: Limits, asked: p.Asked
) -> Service:
    """The models, with the first one loaded, and the thread that runs them. Raises TgenError."""
    from tgen.checkpoint.resolve import DEFAULT_MODEL
    from tgen.server.calls import Service
    from tgen.server.models import Models
    from tgen.server.worker import Worker

    models = Models([unalias(name or DEFAULT_MODEL) for name in names], run, guessing, rows, most_bytes)
    models.load(models.all[0])
    return Service(models, Worker(), limits, asked.values, asked.environment)


def _require_libraries() -> None:
    """Raise UnsupportedError if what the server needs is not installed."""
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn") if find_spec(name) is None]
    if missing:
        raise UnsupportedError(f"tgen serve needs {' and '.join(missing)}, and not all of that is installed", "pip install 'tgen[serve]'")


def _size(option: str, text: str) -> int:
    """The bytes of a size like 500M. Raises UsageError."""
    number, unit = (text[:-1], text[-1:].upper()) if text[-1:].upper() in UNITS else (text, "")
    try:
        size = float(number) * UNITS[unit]
        if 1 <= size < sys.maxsize:
            return int(size)
    except ValueError:
        pass
    raise UsageError(f"{option} must be a size, not {text!r}", "bytes, or a number with K, M or G, such as 500M")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
