"""Lines of JSON as requests: what each form may say, what is refused and how, and the records that answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgen.errors import CapacityError, TgenError, UsageError
from tgen.options import resolve
from tgen.text.chat import Message
from tgen.wire.requests import Asked, failure, identity, merged, read_object, read_request, success


def asked(value: Any) -> Asked:
    return read_request(read_object(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt": "a"}, Asked(prompt="a")),
        ({"prompt": ""}, Asked(prompt="")),
        ({"prompt": [1, 2], "id": [7]}, Asked(prompt=[1, 2], id=[7])),
        (
            {"prompt": "a", "max_tokens": 3, "temp": 0, "n": 2},
            Asked(prompt="a", options={"max_new_tokens": 3, "temperature": 0, "samples": 2}),
        ),
        ({"prompt": "a", "stop": "x", "seed": None}, Asked(prompt="a", options={"stop": ("x",)})),
        ({"prompt": "a", "stop": ["x", "y"], "echo": True}, Asked(prompt="a", echo=True, options={"stop": ("x", "y")})),
        ({"prompt": "a", "json_schema": {"type": "null"}}, Asked(prompt="a", options={"json_schema": {"type": "null"}})),
        ({"messages": [{"role": "user", "content": "a"}]}, Asked(messages=[Message("user", "a")])),
        (
            {"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"enable_thinking": False}},
            Asked(messages=[Message("user", "a")], template_arguments={"enable_thinking": False}),
        ),
        (
            {
                "custom_id": "q",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"model": "m", "prompt": "a", "user": "u", "stream": False},
            },
            Asked("completion", "q", "a"),
        ),
        ({"body": {"prompt": "a", "suffix": None, "top_k": 3}}, Asked("completion", None, "a", options={"top_k": 3})),
        ({"body": {"prompt": ["a"], "best_of": 1, "logit_bias": {}, "n": 1}}, Asked("completion", None, "a")),
        ({"prompt": "a", "custom_id": "q"}, Asked(id="q", prompt="a")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            Asked(messages=[Message("user", "ab")]),
        ),
        (
            {"custom_id": "q", "body": {"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 4, "logprobs": False}},
            Asked("chat", "q", messages=[Message("user", "a")], options={"max_new_tokens": 4}),
        ),
        (
            {"body": {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}}},
            Asked("completion", prompt="a", options={"json_schema": {"type": "null"}}),
        ),
        (
            {"body": {"prompt": "a", "response_format": {"type": "json_object"}}},
            Asked("completion", prompt="a", options={"json_schema": {"type": "object"}}),
        ),
        ({"body": {"prompt": "a", "response_format": {"type": "text"}}}, Asked("completion", prompt="a")),
    ],
)
def test_what_is_understood(value: Any, expected: Asked) -> None:
    assert asked(value) == expected


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "it must have a prompt or messages, and not both"),
        ({"prompt": "a", "messages": []}, "it must have a prompt or messages, and not both"),
        ({"body": {"prompt": "a", "messages": []}}, "it must have messages, and no prompt"),
        ({"messages": []}, "messages must not be empty"),
        ({"messages": [{"role": "king", "content": "a"}]}, "message 1 has the role 'king'"),
        ({"messages": "a"}, "there is no list of messages"),
        ({"prompt": 5}, "prompt must be a text or a list of token ids, not a number"),
        ({"prompt": [1, True]}, "prompt must be a text or a list of token ids, not a list of something else"),
        ({"prompt": []}, "prompt must be a text or a list of token ids, not a list of something else"),
        ({"prompt": "a", "echo": 1}, "echo must be true or false"),
        ({"prompt": [1], "echo": True}, "echo must be true or false, and needs a prompt that is a text"),
        ({"prompt": "a", "top_p_": 1}, "'top_p_' is not known"),
        ({"prompt": "a", "max_tokens": 1, "max_new_tokens": 1}, "another name for it exclude each other"),
        ({"prompt": "a", "constraint": {}}, "'constraint' is not known"),
        ({"prompt": "a", "model": "m"}, "'model' is not known"),
        ({"prompt": "a", "stream": True}, "stream cannot be honoured"),
        ({"body": 1}, "body must be a JSON object, not a number"),
        ({"body": {"prompt": "a"}, "url": "/v1/embeddings"}, "there is no POST /v1/embeddings"),
        ({"body": {"prompt": "a"}, "url": ["x"]}, "there is no POST"),
        ({"body": {"prompt": "a"}, "method": "GET"}, "there is no GET"),
        ({"body": {"prompt": "a"}, "prompt": "b"}, "'prompt' is not known beside a body"),
        ({"body": {"messages": []}, "url": "/v1/completions"}, "it must have a prompt, and no messages"),
        ({"body": {"prompt": ["a", "b"]}}, "prompt must be a text or a list of token ids, not a list of something else"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "a"}]}]}, "message 1 has no text"),
        ({"body": {"prompt": "a"}, "url": "/v1/chat/completions"}, "it must have messages"),
        ({"body": {"prompt": "a", "logit_bias": {"1": 2}}}, "'logit_bias' is not known"),
        ({"body": {"messages": [{"role": "user", "content": "a"}], "logprobs": True}}, "logprobs of a chat request cannot be honoured"),
        ({"body": {"prompt": "a", "response_format": {"type": "xml"}}}, "response_format must be of type"),
    ],
)
def test_what_is_refused(value: Any, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        asked(value)
    assert words in refused.value.message


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"\xff", "it is not UTF-8 at byte 0"),
        (b"{", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b'{"id": 1e400}', "it is not JSON: a number is larger than any float"),
        (b'{"prompt": NaN}', "it is not JSON: NaN is not a JSON value"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "it is not JSON"),
        (b"[1]", "it is not a JSON object but a list"),
        (b"null", "it is not a JSON object but null"),
        (b'{"prompt": "\\ud800"}', "it holds half a surrogate pair"),
    ],
)
def test_lines_that_are_no_object(line: bytes, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_object(line)
    assert words in refused.value.message


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from("prompt messages id echo stop top_k n temp seed samples regex choices json_schema overflow body url method".split())


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=5) | VALUES)
def test_whatever_a_line_holds_is_understood_or_refused(value: Any) -> None:
    line = json.dumps(value).encode()
    found: dict[str, Any] = {}
    try:
        found = read_object(line)
        request = read_request(found)
        resolve(request.options, {}, {})
        record = success(1, request, {})
    except TgenError as error:
        record = failure(1, found, error)
        assert error.message
        assert "\n" not in error.message
    assert json.loads(json.dumps(record, allow_nan=False))["line"] == 1


def test_a_lines_constraint_takes_the_place_of_the_commands() -> None:
    command = {"regex": "a+", "top_k": 3, "json_schema": None}
    assert merged(command, {"choices": ["x"]}) == {"top_k": 3, "choices": ["x"]}
    assert merged(command, {"top_k": 4}) == {"regex": "a+", "top_k": 4, "json_schema": None}


def test_a_mark_of_the_byte_order_is_no_part_of_a_line() -> None:
    assert read_object(b'\xef\xbb\xbf{"prompt": "a"}') == {"prompt": "a"}


def test_records() -> None:
    error = CapacityError("too long", "shorten it")
    said = {"code": "context", "message": "too long", "hint": "shorten it"}
    assert success(3, Asked(id=0), {"choices": []}) == {"line": 3, "id": 0, "choices": []}
    assert failure(3, {"prompt": "a"}, error) == {"line": 3, "error": said}
    assert failure(3, {"prompt": "a", "id": "x"}, error) == {"line": 3, "id": "x", "error": said}
    assert failure(3, {}, TgenError("bad")) == {"line": 3, "error": {"code": "unexpected", "message": "bad"}}
    body = {"custom_id": "x", "body": {}, "id": "not this"}
    assert identity(body) == "x"
    assert failure(3, body, error) == {"line": 3, "id": "line-3", "custom_id": "x", "response": None, "error": said}
    found = success(3, Asked("chat", "x"), {"choices": []})
    answer = {"id": "cmpl-3", "object": "chat.completion", "created": 0, "choices": []}
    assert found["response"] == {"status_code": 200, "request_id": "line-3", "body": answer}
    words = UsageError("--top-k must be 0 or more, not -1", "use --overflow truncate-left or another --model")
    assert failure(3, {}, words)["error"] == {
        "code": "usage",
        "message": "top_k must be 0 or more, not -1",
        "hint": "use overflow truncate-left or another --model",
    }
    assert success(3, Asked("completion", "x"), {})["response"]["body"]["object"] == "text_completion"
