"""How requests reach the thread that runs models, and how its events reach the connections."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import struct
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.server.conftest import Served
from tgen.engine.scheduler import Told
from tgen.events import Piece
from tgen.executors.session import Interrupt
from tgen.server.mailbox import Mailbox, Post
from tgen.server.wakeups import CALL_NUMBERS, SLICE_NANOSECONDS, wake_at_once
from tgen.server.worker import Engine, Worker


def pieces(*texts: str) -> Told:
    return [(1, Piece(0, text)) for text in texts]


async def a_moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("many", [False, True])
def test_new_text_waits_only_where_many_wait_for_it(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.server.mailbox.SELDOM_SECONDS", 3600)
    heard: list[Told] = []

    def deliver(told: Told) -> bool:
        heard.append(told)
        return many

    async def main() -> None:
        post = Post(asyncio.get_running_loop(), deliver)
        for text in "abc":
            post.send(pieces(text), urgent=False)
            await a_moment()
        assert heard == ([pieces("a")] if many else [pieces("a"), pieces("b"), pieces("c")])
        post.send(pieces("d"), urgent=True)
        await a_moment()
        assert heard[1:] == ([pieces("b", "c", "d")] if many else [pieces("b"), pieces("c"), pieces("d")])

    asyncio.run(main())


def test_text_that_waited_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.server.mailbox.SELDOM_SECONDS", 0.01)
    heard: Told = []

    def deliver(told: Told) -> bool:
        heard.extend(told)
        return True

    async def main() -> None:
        post = Post(asyncio.get_running_loop(), deliver)
        for text in "abcdefgh":
            post.send(pieces(text), urgent=False)
            await asyncio.sleep(0.004)
        async with asyncio.timeout(30):
            while len(heard) < 8:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # nobody looks any more
        post.send(pieces("i"), urgent=False)
        await a_moment()
        assert heard == pieces(*"abcdefghi")

    asyncio.run(main())


def test_what_came_together_is_taken_together() -> None:
    async def main() -> None:
        mailbox = Mailbox()
        waiting = asyncio.ensure_future(mailbox.get())
        await a_moment()
        mailbox.put_nowait(pieces("a"))
        mailbox.put_nowait(pieces("b"))
        assert await waiting == pieces("a", "b")
        mailbox.put_nowait(pieces("c"))
        assert await mailbox.get() == pieces("c")

    asyncio.run(main())


def test_a_stream_has_a_chunk_for_every_token(served: Served) -> None:
    """Though several are sent together where many texts are written."""
    body = {"prompt": "Once", "max_tokens": 30, "ignore_eos": True, "n": 8, "seed": 3, "stream": True}
    status, text = served.ask("/v1/completions", json.dumps(body).encode())
    assert status == 200
    chunks = [json.loads(line.removeprefix("data: "))["choices"][0] for line in text.split("\n\n") if line.startswith("data: {")]
    assert len(chunks) > 8 * 25
    whole = served.ask("/v1/completions", {**body, "stream": False})[1]
    for choice in whole["choices"]:
        assert "".join(chunk["text"] for chunk in chunks if chunk["index"] == choice["index"]) == choice["text"]


def test_only_new_jobs_interrupt(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    plain = Worker._ask

    def ask(self: Worker, engine: Engine, task: Callable[[], None]) -> None:
        asked.append(task)
        plain(self, engine, task)

    monkeypatch.setattr(Worker, "_ask", ask)
    assert served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 3})[0] == 200
    assert len(asked) == 1, "its end is nothing to interrupt others for"


@pytest.mark.parametrize("only_reads", [False, True])
def test_the_model_waits_for_a_request_that_is_on_its_way(only_reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it only reads prompts; rows that decode are not kept waiting."""
    monkeypatch.setattr("tgen.server.worker.EXPECTED_SECONDS", 0.5)
    worker = Worker()
    engine = cast(Engine, SimpleNamespace(interrupt=Interrupt(), scheduler=SimpleNamespace(only_reads=only_reads)))
    worker._running.append(engine)
    worker.expect()
    future: Any = None

    def later() -> None:
        nonlocal future
        future = worker.call(lambda: "came")

    async def main() -> list[object]:
        asyncio.get_running_loop().call_later(0.05, later)
        return [task() for task in await asyncio.to_thread(lambda: list(worker._taken()))]

    assert asyncio.run(main()) == ([None] if only_reads else [])
    if only_reads:
        assert future.result() == "came"


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in CALL_NUMBERS, reason="the call is Linux's")
def test_the_thread_of_the_connections_has_a_short_slice() -> None:
    """Its priority stays, threads that it starts are like others, and so is a thread of another policy."""

    def slice_of(thread: int) -> tuple[int, int]:
        """The nice value and the slice in nanoseconds."""
        attributes = ctypes.create_string_buffer(56)
        assert ctypes.CDLL(None).syscall(CALL_NUMBERS[platform.machine()] + 1, thread, attributes, 56, 0) == 0
        _, _, _, nice, _, nanoseconds = struct.unpack_from("=IIQiIQ", attributes.raw)
        return nice, nanoseconds

    found: list[object] = []

    def run() -> None:
        plain = slice_of(0)
        assert wake_at_once()
        found.append((plain, slice_of(0)))
        child = threading.Thread(target=lambda: found.append(slice_of(0)))
        child.start()
        child.join()
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        found.append(wake_at_once())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    [(plain, short), child, batch] = cast(Any, found)
    assert short[0] == plain[0]
    assert short[1] in (SLICE_NANOSECONDS, plain[1]), "older systems do not act on it"
    assert child == plain
    assert not batch
