"""How requests reach the thread that runs models, and how its events reach the connections."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import platform
import socket
import struct
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable
from queue import Empty
from types import SimpleNamespace
from typing import Any, cast

import h11
import pytest
from starlette.types import Message

from tests.server.conftest import Served
from tests.server.test_load import until
from tgen.engine.scheduler import Told
from tgen.events import Piece, Reading
from tgen.executors.session import Interrupt
from tgen.options import GuessOptions, RunOptions
from tgen.server.mailbox import EACH_SECONDS, FEW, LONGEST_SECONDS, Mailbox, Post
from tgen.server.models import Models
from tgen.server.protocol import _Connection
from tgen.server.sending import Reply
from tgen.server.wakeups import CALL_NUMBERS, LONGER, SHORT_NANOSECONDS, giving_way, wake_at_once
from tgen.server.worker import LOOKS, Engine, Worker


def pieces(*texts: str) -> Told:
    return [(1, Piece(0, text)) for text in texts]


async def a_moment() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("many", [False, True])
def test_new_text_waits_only_where_many_wait_for_it(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.server.mailbox.LONGEST_SECONDS", 3600)
    monkeypatch.setattr("tgen.server.mailbox.EACH_SECONDS", 3600)
    heard: list[Told] = []

    def deliver(told: Told) -> int:
        heard.append(told)
        return FEW + many

    async def main() -> None:
        post = Post(asyncio.get_running_loop(), deliver)
        for text in "abc":
            post.send(pieces(text))
            await a_moment()
        assert heard == ([pieces("a")] if many else [pieces("a"), pieces("b"), pieces("c")])
        post.send([(2, Piece(0, "other")), *pieces("d")], {1})
        await a_moment()
        if many:
            assert heard[1:] == [pieces("b", "c", "d")], "what is not urgent still waits"
            post.send([], {2})
            await a_moment()
            assert heard[2:] == [[(2, Piece(0, "other"))]]
        else:
            assert heard[1:] == [pieces("b"), pieces("c"), [(2, Piece(0, "other")), *pieces("d")]]

    asyncio.run(main())


def test_the_more_wait_the_less_often_they_are_woken() -> None:
    waits: list[float] = []
    loop = cast(Any, SimpleNamespace(call_soon_threadsafe=lambda wake: wake(), call_later=lambda seconds, _: waits.append(seconds)))
    for requests in (5, 16, 1000):
        Post(loop, lambda _, requests=requests: requests).send(pieces("a"))  # type: ignore[misc]
    assert waits == [5 * EACH_SECONDS, 16 * EACH_SECONDS, LONGEST_SECONDS]


def test_text_that_waited_comes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.server.mailbox.LONGEST_SECONDS", 0.01)
    heard: Told = []

    def deliver(told: Told) -> int:
        heard.extend(told)
        return FEW + 1

    async def main() -> None:
        post = Post(asyncio.get_running_loop(), deliver)
        for text in "abcdefgh":
            post.send(pieces(text))
            await asyncio.sleep(0.004)
        async with asyncio.timeout(30):
            while len(heard) < 8:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # nobody looks any more
        post.send(pieces("i"))
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


def test_new_text_is_delivered_before_progress() -> None:
    """Of the events of one step, the text of a short prompt goes out first; a client that only hears how far its prompt was read waits."""
    worker, order = Worker(), list[Told]()
    told: Told = [(1, Reading(10, 100)), (2, Piece(0, "a")), (2, Piece(0, "b"))]
    for key in (1, 2):
        worker._listeners[key] = type("Recorded", (), {"put_nowait": staticmethod(order.append)})()
    assert worker._deliver(told) == 2
    assert order == [told[1:], told[:1]]


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


def test_the_end_of_a_stream_comes_with_its_last_text(served: Served) -> None:
    """One piece of the body holds the last token, the usage and the mark of the end: each piece wakes the client."""
    body = json.dumps({"prompt": "Once", "max_tokens": 1, "stream": True, "stream_options": {"include_usage": True}}).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body)
        said = b"".join(iter(lambda: client.recv(65536), b""))
    length, _, rest = said.partition(b"\r\n\r\n")[2].partition(b"\r\n")
    assert rest[int(length, 16) :] == b"\r\n0\r\n\r\n", "a single piece"
    assert rest.count(b"data: {") == 3
    assert b"data: [DONE]" in rest


@pytest.mark.parametrize("framing", [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")])
def test_a_head_is_written_with_the_first_bytes_of_its_body(framing: tuple[bytes, bytes]) -> None:
    connection = _Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
    while connection.next_event() is not h11.NEED_DATA and connection.their_state is not h11.DONE:
        pass
    assert connection.send(h11.Response(status_code=200, headers=[framing])) == b""
    first = connection.send(h11.Data(data=b"text"))
    assert first is not None
    assert first.startswith(b"HTTP/1.1 200 ")
    assert first.partition(b"\r\n\r\n")[2] == (b"text" if framing[0] == b"content-length" else b"4\r\ntext\r\n")
    assert connection.send(h11.EndOfMessage()) == (b"" if framing[0] == b"content-length" else b"0\r\n\r\n")
    assert connection.our_state is h11.DONE


def test_a_head_without_a_body_is_written_at_the_end() -> None:
    connection = _Connection(h11.SERVER)
    connection.receive_data(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while connection.next_event() is not h11.NEED_DATA and connection.their_state is not h11.DONE:
        pass
    assert connection.send(h11.Response(status_code=204, headers=[])) == b""
    assert (connection.send(h11.EndOfMessage()) or b"").startswith(b"HTTP/1.1 204 ")


@pytest.mark.parametrize("takes", [True, False])
def test_a_silent_stream_says_that_it_lives(takes: bool) -> None:
    """Unless its client has not yet taken what was said."""
    bodies: list[bytes] = []
    go = asyncio.Event()

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            bodies.append(message["body"])
            if not takes and len(bodies) == 1:
                await go.wait()

    async def pieces() -> AsyncGenerator[bytes]:
        yield b"first"
        await go.wait()
        yield b"last"

    async def main() -> None:
        answering = asyncio.ensure_future(Reply(send).stream(pieces(), 0.01, time.monotonic() + 30, TimeoutError()))
        if takes:
            async with asyncio.timeout(30):
                while len(bodies) < 3:
                    await asyncio.sleep(0.01)
        else:
            await asyncio.sleep(0.1)
        go.set()
        assert await answering == 200
        said = len(bodies)
        await asyncio.sleep(0.05)
        assert len(bodies) == said, "nothing comes after the end"

    asyncio.run(main())
    assert bodies[0] == b"first"
    assert bodies[-2:] == [b"last", b""]
    assert {*bodies[1:-2]} == ({b": waiting\n\n"} if takes else set())


@pytest.mark.parametrize("path", ["completions", "chat/completions"])
def test_what_fails_before_the_first_text_has_its_own_status(served: Served, path: str) -> None:
    """Though a constraint is compiled when the request already runs."""
    asked = {"prompt": "a"} if path == "completions" else {"model": "talker", "messages": [{"role": "user", "content": "a"}]}
    choices = {"guided_choice": ["far more than a single token can hold"], "max_tokens": 1}
    whole, stream = (served.ask(f"/v1/{path}", {**asked, **choices, "stream": stream}) for stream in (False, True))
    assert whole[0] == 400
    assert stream == whole


def test_only_new_jobs_interrupt(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    plain = Worker._ask

    def ask(self: Worker, engine: Engine, task: Callable[[], None]) -> None:
        asked.append(task)
        plain(self, engine, task)

    monkeypatch.setattr(Worker, "_ask", ask)
    assert served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 3})[0] == 200
    assert len(asked) == 1, "its end is nothing to interrupt others for"


def reading_worker(monkeypatch: pytest.MonkeyPatch, *, only_reads: bool = True) -> Worker:
    """A worker with an engine that reads prompts, and whose patience a test can rely on."""
    monkeypatch.setattr("tgen.server.worker.EXPECTED_SECONDS", 0.5)
    monkeypatch.setattr("tgen.server.worker.GATHERED_SECONDS", 5.0)
    worker = Worker()
    worker._running.append(cast(Engine, SimpleNamespace(interrupt=Interrupt(), scheduler=SimpleNamespace(only_reads=only_reads))))
    return worker


def taken(worker: Worker, *later: Callable[[], object]) -> list[object]:
    """What tasks do that the worker takes; each call comes a moment after the last."""

    async def main() -> list[object]:
        for number, call in enumerate(later, start=1):
            asyncio.get_running_loop().call_later(0.05 * number, call)
        return [task() for task in await asyncio.to_thread(lambda: list(worker._taken()))]

    return asyncio.run(main())


@pytest.mark.parametrize("only_reads", [False, True])
def test_the_model_waits_for_requests_that_are_on_their_way(only_reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it only reads prompts; rows that decode are not kept waiting."""
    worker, came = reading_worker(monkeypatch, only_reads=only_reads), list[str]()
    worker.expect()
    worker.expect()
    tasks = taken(worker, lambda: worker.call(lambda: came.append("first")), lambda: worker.call(lambda: came.append("second")))
    assert len(tasks) == (2 if only_reads else 0)
    assert came == (["first", "second"] if only_reads else [])


