"""Many clients at one server for minutes: `python -m tests.server.load --minutes 10`. Not a part of the test suite.

Some clients go away in the middle, send what is no request, or read slowly. At the end, every answer must have been the text that the model
writes alone, nothing may be left running, and the server's memory must not have grown.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from statistics import median
from typing import Any

import tgen
from tests.server.conftest import TEMPLATE, chat_model
from tgen.engine.generator import Generator
from tgen.events import Piece
from tgen.text.chat import ChatTemplate, Message

BEGINNINGS = ("", "Once upon a time there was an old fox who lived in a dark wood. " * 3, "The king had three sons. ")
MOST_GROWTH = 0.05
SMALL_BODY = 2**16  # what the server takes at most, so that a body that is too large is cheap
SECONDS_TO_SETTLE = 0.3  # the share of the run after which memory may not grow: caches of prompts fill up before

BAD: tuple[bytes, ...] = (
    b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"prompt": 5}', b'{"prompt": "a", "max_tokens": -1}', b'{"prompt": "a", "n": 0}',
    b'{"prompt": "a", "temperature": "hot"}', b'{"prompt": "a", "no_such_key": 1}', b'{"prompt": "a", "suffix": "b"}', b"[" * 20_000,
    b'{"prompt": "a", "logit_bias": {"x": []}}', b'{"prompt": "a", "model": "nothing"}', b'{"prompt": "\\ud800"}', b" " * (SMALL_BODY + 1),
    b'{"prompt": "a", "stream": 3}', b'{"prompt": "a", "stop": [1]}', b'{"prompt": [[1], null]}', b'{"prompt": [99999999]}',
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Asked:
    """A request whose texts are known."""

    path: str
    body: dict[str, Any]
    texts: tuple[str, ...]


@dataclass(slots=True)
class Findings:
    """What the clients saw."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, kind: str) -> None:
        with self.lock:
            self.counts[kind] += 1

    def fault(self, text: str) -> None:
        with self.lock:
            self.faults.append(text)


