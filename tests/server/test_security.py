"""Whom the server answers, how much it reads, and what it says to what it does not take."""

from __future__ import annotations

import json
import socket
from contextlib import suppress
from typing import Any

import pytest

from tests.server.conftest import Served, serving
from tests.server.test_load import until
from tgen.errors import UsageError
from tgen.server.guard import read_access

ASKED = {"prompt": "Once", "max_tokens": 1}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "", "[", "a b"])
def test_another_host_is_refused(served: Served, host: str) -> None:
    """DNS rebinding: a page's own name that was made to lead here."""
    status, said = served.ask("/v1/models", Host=host)
    assert (status, said["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1234", "127.0.0.1:80", "[::1]:80", "192.168.0.7", "tgen.localhost"])
def test_an_own_host_is_answered(served: Served, host: str) -> None:
    assert served.ask("/v1/models", Host=host)[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "http://localhost:1", "null", "http://127.0.0.1"])
def test_a_page_of_another_origin_is_refused(served: Served, origin: str) -> None:
    status, said = served.ask("/v1/completions", ASKED, Origin=origin)
    assert (status, said["error"]["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in served.headers
    assert served.ask("/v1/completions", method="OPTIONS", Origin=origin)[0] == 403


def test_a_page_that_hides_its_origin_is_refused(served: Served) -> None:
    assert served.ask("/v1/models", Sec_Fetch_Site="cross-site")[0] == 403
    assert served.ask("/v1/models", Sec_Fetch_Site="same-origin")[0] == 200


def test_a_link_of_another_page_opens_the_page_and_nothing_else(served: Served) -> None:
    def followed(path: str, destination: str, method: str = "GET") -> int:
        return served.ask(path, method=method, Sec_Fetch_Site="cross-site", Sec_Fetch_Dest=destination)[0]

    assert followed("/", "document") == 200
    refused = [("/", "iframe", "GET"), ("/", "document", "POST"), ("/page/style.css", "style", "GET"), ("/v1/models", "document", "GET")]
    assert {followed(*one) for one in refused} == {403}


def test_own_and_allowed_origins_are_answered(served: Served) -> None:
    assert served.ask("/v1/completions", ASKED, Origin=f"http://127.0.0.1:{served.port}")[0] == 200
    access = read_access(None, ["https://good.example"], "127.0.0.1", private=False)
    with serving("storyteller", access=access) as other:
        assert other.ask("/v1/completions", method="OPTIONS", Origin="https://good.example", Host="good.example")[0] == 204
        assert other.headers["access-control-allow-methods"] == "GET, POST"
        assert other.ask("/v1/completions", ASKED, Origin="https://good.example")[0] == 200
        assert other.headers["access-control-allow-origin"] == "https://good.example"
        assert other.ask("/v1/completions", ASKED, Origin="https://bad.example")[0] == 403
    with pytest.raises(UsageError, match="is not an origin"):
        read_access(None, ["good.example"], "127.0.0.1", private=False)


def test_a_key_is_needed() -> None:
    with serving("storyteller", access=read_access("secret", [], "127.0.0.1", private=False)) as closed:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": "secret"}):
            status, said = closed.ask("/v1/completions", ASKED, **given)
            assert (status, said["error"]["code"]) == (401, "invalid_api_key")
            assert "secret" not in said["error"]["message"]
        assert closed.ask("/metrics")[0] == 401
        assert closed.ask("/explain", ASKED)[0] == closed.ask("/settings", {})[0] == 401
        assert closed.ask("/health")[0] == closed.ask("/")[0] == closed.ask("/page/style.css")[0] == 200
        assert closed.ask("/v1/completions", ASKED, Authorization="Bearer secret")[0] == 200


def test_a_large_body_is_refused(served: Served) -> None:
    """100 MB, with their length told before and without; the client hears why although it writes to the end."""
    large = b" " * 100_000_000
    status, said = served.ask("/v1/completions", large)
    assert (status, said["error"]["code"]) == (413, "body_too_large")
    with socket.create_connection(("127.0.0.1", served.port), timeout=60) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            connection.sendall(b"186a0\r\n" + b" " * 100_000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


SAID = [{"role": "user", "content": "a"}]


@pytest.mark.parametrize(
    ("path", "body", "words", "param"),
    [
        ("completions", {"prompt": "a", "suffix": "b"}, "'suffix' cannot be honoured", "suffix"),
        ("completions", {"prompt": "a", "best_of": 3, "n": 2}, "'best_of' cannot be honoured", "best_of"),
        ("completions", {"prompt": "a", "logit_bias": {"5": "x"}}, "logit_bias must give each token a number", "logit_bias"),
        ("completions", {"prompt": "a", "temprature": 1}, "'temprature' is not known; do you mean 'temperature'?", "temprature"),
        ("completions", {"prompt": "a", "temperature": -1}, "temperature must be 0 or more, not -1", "temperature"),
        ("completions", {"prompt": "a", "max_tokens": 0}, "max_tokens must be 1 or more, not 0", "max_tokens"),
        ("chat/completions", {"model": "talker", "messages": SAID, "n": 0}, "n must be between 1 and", "n"),
        (
            "completions", {"prompt": "a", "min_tokens": 9, "max_tokens": 5}, "min_tokens 9 is more than max_tokens 5", "min_tokens"
        ),
        ("completions", {"prompt": "a", "guided_grammar": "x"}, "'guided_grammar' cannot be honoured", "guided_grammar"),
        ("completions", {"prompt": "a", "stop_token_ids": [5]}, "'stop_token_ids' cannot be honoured", "stop_token_ids"),
        ("completions", {"prompt": "a", "guided_regex": {"1": "a"}}, "must be a text", "guided_regex"),
        (
            "completions", {"prompt": "a", "guided_regex": "a", "guided_choice": ["a"]},
            "guided_regex and guided_choice exclude each other", "guided_regex",
        ),
        ("completions", {"prompt": "a", "structured_outputs": {"grammar": "x"}}, "structured_outputs must have", "structured_outputs"),
        ("completions", {"prompt": "a", "structured_outputs": {}}, "structured_outputs must have", "structured_outputs"),
        (
            "completions", {"prompt": "a", "stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options cannot honour 'continuous_usage_stats'", "stream_options",
        ),
        (
            "chat/completions", {"model": "talker", "messages": SAID, "continue_final_message": True},
            "continue_final_message needs a last message of the assistant", "continue_final_message",
        ),
        (
            "chat/completions",
            {"model": "talker", "messages": SAID, "continue_final_message": True, "add_generation_prompt": True},
            "exclude each other", "continue_final_message",
        ),
        ("completions", {"prompt": "a", "echo": 1}, "echo must be true or false, not a number", "echo"),
        ("completions", {"prompt": "a", "stream": "yes"}, "stream must be true or false, not a text", "stream"),
        ("completions", {"prompt": "a", "stream_options": {}}, "stream_options needs stream to be true", "stream_options"),
        ("completions", {}, "prompt must be a text or a list of token ids, not null", "prompt"),
        ("completions", {"prompt": []}, "prompt must be a text or a list of token ids, not a list of something else", "prompt"),
        ("completions", {"prompt": [[1], "a", None]}, "prompt must be a text or a list of token ids", "prompt"),
        ("completions", {"prompt": ["a"] * 3000}, "prompt holds 3,000 texts, and may hold 2,048", "prompt"),
        ("completions", {"prompt": ["a"] * 100, "n": 100}, "prompt and n ask for 10,000 texts, and may ask for 4,096", "prompt"),
        ("completions", {"prompt": [10**9]}, "the prompt holds ids outside the model's vocabulary", None),
        ("completions", {"prompt": "a " * 5000}, "tokens, the model's context is", "prompt"),
        ("chat/completions", {"messages": []}, "messages must not be empty", "messages"),
        ("chat/completions", {"model": "english-french", "messages": SAID}, "english-french", None),
        ("chat/completions", {"model": "talker", "messages": SAID, "functions": []}, "'functions' cannot be honoured", "functions"),
        ("chat/completions", {"model": "talker", "messages": SAID, "tools": [1]}, "tools must be functions", "tools"),
        ("chat/completions", {"model": "talker", "messages": SAID, "tool_choice": "required"}, "tool_choice needs tools", "tool_choice"),
        ("chat/completions", {"model": "talker", "messages": SAID, "top_logprobs": 2}, "top_logprobs needs logprobs", "top_logprobs"),
        (
            "chat/completions",
            {"model": "talker", "messages": SAID, "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}},
            '"type": "x" is not known',
            "json_schema",
        ),
        ("responses", {"model": "talker", "input": 3}, "input must be a text or a list of messages", "input"),
        (
            "responses", {"model": "talker", "input": "a", "previous_response_id": "b"},
            "'previous_response_id' cannot be honoured", "previous_response_id",
        ),
        ("embeddings", {"model": "bert"}, "input must be a text or a list of token ids, not null", "input"),
        ("embeddings", {"model": "bert", "input": "a", "encoding_format": "x"}, "encoding_format must be float or", "encoding_format"),
        ("completions", {"model": "bert", "prompt": "a"}, "bert is encoder-only, so it generates no text", None),
    ],
)  # fmt: skip
def test_what_is_refused(served: Served, path: str, body: dict[str, Any], words: str, param: str | None) -> None:
    status, said = served.ask(f"/v1/{path}", body)
    assert status == 400, said
    assert words in said["error"]["message"]
    assert said["error"]["type"] == "invalid_request_error"
    assert said["error"]["param"] == param
    assert sorted(said["error"]) == ["code", "message", "param", "type"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}', b'{"prompt": "\\ud800"}', b"[" * 10_000])
def test_a_body_that_is_no_object_is_refused(served: Served, data: bytes) -> None:
    status, said = served.ask("/v1/completions", data)
    assert status == 400
    assert said["error"]["message"]


def test_other_paths_and_methods(served: Served) -> None:
    for method, path, wanted in (
        ("GET", "/nothing", 404),
        ("POST", "/", 405),
        ("GET", "/v1/completions", 405),
        ("POST", "/v1/models", 405),
        ("POST", "/x", 404),
    ):
        status, said = served.ask(path, method=method)
        assert (status, sorted(said["error"])) == (wanted, ["code", "message", "param", "type"])


def test_a_context_error_has_its_code(served: Served) -> None:
    said = served.ask("/v1/completions", {"prompt": "a " * 5000})[1]
    assert said["error"]["code"] == "context_length_exceeded"
    assert "--" not in said["error"]["message"]


def test_metrics_are_prometheus_text(served: Served) -> None:
    served.ask("/v1/completions", ASKED)
    text = served.ask("/metrics")[1]
    assert served.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'tgen_requests_total{endpoint="/v1/completions",status="200"}' in text
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        assert line.startswith(("# HELP ", "# TYPE ")) or (name and float(value) >= 0), json.dumps(line)


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgen.server.listening.HEADER_SECONDS", 1)
    monkeypatch.setattr("tgen.server.calls.BODY_SECONDS", 0.3)
    with serving("storyteller") as impatient:
        with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as silent:
            silent.sendall(b"POST /v1/comp")
            assert silent.recv(100) == b""
        with socket.create_connection(("127.0.0.1", impatient.port), timeout=30) as slow:
            slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")
        assert impatient.ask("/v1/completions", ASKED)[0] == 200


def spoken(served: Served, *parts: bytes) -> bytes:
    """What the server says to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as connection:
        for part in parts:
            with suppress(OSError):  # the server may have closed the connection
                connection.sendall(part)
        said = b""
        with suppress(ConnectionResetError):
            while part := connection.recv(65536):
                said += part
        return said


def test_a_large_head_is_refused(served: Served) -> None:
    """Neither in one line nor in many, nor in the second request of a connection."""
    first = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for begun in (b"", first):
        for part in (b"a" * 1000, b"X-Some: thing\r\n" * 100):
            said = spoken(served, begun, b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ", *[part] * 1000)
            assert said.count(b"HTTP/1.1 200 ") == bool(begun)
            assert said.count(b"HTTP/1.1 400 ") <= 1
    assert served.ask("/health")[0] == 200


def test_http_that_clients_write(served: Served) -> None:
    """Java's client asks whether the server would go on with HTTP/2; curl waits before it sends a long body; some send two at once."""
    body = json.dumps(ASKED).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n" % len(body)
    upgrade = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n"
    last = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert spoken(served, head + upgrade + b"\r\n", body, last).count(b"HTTP/1.1 200 ") == 2
    assert b"100 Continue" in spoken(served, head + b"Expect: 100-continue\r\nConnection: close\r\n\r\n", body)
    assert spoken(served, head + b"\r\n" + body + last).count(b"HTTP/1.1 200 ") == 2
    assert spoken(served, b"\0\1 nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_a_stream_is_whole_in_either_version_of_http(served: Served, version: str) -> None:
    """HTTP 1.0 has no chunks: there the end of the connection is the end of the stream."""
    body = json.dumps({**ASKED, "max_tokens": 9, "seed": 1, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/{version}\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    top, _, said = spoken(served, head + body).partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" in top.lower():
        assert version == "1.1"
        pieces, rest = [], said
        while (size := int(rest.partition(b"\r\n")[0], 16)) and (rest := rest.partition(b"\r\n")[2]):
            pieces.append(rest[:size])
            assert rest[size : size + 2] == b"\r\n"
            rest = rest[size + 2 :]
        assert rest == b"0\r\n\r\n"
        said = b"".join(pieces)
    else:
        assert version == "1.0"
    texts = [json.loads(line.removeprefix("data: "))["choices"][0]["text"] for line in said.decode().split("\n\n")[:-2]]
    assert said.endswith(b"data: [DONE]\n\n")
    assert "".join(texts) == served.ask("/v1/completions", {**ASKED, "max_tokens": 9, "seed": 1})[1]["choices"][0]["text"]


def test_a_client_that_reads_nothing_holds_up_nobody() -> None:
    """The system's buffers are made so small that the server has to keep a part of the answer, and its request ends all the same."""
    asked = {"prompt": "Once", "max_tokens": 900, "ignore_eos": True, "logprobs": 5, "n": 8, "stream": True}
    body = json.dumps(asked).encode()
    with serving("storyteller", seconds=1.0) as served, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", served.port))
        state = served.server.server_state
        until(lambda: bool(state.connections), "it is connected")
        (connection,) = state.connections
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        until(lambda: connection.transport.get_write_buffer_size() > 0, "the client is behind")
        until(lambda: not state.tasks, "its request ends")
