"""A real server in a thread, with the shipped story writer, the same as a chat model, and a tiny encoder."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import GOLDEN
from tgen.checkpoint.resolve import resolve
from tgen.options import GuessOptions, RunOptions
from tgen.server.app import make_app
from tgen.server.calls import Limits, Service
from tgen.server.guard import Access, read_access
from tgen.server.listening import Server, bind
from tgen.server.models import Models
from tgen.server.worker import Worker

TEMPLATE = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>"
    "{% endfor %}\n{% endfor %}assistant:"
)


@dataclass
class Served:
    """A running server."""

    port: int
    service: Service
    server: Server
    client: Any  # the official client; many of its results are unions that a test knows better
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, path: str, body: Any = None, *, method: str | None = None, **headers: str) -> tuple[int, Any]:
        """The status and the JSON, or text, of an answer."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method or ("GET" if body is None else "POST"), path, data, names)
            answer = connection.getresponse()
            text = answer.read().decode()
            self.headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(text) if "json" in self.headers.get("content-type", "") else text
        finally:
            connection.close()

    def metric(self, name: str) -> float:
        lines = [line for line in self.ask("/metrics")[1].splitlines() if not line.startswith("#")]
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


@contextmanager
def serving(
    *names: str, adapters: tuple[str, ...] = (), rows: int = 8, queue: int = 100, access: Access | None = None, **limits: Any
) -> Iterator[Served]:
    """A server with these models, or with one and its adapters."""
    from openai import OpenAI  # takes a second

    most: dict[str, Any] = {"body_bytes": 2**20, "seconds": 60.0, "requests": rows + queue, **limits}
    memory = most.pop("memory", None)
    models = Models(names, RunOptions(threads=1, adapter=adapters), GuessOptions(), rows, memory)
    models.load(models.all[0])
    service = Service(models, Worker(), Limits(**most), {}, {})
    ready = threading.Event()
    listener = bind("127.0.0.1", 0)
    app = make_app(service, access or read_access(None, [], "127.0.0.1", private=False))
    server = Server(app, service.worker, lambda _: None, ready.set, most["seconds"])
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    try:
        assert ready.wait(30)
        port = listener.getsockname()[1]
        with OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0, timeout=60) as client:
            yield Served(port, service, server, client)
    finally:
        server.should_exit = True
        thread.join(most["seconds"] + 30)  # a request that is under way has its time
        assert not thread.is_alive(), "the server drains"


def chat_model(folder: Path, template: str = TEMPLATE) -> str:
    """The story writer with a chat template and a short context, and without a limit of its own."""
    shutil.copytree(resolve("storyteller"), folder)
    (folder / "chat_template.jinja").write_text(template)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 256}))
    settings = json.loads((folder / "generation_config.json").read_text("utf-8"))
    (folder / "generation_config.json").write_text(json.dumps({key: settings[key] for key in settings if key != "max_new_tokens"}))
    return str(folder)


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return chat_model(tmp_path_factory.mktemp("served") / "talker")


@pytest.fixture(scope="session")
def served(chat_folder: str) -> Iterator[Served]:
    """The server that most tests share."""
    with serving("storyteller", chat_folder, str(GOLDEN / "bert"), "english-french") as running:
        yield running