class Client:
    """One client, who asks again and again until the time is over."""

    def __init__(self, port: int, asked: Sequence[Asked], findings: Findings, number: int) -> None:
        self._port = port
        self._asked = asked
        self._findings = findings
        self._luck = random.Random(number)

    def run(self, deadline: float) -> None:
        """Ask until the deadline."""
        kinds = {self.whole: 35, self.streamed: 25, self.slow: 5, self.left: 20, self.bad: 15}
        while time.monotonic() < deadline:
            [kind] = self._luck.choices([*kinds], [*kinds.values()])
            try:
                kind(self._luck.choice(self._asked))
                self._findings.count(kind.__name__)
            except Exception as error:
                self._findings.fault(f"{kind.__name__}: {type(error).__name__}: {error}")

    def whole(self, asked: Asked) -> None:
        """An answer in one piece."""
        with self._answer(asked.path, asked.body) as answer:
            said = json.loads(answer.read())
            self._compare(asked, {one["index"]: one.get("text", one.get("message", {}).get("content") or "") for one in said["choices"]})

    def streamed(self, asked: Asked, pause: float = 0) -> None:
        """An answer as a stream, of which each line is read after a pause."""
        texts: dict[int, str] = {}
        with self._answer(asked.path, {**asked.body, "stream": True}) as answer:
            for line in answer:
                time.sleep(pause * self._luck.random())
                if line.startswith(b"data: {"):
                    [one] = json.loads(line.removeprefix(b"data: "))["choices"]
                    text = one.get("text", one.get("delta", {}).get("content") or "")
                    texts[one["index"]] = texts.get(one["index"], "") + text
                elif line == b"data: [DONE]\n":
                    return self._compare(asked, texts)
        self._findings.fault("a stream has no end")
        return None

    def slow(self, asked: Asked) -> None:
        """A stream that is read line by line, and slower than it is written."""
        self.streamed(asked, 0.1)

    def left(self, asked: Asked) -> None:
        """A connection that is closed at any time: in the middle of the request, or of the answer."""
        data = json.dumps({**asked.body, "max_tokens": 200, "stream": self._luck.random() < 0.7}).encode()
        head = f"POST {asked.path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        message = (head + data)[: self._luck.choice((20, len(head) + 5, 10**6, 10**6))]
        with socket.create_connection(("127.0.0.1", self._port), timeout=60) as connection:
            connection.sendall(message)
            if len(message) > len(head) + 5:
                connection.settimeout(1)
                for _ in range(self._luck.randrange(4)):
                    try:
                        connection.recv(200)
                    except TimeoutError:
                        break
            time.sleep(self._luck.random() / 5)

    def bad(self, asked: Asked) -> None:
        """What is no request."""
        with self._answer(asked.path, self._luck.choice(BAD)) as answer:
            said = answer.read()
            if not 400 <= answer.status < 500 or b"unexpected" in said or sorted(json.loads(said)) != ["error"]:
                self._findings.fault(f"bad: status {answer.status}: {said[:200]!r}")

    @contextmanager
    def _answer(self, path: str, body: dict[str, Any] | bytes) -> Iterator[HTTPResponse]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=300)
        try:
            connection.request("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode())
            yield connection.getresponse()
        finally:
            connection.close()

    def _compare(self, asked: Asked, texts: dict[int, str]) -> None:
        found = tuple(texts.get(index, "") for index in range(len(asked.texts)))
        if found != asked.texts:
            self._findings.fault(f"{asked.path} {asked.body}: {found!r}, not {asked.texts!r}")


def requests(generator: Generator, template: ChatTemplate, count: int) -> list[Asked]:
    """Requests of many kinds with the texts that the model writes alone."""
    made = []
    for number in range(count):
        luck = random.Random(number)
        prompt = f"{luck.choice(BEGINNINGS)}Then number {number}"
        options: dict[str, Any] = {"seed": number, "temperature": luck.choice((0, 0.7, 1.5)), "top_p": luck.choice((0.9, 1))}
        tokens, samples = luck.randrange(1, 60), luck.choice((1, 1, 1, 3))
        shared = {**options, "max_tokens": tokens, "n": samples}
        if number % 4:
            ids: str | list[int] = prompt
            path, body = "/v1/completions", {"model": "talker", "prompt": prompt, **shared}
        else:
            [ids] = template.encode(generator.tokenizer, [Message("user", prompt)])
            path, body = "/v1/chat/completions", {"model": "talker", "messages": [{"role": "user", "content": prompt}], **shared}
        texts = [""] * samples
        for event in generator.run(ids, generator.resolve({**options, "max_new_tokens": tokens, "samples": samples})):
            if isinstance(event, Piece):
                texts[event.index] += event.text
        made.append(Asked(path, body, tuple(texts)))
    return made


class Server:
    """A server in a process of its own."""

    def __init__(self, model: str, *more: str) -> None:
        command = [str(Path(sys.executable).with_name("tgen")), "serve", "-m", model, *more, "--port", "0", "--max-body", str(SMALL_BODY)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said: list[str] = []
        line = self.process.stderr.readline()
        self.port = int(re.findall(r":(\d+)", line)[-1])
        threading.Thread(target=lambda: self.said.extend(self.process.stderr or ()), daemon=True).start()

    def status(self, name: str) -> int:
        """A number that the system knows of the process, such as VmRSS in KiB."""
        return int(re.findall(rf"^{name}:\s+(\d+)", Path(f"/proc/{self.process.pid}/status").read_text(), flags=re.MULTILINE)[0])

    def files(self) -> int:
        """How many files and connections it has open."""
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def metric(self, name: str) -> float:
        """A number that the server tells of itself."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", "/metrics")
        found = re.findall(rf"^{name} (\S+)$", connection.getresponse().read().decode(), flags=re.MULTILINE)
        connection.close()
        return float(found[0])

    def left(self) -> float:
        """How many requests run or wait, once those that were abandoned had time to end."""
        for _ in range(100):
            left = self.metric("tgen_requests_running") + self.metric("tgen_requests_waiting")
            if not left:
                break
            time.sleep(0.1)
        return left


def main() -> int:
    """Run the clients, and say what they found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--requests", type=int, default=200, help="how many different ones")
    arguments = parser.parse_args()
    findings, sizes = Findings(), list[int]()
    with tempfile.TemporaryDirectory() as folder:
        model = chat_model(Path(folder) / "talker")
        asked = requests(tgen.load(model, threads=1), ChatTemplate(TEMPLATE, "", {}), arguments.requests)
        server = Server(model)
        try:
            files, deadline = server.files(), time.monotonic() + 60 * arguments.minutes
            clients = [Client(server.port, asked, findings, number) for number in range(arguments.clients)]
            threads = [threading.Thread(target=client.run, args=(deadline,)) for client in clients]
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads) and server.process.poll() is None:
                sizes.append(server.status("VmRSS"))
                time.sleep(1)
            if left := server.left():
                findings.fault(f"{left:g} requests are still there")
            tokens, opened = server.metric("tgen_generated_tokens_total"), server.files() - files
        finally:
            server.process.terminate()
            code = server.process.wait(60)
    settled = sizes[int(len(sizes) * SECONDS_TO_SETTLE) :]
    tenth = max(1, len(settled) // 10)
    first, last = median(settled[:tenth]), median(settled[-tenth:])
    if last > first * (1 + MOST_GROWTH):
        findings.fault(f"the memory grew from {first:,.0f} to {last:,.0f} KiB")
    if opened > 2:
        findings.fault(f"{opened} more files are open than before")
    if code or any("Traceback" in line for line in server.said):
        findings.fault(f"the server ended with {code} and said {''.join(server.said)[-2000:]}")
    print(f"{dict(findings.counts)}, {tokens:,.0f} tokens; memory {first:,.0f} to {last:,.0f} KiB ({last / first - 1:+.1%})")
    print("\n".join(findings.faults[:20]) or "no faults")
    return bool(findings.faults)


if __name__ == "__main__":
    sys.exit(main())
