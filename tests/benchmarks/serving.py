"""What a server adds: `python -m tests.benchmarks.serving` prints two ratios.

The first is the tokens a second that 16 clients at once get from `tgen serve`, as whole answers and as streams, against what
`tgen bench --batch 16` finds; they take turns. The second is the time to the first token of a short prompt that comes while a prompt of
1,000 tokens is read, in steps of decode. A step is what a token of a short text takes that the same server streams to one client: the time
from its first token to its last, by their number.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse

import numpy as np

import tgen
from tests.server.load import Server
from tgen.tasks.throughput import speed

CLIENTS, CONTEXT, NEW_TOKENS = 16, 64, 64
LONG = 1000


@contextmanager
def _asked(port: int, **body: object) -> Iterator[HTTPResponse]:
    """The answer to a completion of ids that ignores end tokens."""
    connection = HTTPConnection("127.0.0.1", port, timeout=300)
    try:
        connection.request("POST", "/v1/completions", json.dumps({"ignore_eos": True, "seed": 1, **body}).encode())
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        yield answer
    finally:
        connection.close()


def served_speed(port: int, prompts: list[list[int]], *, stream: bool) -> float:
    """New tokens a second of clients that each ask for one text at the same time.

    One thread reads all connections as bytes come, because clients take no time from the cores of a server on another machine. What they
    got is counted afterwards.
    """
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answers: dict[socket.socket, list[bytes]] = {}
    begun = time.perf_counter()
    with selectors.DefaultSelector() as waiting:
        for prompt in prompts:
            body = json.dumps({"ignore_eos": True, "seed": 1, "prompt": prompt, "max_tokens": NEW_TOKENS, **more}).encode()
            head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            client = socket.create_connection(("127.0.0.1", port), timeout=300)
            client.sendall(head.encode() + body)
            waiting.register(client, selectors.EVENT_READ)
            answers[client] = []
        while waiting.get_map():
            for key, _ in waiting.select():
                assert isinstance(key.fileobj, socket.socket)
                answers[key.fileobj].append(part := key.fileobj.recv(65536))
                if not part:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()
    taken = time.perf_counter() - begun
    for parts in answers.values():
        assert f'"completion_tokens":{NEW_TOKENS},'.encode() in b"".join(parts)
    return len(prompts) * NEW_TOKENS / taken


def first_token(port: int, long: list[int], short: list[int], *, beside: bool) -> float:
    """Seconds from a short request to its first token, while a long prompt is read or alone."""
    reading, over = threading.Event(), threading.Event()

    def reader() -> None:
        with _asked(port, prompt=long, max_tokens=1, stream=True) as answer:
            for line in answer:
                if line.startswith(b": read"):
                    reading.set()
            over.set()

    thread = threading.Thread(target=reader)
    if beside:
        thread.start()
        assert reading.wait(60)
    begun = time.perf_counter()
    with _asked(port, prompt=short, max_tokens=1, stream=True) as answer:
        next(line for line in answer if line.startswith(b"data: {"))
    taken = time.perf_counter() - begun
    if beside:
        assert not over.is_set(), "the long prompt was read before the short one"
        thread.join()
    return taken


def step_seconds(port: int, short: list[int]) -> float:
    """Seconds of a step of decode."""
    with _asked(port, prompt=short, max_tokens=48, stream=True) as answer:
        times = [time.perf_counter() for line in answer if line.startswith(b"data: {")]
    return (times[-1] - times[0]) / (len(times) - 1)


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.serving", description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--model", default="storyteller")
    arguments = parser.parse_args()
    generator = tgen.load(arguments.model)
    random = np.random.default_rng(1)

    def ids(count: int) -> list[int]:
        return [int(token) for token in random.integers(0, generator.limits.vocab, count)]

    server = Server(arguments.model)
    try:
        ways: dict[str, Callable[[], float]] = {
            "bench": lambda: speed(generator, CLIENTS, CLIENTS, CONTEXT, NEW_TOKENS),
            "whole": lambda: served_speed(server.port, [ids(CONTEXT) for _ in range(CLIENTS)], stream=False),
            "streams": lambda: served_speed(server.port, [ids(CONTEXT) for _ in range(CLIENTS)], stream=True),
        }
        turns = [{name: way() for name, way in ways.items()} for _ in range(arguments.turns + 1)][1:]
        found = {name: statistics.median(turn[name] for turn in turns) for name in ways}
        for name in ("whole", "streams"):
            share = statistics.median(turn[name] / turn["bench"] for turn in turns)
            print(f"{CLIENTS} clients, {name}: {found[name]:.0f} tokens/s, bench {found['bench']:.0f}, share {share:.0%}")
        steps = [step_seconds(server.port, ids(8)) for _ in range(arguments.turns)]
        alone = [first_token(server.port, ids(LONG), ids(8), beside=False) for _ in range(arguments.turns)]
        beside = [first_token(server.port, ids(LONG), ids(8), beside=True) for _ in range(arguments.turns)]
        step = statistics.median(steps)
        told = f"{statistics.median(beside) / step:.1f} ({', '.join(f'{seconds / step:.1f}' for seconds in beside)})"
        print(f"a step {step * 1e3:.1f} ms; first token alone {statistics.median(alone) / step:.1f} steps, beside {LONG} tokens {told}")
    finally:
        server.process.terminate()
        server.process.wait(60)


if __name__ == "__main__":
    main()