def test_a_model_that_was_idle_waits_until_the_loop_has_looked_around() -> None:
    worker = Worker()

    async def main() -> None:
        worker._look_around()
        assert worker._coming == 1
        assert worker._inbox.empty()
        for _ in range(LOOKS + 1):
            await asyncio.sleep(0)
        assert worker._coming == 0
        assert not worker._inbox.empty(), "it is told"

    asyncio.run(main())


def test_a_connection_announces_a_request(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its first bytes were read, or it is closed; it alone interrupts nothing."""
    worker, told = served.service.worker, list[str]()
    plain = worker.expect

    def expect(*, surely: bool = True) -> None:
        told.append("surely" if surely else "perhaps")
        plain(surely=surely)

    monkeypatch.setattr(worker, "arrived", lambda: told.append("arrived"))
    monkeypatch.setattr(worker, "expect", expect)
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as client:
        until(lambda: told == ["perhaps"], "it is expected")
        client.sendall(b"GET /he")
        until(lambda: told == ["perhaps", "arrived"], "it has come")
        client.sendall(b"alth HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert told == ["perhaps", "arrived"]
    told.clear()
    socket.create_connection(("127.0.0.1", served.port), timeout=30).close()
    until(lambda: told == ["perhaps", "arrived"], "it does not come")
    told.clear()
    assert served.ask("/v1/completions", {"prompt": "a", "max_tokens": 1})[0] == 200
    until(lambda: sorted(told) == ["arrived", "arrived", "arrived", "perhaps", "perhaps", "surely"], "one look around, too")
    assert told.index("surely") < told.index("arrived"), "it is expected until it has come"


@pytest.mark.parametrize(("expected", "gathered"), [(3.0, 20.0), (20.0, 3.0)])
def test_a_request_that_never_comes_is_waited_for_once(expected: float, gathered: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do many that come one after another keep the model waiting for longer."""
    worker, waits = reading_worker(monkeypatch), list[float]()
    monkeypatch.setattr("tgen.server.worker.EXPECTED_SECONDS", expected)
    monkeypatch.setattr("tgen.server.worker.GATHERED_SECONDS", gathered)

    def get(timeout: float) -> None:
        waits.append(timeout)
        raise Empty

    worker.expect()
    monkeypatch.setattr(worker, "_inbox", SimpleNamespace(get=get, qsize=lambda: 0))
    for _ in range(2):
        assert list(worker._taken()) == []
    assert len(waits) == 1
    assert 0 <= waits[0] <= 3.0


def slice_of(thread: int) -> tuple[int, int]:
    """The nice value and the slice in nanoseconds."""
    attributes = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None).syscall(CALL_NUMBERS[platform.machine()] + 1, thread, attributes, 56, 0) == 0
    _, _, _, nice, _, nanoseconds = struct.unpack_from("=IIQiIQ", attributes.raw)
    return nice, nanoseconds


