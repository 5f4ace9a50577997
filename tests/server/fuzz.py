"""Sends the server thousands of requests that nobody would mean: `python -m tests.server.fuzz --count 20000`.

Bodies with odd values, damaged JSON, wrong methods, paths and headers, and bytes that are no HTTP. The server must answer each with a text
or one clear error, print no traceback, and go on.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from tests.conftest import GOLDEN
from tests.server.conftest import chat_model
from tests.server.load import Server
from tgen.options import DECLARED

THREADS = 8
VALUES: list[Any] = [
    *[None, True, False, 0, 1, -1, 2, 0.5, 1e400, 10**30, "", "a", "\0", "é\U0001f600", "auto", [], {}, [None], [1], ["a"], [[1]], [[]]],
    *[{"a": 1}, [{}], {"type": "function"}, {"type": "json_schema", "json_schema": {}}, {"type": "json_object"}, {"format": 3}],
    *[[{"role": "user"}], [{"role": "user", "content": "a"}], [{"role": "tool", "content": ["a"]}], [{"type": "function", "function": {}}]],
    *[[{"role": "assistant", "tool_calls": [{"id": 1}]}], {"include_usage": 3}, [{"type": "function_call"}], "truncate-left"],
]
KEYS = (
    *DECLARED,
    *"prompt messages input model max_tokens max_completion_tokens max_output_tokens n stream stream_options echo top_logprobs".split(),
    *"best_of suffix tools tool_choice parallel_tool_calls response_format text instructions truncation encoding_format".split(),
    *"dimensions tokens content add_special_tokens chat_template_kwargs user metadata top extra n_predict n_probs id_slot".split(),
)
SOUND: dict[str, dict[str, Any]] = {
    "/v1/completions": {"model": "storyteller", "prompt": "a", "max_tokens": 2},
    "/v1/chat/completions": {"model": "talker", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2},
    "/v1/responses": {"model": "talker", "input": "a", "max_output_tokens": 2},
    "/v1/embeddings": {"model": "bert", "input": "a"},
    "/tokenize": {"prompt": "a"},
    "/detokenize": {"tokens": [1, 2]},
    "/completion": {"prompt": "a", "n_predict": 2},
    "/apply-template": {"model": "talker", "messages": [{"role": "user", "content": "a"}]},
    "/explain": {"prompt": "a", "max_tokens": 2},
    "/pieces": {"prompt": "a"},
    "/settings": {},
}
# What `tgen` itself sends to a server, in its own words.
SETTINGS: dict[str, Any] = {"values": {"max_new_tokens": 2}, "environment": {}}
STATE: dict[str, Any] = {"turns": [], "system": None, "dropped": 0, "replies": 0, "unanswered": None}
OWN: dict[str, dict[str, Any]] = {
    "/tgen/describe": {"model": None, "kinds": ["decoder-only"], **SETTINGS},
    "/tgen/cancel": {"id": "a"},
    "/tgen/generate": {"id": "a", "prompt": "a", "chat": False, "system": None, "template_arg": [], **SETTINGS},
    "/tgen/batch": {"id": "a", "line": '{"prompt": "a"}', "number": 1, "name": "x", "template_arg": [], **SETTINGS},
    "/tgen/score": {"id": "a", "text": "a b", "tokens": True},
    "/tgen/translate": {"id": "a", "kinds": ["encoder-decoder"], "from": None, "to": None, "lines": ["a"], **SETTINGS},
    "/tgen/embed": {"id": "a", "kinds": ["encoder-only"], "lines": ["a"], "pooling": None, "normalize": False, "prompt_name": None},
    "/tgen/chat": {"id": "a", "model": "talker", "text": "a", "system": None, "template_arg": [], **SETTINGS, "state": STATE},
}
PATHS = (
    *SOUND,
    *OWN,
    "/",
    "/v1/models",
    "/v1/models/storyteller",
    "/v1/models/%00%ff",
    "/health",
    "/metrics",
    "/page/page.js",
    "/attention",
)
ODD_PATHS = (
    "//",
    "/page/../../etc/passwd",
    "/page/%2e%2e/x",
    "/v1",
    "/" + "a" * 5000,
    "*",
    "/v1/completions/",
    "/?a=%ff",
    "/\u00e9",
    "/tgen/x",
)
METHODS = ("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "get", "X-Y")
HEADERS = (
    ("Host", "evil.example"), ("Host", "localhost:1:2"), ("Host", ""), ("Origin", "null"), ("Origin", "http://evil.example"),
    ("Content-Type", "text/html"), ("Content-Encoding", "gzip"), ("Authorization", "Bearer \xff"), ("Expect", "100-continue"),
    ("Sec-Fetch-Site", "cross-site"), ("Access-Control-Request-Headers", "a\tb"), ("Accept", "\xe9"), ("Upgrade", "websocket"),
    ("Connection", "Upgrade"), ("Content-Length", "0"), ("Content-Length", "-1"), ("Content-Length", "99999999999999999999"),
    ("Transfer-Encoding", "chunked"), ("Range", "bytes=0-"), ("If-None-Match", "*"),
)  # fmt: skip
NO_HTTP = (
    b"\r\n" * 50,
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01",
    b"POST / HTTP/9.9\r\n\r\n",
    b"A" * 70_000,
    b"GET / HTTP/1.1\r\nA\r\n\r\n",
    b"",
)
MOST_TOKENS = 5
UNEXPECTED = re.compile(r"unexpected (error|\w+Error)")  # what the server says of its own faults


class Fuzzer:
    """One request after another, each made from a number alone."""

    def __init__(self, port: int) -> None:
        self._port = port

    def send(self, number: int) -> tuple[str, str | None]:
        """Send the request of a number. Returns the status, and what is wrong with the answer."""
        luck = random.Random(number)
        if luck.random() < 0.02:
            return self._bytes(luck)
        method, path, headers = "POST", luck.choice((*SOUND, *SOUND, *OWN)), list[tuple[str, str]]()
        body = _body(luck, path)
        if luck.random() < 0.2:
            method, path = luck.choice(METHODS), luck.choice((*PATHS, *ODD_PATHS))
            headers = luck.sample(HEADERS, luck.randrange(3))
        try:
            status, said = self._asked(method, path, headers, body)
        except (OSError, HTTPException) as error:  # which such a header may deserve
            return type(error).__name__, None if headers or path in ODD_PATHS else f"{method} {path} {body[:300]!r}: {error!r}"
        if status >= 500 or UNEXPECTED.search(said) or (status > 400 and said and not _is_error(said)):
            return str(status), f"{method} {path[:100]} {headers} {body[:300]!r}: {status} {said[:300]}"
        return str(status), None

    def _asked(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        names = {name.lower() for name, _ in headers}
        try:
            connection.putrequest(method, path.encode().decode("latin-1") if path.isascii() else "/", skip_host="host" in names)
            for name, value in headers:
                connection.putheader(name, value.encode("latin-1"))
            if not names & {"content-length", "transfer-encoding"}:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # the answer may come before the end of the body
                connection.send(body)
            if names & {"content-length", "transfer-encoding"} and connection.sock is not None:
                connection.sock.shutdown(socket.SHUT_WR)  # or the server would wait for the rest
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        finally:
            connection.close()

    def _bytes(self, luck: random.Random) -> tuple[str, str | None]:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), timeout=10) as connection:
            connection.sendall(luck.choice(NO_HTTP) + luck.randbytes(luck.randrange(50)))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass
        return "no HTTP", None


def _body(luck: random.Random, path: str) -> bytes:
    sound = {**SOUND, **OWN}[path]
    body = copy.deepcopy(sound)
    for _ in range(luck.choice((0, 1, 1, 2, 3))):
        place = luck.choice([body, *(inner for inner in body.values() if isinstance(inner, dict))])
        key = luck.choice([*place, *place, *KEYS])
        if key in place and luck.random() < 0.15:
            del place[key]
        else:
            place[key] = _value(luck, 3)
    for key in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        wanted = body.get(key)
        if isinstance(wanted, int | float) and wanted > MOST_TOKENS and luck.random() < 0.95:
            body[key] = MOST_TOKENS
    data = json.dumps(body).encode()
    return _damaged(luck, data) if luck.random() < 0.2 else data


def _value(luck: random.Random, depth: int) -> Any:
    """A value of JSON, and sometimes a little more."""
    if depth and luck.random() < 0.25:
        inner = [_value(luck, depth - 1) for _ in range(luck.randrange(4))]
        return inner if luck.random() < 0.5 else {luck.choice(KEYS): one for one in inner}
    if luck.random() < 0.3:
        return luck.choice((luck.randrange(-5, 300), luck.random() * 3, "".join(map(chr, luck.choices(range(0x300), k=luck.randrange(9))))))
    return copy.deepcopy(luck.choice(VALUES))


def _damaged(luck: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, left out, or put in."""
    damaged = bytearray(data)
    for _ in range(luck.randrange(1, 4)):
        place = luck.randrange(len(damaged) + 1)
        damaged[place : place + luck.randrange(3)] = luck.choice((b"", luck.randbytes(1), b'"', b"\\", b"{", b"]", b"\\ud800", b"1e999"))
    return bytes(damaged)


