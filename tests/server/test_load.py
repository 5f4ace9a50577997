"""Many requests at once, of which some go away: each gets its own text, and none is left behind."""

from __future__ import annotations

import json
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import tgen
from tests.server.conftest import Served, serving

BEGINNING = "Once upon a time there was an old fox who lived in a dark wood, and every day he went out to look for geese. "


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that happens soon."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def leave_in_the_middle(port: int, body: dict[str, Any], pieces: int) -> None:
    """Read some pieces of a stream, and close the connection."""
    data = json.dumps({**body, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + data)
        for _ in range(pieces):
            connection.recv(200)


def test_no_text_depends_on_the_others(served: Served) -> None:
    """16 threads, half of the prompts with one beginning, some streamed, some abandoned."""
    model = tgen.load(threads=1)
    asked: list[dict[str, Any]] = [
        {"prompt": (BEGINNING if number % 2 else "") + f"Then number {number}", "seed": number, "max_tokens": 5 + number * 7 % 30}
        for number in range(48)
    ]
    wanted = [model.generate(one["prompt"], seed=one["seed"], max_new_tokens=one["max_tokens"]) for one in asked]

    def ask(number: int) -> str | None:
        luck = random.Random(number).random()
        if luck < 0.3:
            leave_in_the_middle(served.port, {**asked[number], "max_tokens": 400}, 1 + number % 4)
            return None
        made: Any = served.client.completions.create(model="storyteller", **asked[number], stream=luck < 0.6)
        return "".join(chunk.choices[0].text for chunk in made) if luck < 0.6 else made.choices[0].text

    with ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(ask, range(len(asked))))
    assert None in texts
    assert [text for text in texts if text is not None] == [want for want, text in zip(wanted, texts, strict=True) if text is not None]
    until(lambda: served.metric("tgen_requests_running") + served.metric("tgen_requests_waiting") == 0, "the abandoned ones end")
    assert served.service.busy == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_closed_connection_ends_its_request(served: Served, stream: bool) -> None:
    body = {"prompt": "Once", "max_tokens": 10_000, "ignore_eos": True, "n": 4, "stream": stream}
    before = served.metric("tgen_generated_tokens_total")
    data = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        until(lambda: served.metric("tgen_requests_running") == 1, "it begins")
    until(lambda: served.metric("tgen_requests_running") == 0, "it ends")
    assert served.metric("tgen_generated_tokens_total") == before, "before its text was whole"


def test_a_shared_beginning_is_read_once(served: Served) -> None:
    """Also by requests that come at the same time: one reads it, the others wait and copy its row."""
    beginning = "In a far country there lived a king who had three sons, and the youngest of them was called a simpleton. " * 3
    tokens = len(tgen.load(threads=1).tokenizer.encode(beginning))
    before = served.metric("tgen_prompt_tokens_total") - served.metric("tgen_cached_tokens_total")
    barrier = threading.Barrier(6)

    def ask(number: int) -> None:
        barrier.wait()
        served.client.completions.create(model="storyteller", prompt=f"{beginning}Son {number}", max_tokens=8, seed=1)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))
    after = served.metric("tgen_prompt_tokens_total") - served.metric("tgen_cached_tokens_total")
    assert after - before < 2 * tokens
    made = served.client.completions.create(model="storyteller", prompt=f"{beginning}And later", max_tokens=1)
    assert made.usage is not None
    assert made.usage.prompt_tokens_details is not None
    assert (made.usage.prompt_tokens_details.cached_tokens or 0) >= tokens - 5


def test_a_long_prompt_tells_how_far_it_was_read(served: Served) -> None:
    data = json.dumps({"prompt": "A tale. " * 120, "max_tokens": 1, "stream": True}).encode()
    status, text = served.ask("/v1/completions", data)
    assert status == 200
    assert ": read 256 of " in text
    assert text.endswith("data: [DONE]\n\n")


def test_a_full_queue_is_told() -> None:
    with serving("storyteller", rows=1, queue=0) as small:
        body = {"prompt": "Once", "max_tokens": 10_000, "ignore_eos": True, "stream": True}
        data = json.dumps(body).encode()
        with socket.create_connection(("127.0.0.1", small.port), timeout=30) as connection:
            connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
            until(lambda: small.service.busy == 1, "it begins")
            status, said = small.ask("/v1/completions", {"prompt": "b", "max_tokens": 1})
            assert (status, said["error"]["code"]) == (429, "queue_full")
            assert small.headers["retry-after"] == "1"
            assert small.ask("/health")[0] == 200
        until(lambda: small.service.busy == 0, "it ends")
        assert small.ask("/v1/completions", {"prompt": "b", "max_tokens": 1})[0] == 200


def test_an_answer_that_takes_too_long_ends() -> None:
    with serving("storyteller", seconds=0.5) as hasty:
        body = {"prompt": "Once", "max_tokens": 10_000, "ignore_eos": True, "n": 8}
        status, said = hasty.ask("/v1/completions", body)
        assert (status, said["error"]["code"]) == (504, "timeout")
        status, text = hasty.ask("/v1/completions", {**body, "stream": True})
        assert status == 200
        assert '"code":"timeout"' in text.splitlines()[-2]
        until(lambda: hasty.metric("tgen_requests_running") == 0, "both end")


def test_models_share_a_budget_of_memory(chat_folder: str) -> None:
    """The model that was used longest ago is closed, but not while it is being used."""
    with serving("storyteller", chat_folder, memory=60_000_000) as small:
        first, second = small.service.models.all
        small.service.models._most = first.bytes + second.bytes - 1
        assert (first.loaded, second.loaded) == (True, False)
        said = {"model": "talker", "messages": [{"role": "user", "content": "a"}], "max_tokens": 2}
        assert small.ask("/v1/chat/completions", said)[0] == 200
        assert (first.loaded, second.loaded) == (False, True)
        assert small.ask("/v1/completions", {"prompt": "a", "max_tokens": 2})[0] == 200
        assert (first.loaded, second.loaded) == (True, False)
        with ThreadPoolExecutor(6) as pool:
            tasks = [
                pool.submit(small.ask, "/v1/completions", {"model": name, "prompt": "a", "max_tokens": 5})
                for name in ("storyteller", "talker") * 6
            ]
            assert [task.result()[0] for task in tasks] == [200] * 12


def test_a_request_with_many_prompts_lets_others_in(served: Served) -> None:
    """One of 60 prompts would otherwise keep all others waiting until it ends."""
    body = {"prompt": [f"Number {number}" for number in range(60)], "max_tokens": 40, "ignore_eos": True, "seed": 1}
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(served.ask, "/v1/completions", body)
        until(lambda: served.metric("tgen_requests_running") == 8, "it begins")
        assert served.metric("tgen_requests_waiting") <= 8
        assert served.ask("/v1/completions", {"prompt": "Once", "max_tokens": 3})[0] == 200
        assert not many.done()
        status, said = many.result()
    assert status == 200
    model = tgen.load(threads=1)
    assert [choice["index"] for choice in said["choices"]] == list(range(60))
    for number in (0, 7, 8, 30, 59):
        wanted = model.generate(f"Number {number}", max_new_tokens=40, ignore_eos=True, seed=1)
        assert said["choices"][number]["text"] == wanted
