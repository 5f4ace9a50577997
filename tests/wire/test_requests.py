"""Lines of JSON as requests: what each form may say, what is refused and how."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tgen.errors import TgenError, UsageError
from tgen.options import resolve
from tgen.text.chat import Message
from tgen.wire.records import answer_record, error_record
from tgen.wire.requests import JsonRequest, LineKey, line_key, merged, read_body, read_object, read_request


def asked(value: Any) -> JsonRequest:
    return read_request(read_object(json.dumps(value).encode()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"prompt": "a"}, JsonRequest(prompt="a")),
        ({"prompt": ""}, JsonRequest(prompt="")),
        ({"prompt": [1, 2], "id": [7]}, JsonRequest(prompt=[1, 2])),
        (
            {"prompt": "a", "max_tokens": 3, "temp": 0, "n": 2},
            JsonRequest(prompt="a", options={"max_new_tokens": 3, "temperature": 0, "samples": 2}),
        ),
        ({"prompt": "a", "stop": "x", "seed": None}, JsonRequest(prompt="a", options={"stop": ("x",)})),
        ({"prompt": "a", "stop": ["x", "y"], "echo": True}, JsonRequest(prompt="a", echo=True, options={"stop": ("x", "y")})),
        ({"prompt": "a", "json_schema": {"type": "null"}}, JsonRequest(prompt="a", options={"json_schema": {"type": "null"}})),
        ({"messages": [{"role": "user", "content": "a"}]}, JsonRequest(messages=[Message("user", "a")])),
        (
            {"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": {"enable_thinking": False}},
            JsonRequest(messages=[Message("user", "a")], template_arguments={"enable_thinking": False}),
        ),
        (
            {
                "custom_id": "q",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"model": "m", "prompt": "a", "user": "u", "stream": False},
            },
            JsonRequest("completion", "a"),
        ),
        ({"body": {"prompt": "a", "suffix": None, "top_k": 3}}, JsonRequest("completion", "a", options={"top_k": 3})),
        ({"body": {"prompt": ["a"], "best_of": 1, "logit_bias": {}, "n": 1}}, JsonRequest("completion", "a")),
        ({"body": {"prompt": "a", "logit_bias": {"1": 2}}}, JsonRequest("completion", "a", options={"logit_bias": {"1": 2}})),
        ({"prompt": "a", "min_tokens": 3, "bad_words": ["b"]}, JsonRequest(prompt="a", options={"min_new_tokens": 3, "ban": ("b",)})),
        ({"prompt": "a", "samplers": ["top_k"], "ban": "b"}, JsonRequest(prompt="a", options={"samplers": ["top_k"], "ban": ("b",)})),
        ({"prompt": "a", "custom_id": "q"}, JsonRequest(prompt="a")),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]},
            JsonRequest(messages=[Message("user", "ab")]),
        ),
        (
            {"custom_id": "q", "body": {"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 4, "logprobs": False}},
            JsonRequest("chat", messages=[Message("user", "a")], options={"max_new_tokens": 4}),
        ),
        (
            {"body": {"messages": [{"role": "user", "content": "a"}], "logprobs": True}},
            JsonRequest("chat", messages=[Message("user", "a")], options={"logprobs": 0}),
        ),
        (
            {"body": {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": 3}},
            JsonRequest("chat", messages=[Message("user", "a")], options={"logprobs": 3}),
        ),
        ({"body": {"prompt": "a", "logprobs": 3}}, JsonRequest("completion", "a", options={"logprobs": 3})),
        (
            {"body": {"prompt": "a", "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "null"}}}}},
            JsonRequest("completion", prompt="a", options={"json_schema": {"type": "null"}}),
        ),
        (
            {"body": {"prompt": "a", "response_format": {"type": "json_object"}}},
            JsonRequest("completion", prompt="a", options={"json_schema": {"type": "object"}}),
        ),
        ({"body": {"prompt": "a", "response_format": {"type": "text"}}}, JsonRequest("completion", prompt="a")),
    ],
)
def test_what_is_understood(value: Any, expected: JsonRequest) -> None:
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
        ({"body": {"prompt": "a"}, "url": "/v1/embeddings"}, "tgen does not answer POST /v1/embeddings"),
        ({"body": {"prompt": "a"}, "url": ["x"]}, "tgen does not answer POST"),
        ({"body": {"prompt": "a"}, "method": "GET"}, "tgen does not answer GET"),
        ({"body": {"prompt": "a"}, "prompt": "b"}, "'prompt' is not known beside a body"),
        ({"body": {"messages": []}, "url": "/v1/completions"}, "it must have a prompt, and no messages"),
        ({"body": {"prompt": ["a", "b"]}}, "prompt must be a text or a list of token ids, not a list of something else"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "text": "a"}]}]}, "message 1 has no text"),
        ({"body": {"prompt": "a"}, "url": "/v1/chat/completions"}, "it must have messages"),
        (
            {"body": {"messages": [{"role": "user", "content": "a"}], "logprobs": 2}},
            "logprobs of a chat request must be true or false, not 2",
        ),
        ({"body": {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}}, "top_logprobs needs logprobs to be true"),
        (
            {"body": {"messages": [{"role": "user", "content": "a"}], "logprobs": True, "top_logprobs": True}},
            "top_logprobs must be a whole number of 0 or more, not True",
        ),
        ({"body": {"prompt": "a", "top_logprobs": 2}}, "'top_logprobs' is not known"),
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
        (b"[" * 100_000, "its lists and objects are nested more than 500 levels deep"),
        (b'{"id": ' + b"[" * 980 + b"]" * 980 + b"}", "its lists and objects are nested more than 500 levels deep"),
        (b'{"id": 1e400}', "it is not JSON: a number is larger than any float"),
        (b'{"prompt": NaN}', "it is not JSON: NaN is not a JSON value"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "it holds a whole number of more than 4,300 digits"),
        (b'{"prompt": "a", "seed": 1, "prompt": "b"}', "it has the key 'prompt' twice"),
        (b'{"prompt": "a", "logit_bias": {"5": 1, "5": 2}}', "it has the key '5' twice"),
        (b"[1]", "it is not a JSON object but a list"),
        (b"null", "it is not a JSON object but null"),
        (b'{"prompt": "\\ud800"}', "it holds half a surrogate pair"),
    ],
)
def test_lines_that_are_no_object(line: bytes, words: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_object(line)
    assert words in refused.value.message
    assert "sys." not in refused.value.message
    assert refused.value.hint


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = "prompt messages id echo stop top_k n temp seed samples regex choices json_schema overflow body url method logprobs top_logprobs"
KEYS = st.sampled_from(NAMES.split())


@given(st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=4), max_size=5) | VALUES)
def test_whatever_a_line_holds_is_understood_or_refused(value: Any) -> None:
    line = json.dumps(value).encode()
    key = LineKey(1)
    try:
        found = read_object(line)
        key = line_key(1, found)
        request = read_request(found)
        resolve(request.options, {}, {})
        record = answer_record(key, request, "model", [])
    except TgenError as error:
        record = error_record(key, error)
        assert error.message
        assert "\n" not in error.message
    assert json.loads(json.dumps(record, allow_nan=False))["line"] == 1


def test_what_is_read_can_be_written_again() -> None:
    levels = 499
    deep = read_object(b'{"id": ' + b"[" * levels + b"]" * levels + b"}")
    assert json.dumps(error_record(line_key(1, deep), UsageError(repr(deep)))).count("[[") > 200


def test_a_lines_constraint_takes_the_place_of_the_commands() -> None:
    command = {"regex": "a+", "top_k": 3, "json_schema": None}
    assert merged(command, {"choices": ["x"]}) == {"top_k": 3, "choices": ["x"]}
    assert merged(command, {"top_k": 4}) == {"regex": "a+", "top_k": 4, "json_schema": None}


def test_a_mark_of_the_byte_order_is_no_part_of_a_line() -> None:
    assert read_object(b'\xef\xbb\xbf{"prompt": "a"}') == {"prompt": "a"}


def test_the_key_of_a_line() -> None:
    assert line_key(3, {"prompt": "a"}) == LineKey(3)
    assert line_key(3, {"id": [7]}) == LineKey(3, [7])
    assert line_key(3, {"custom_id": "x", "body": {}, "id": "not this"}) == LineKey(3, "x", enveloped=True)


def test_a_body_alone_is_read_as_in_a_line() -> None:
    assert read_body("completion", {"prompt": ["a"], "model": "m", "n": 2}) == JsonRequest("completion", "a", options={"samples": 2})