def in_a_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


linux = pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in CALL_NUMBERS, reason="the calls are Linux's")


@linux
def test_the_thread_of_the_connections_has_a_short_slice() -> None:
    """Its priority stays, threads that it starts are like others, and so is a thread of another policy."""

    def run() -> Any:
        plain = slice_of(0)
        assert wake_at_once()
        short, child = slice_of(0), in_a_thread(lambda: slice_of(0))
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        return plain, short, child, wake_at_once()

    plain, short, child, batch = in_a_thread(run)
    assert short[0] == plain[0]
    assert short[1] in (SHORT_NANOSECONDS, plain[1]), "older systems do not act on it"
    assert child == plain
    assert not batch


@linux
def test_threads_that_compute_have_a_longer_slice() -> None:
    """So do those that they start, until it is over; the thread that runs models and those of a model have one."""

    def run() -> Any:
        plain = slice_of(0)
        with giving_way():
            longer, child = slice_of(0), in_a_thread(lambda: slice_of(0))
        return plain, longer, child, slice_of(0)

    plain, longer, child, after = in_a_thread(run)
    assert longer == child
    assert longer[0] == plain[0]
    assert longer[1] in (LONGER * plain[1], plain[1]), "older systems do not act on it"
    assert after == plain


@linux
def test_the_threads_of_models_give_way(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that runs them, and one that loads a model and so starts its threads."""
    found: list[Any] = [served.service.worker.call(lambda: slice_of(0)).result(30)]
    models = Models(["storyteller"], RunOptions(threads=1), GuessOptions(), 1, None)

    def opened(*_: object) -> None:
        found.append(slice_of(0))

    monkeypatch.setattr("tgen.server.models.open_generator", opened)
    monkeypatch.setattr("tgen.server.models.Engine", lambda *_: None)
    in_a_thread(lambda: models.load(models.all[0]))
    plain = in_a_thread(lambda: slice_of(0))[1]
    assert [nanoseconds in (LONGER * plain, plain) for _, nanoseconds in found] == [True, True]
    assert found[0] == found[1]