def _is_error(said: str) -> bool:
    with suppress(ValueError):
        return sorted(json.loads(said)["error"]) == ["code", "message", "param", "type"]
    return False


def _sent(fuzzer: Fuzzer, start: int, count: int) -> Iterator[tuple[int, str, str | None]]:
    with ThreadPoolExecutor(THREADS) as pool:
        numbers = range(start, start + count)
        yield from ((number, *found) for number, found in zip(numbers, pool.map(fuzzer.send, numbers), strict=True))


def main() -> int:
    """Send the requests; print how many had which status, and the first faults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--start", type=int, default=0, help="the number of the first request")
    arguments = parser.parse_args()
    counts, faults = Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as folder:
        server = Server("storyteller", "-m", chat_model(Path(folder) / "talker"), "-m", str(GOLDEN / "bert"), "-m", "english-french")
        try:
            for number, status, fault in _sent(Fuzzer(server.port), arguments.start, arguments.count):
                counts[status] += 1
                faults += [f"{number}: {fault}"] if fault else []
            if left := server.left():
                faults.append(f"{left:g} requests are still there")
        finally:
            server.process.terminate()
            code = server.process.wait(60)
    if code or any("Traceback" in line for line in server.said):
        faults.append(f"the server ended with {code} and said {''.join(server.said)[-3000:]}")
    print(dict(counts.most_common()))
    print("\n".join(faults[:20]) or "no faults")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
